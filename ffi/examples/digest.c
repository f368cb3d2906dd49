/* Prints the BLAKE3 digest of a plugin, for an allow-list: digest PLUGIN */
#include <keystead.h>

#include <stdio.h>

int main(int argc, char **argv)
{
    keystead_error *error = NULL;
    unsigned char digest[32];
    int i;

    if (argc != 2) {
        fprintf(stderr, "usage: digest PLUGIN\n");
        return 2;
    }
    if (keystead_plugin_digest(argv[1], KEYSTEAD_ZERO_TERMINATED, digest, &error) != KEYSTEAD_OK) {
        fprintf(stderr, "%s\n", keystead_error_message(error));
        keystead_error_free(error);
        return 1;
    }
    for (i = 0; i < 32; i++) {
        printf("%02x", digest[i]);
    }
    printf("\n");
    return 0;
}
