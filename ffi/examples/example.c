/*
 * The whole life of a secret, in C: a store is created, a secret is put, the organization brings its own key by a plugin,
 * everything is re-wrapped to that key, and the secret is read.
 *
 *     cc example.c $(pkg-config --cflags --libs keystead) -o example
 *     ./example DIRECTORY PLUGIN DIGEST
 *
 * DIRECTORY is empty and absolute. PLUGIN is the absolute path of libkeystead_managed.so, whose keyring stands in here for a
 * customer's KMS, and DIGEST its BLAKE3 digest, 64 hexadecimal digits, as b3sum prints them.
 */
#include <keystead.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define Z KEYSTEAD_ZERO_TERMINATED

static keystead_error *error = NULL;

/* Says what failed, and ends. */
static void check(int32_t code, const char *doing)
{
    if (code != KEYSTEAD_OK) {
        fprintf(stderr, "%s: %s (code %d, class %d)\n", doing, keystead_error_message(error), (int)code,
                (int)keystead_error_class(error));
        keystead_error_free(error);
        exit(1);
    }
}

static void parse_digest(const char *text, unsigned char *digest)
{
    unsigned int byte;
    int i;

    for (i = 0; i < 32; i++) {
        if (strlen(text) != 64 || sscanf(text + 2 * i, "%2x", &byte) != 1) {
            fprintf(stderr, "a digest has 64 hexadecimal digits\n");
            exit(2);
        }
        digest[i] = (unsigned char)byte;
    }
}

static int32_t show(void *context, const keystead_rewrap_progress *progress)
{
    (void)context;
    printf("  re-wrap: %lu of %lu data keys\n", (unsigned long)progress->done, (unsigned long)progress->total);
    return 0; /* anything else stops the wait, not the job */
}

static void print_epochs(const keystead_organization *organization)
{
    static const char *const states[] = { "?", "active", "live", "retired" };
    keystead_epoch_list *epochs = NULL;
    keystead_epoch epoch;
    size_t i;

    check(keystead_epoch_list_read(organization, &epochs, &error), "epochs");
    for (i = 0; i < keystead_epoch_list_len(epochs); i++) {
        memset(&epoch, 0, sizeof epoch);
        epoch.struct_size = sizeof epoch;
        check(keystead_epoch_list_get(epochs, i, &epoch, &error), "epoch");
        printf("  epoch %u %s %s, %lu data keys\n", (unsigned)epoch.number, epoch.key.data, states[epoch.state],
               (unsigned long)epoch.data_keys);
    }
    keystead_epoch_list_free(epochs);
}

int main(int argc, char **argv)
{
    char path[4096], settings[4200];
    unsigned char digest[32];
    keystead_backend *managed = NULL, *customer = NULL;
    const keystead_backend *backends[2];
    keystead_plugin_options plugin;
    keystead_store_options options;
    keystead_store *store = NULL;
    keystead_organization *acme = NULL, *alice = NULL;
    keystead_rewrap_job *job = NULL;
    keystead_secret *secret = NULL;
    uint32_t version = 0;

    if (argc != 4 || strlen(argv[1]) > 4000) {
        fprintf(stderr, "usage: example DIRECTORY PLUGIN DIGEST\n");
        return 2;
    }
    if (keystead_abi_version() != KEYSTEAD_ABI_VERSION) {
        fprintf(stderr, "built against another libkeystead than %s\n", keystead_version());
        return 2;
    }

    /* The managed key is linked in; the customer's is behind a plugin, of which these bytes alone are loaded. */
    sprintf(settings, "{\"keyring\":\"%s/app.keyring\"}", argv[1]);
    check(keystead_backend_managed(settings, Z, &managed, &error), "managed key");
    sprintf(settings, "{\"keyring\":\"%s/customer.keyring\"}", argv[1]);
    memset(&plugin, 0, sizeof plugin);
    plugin.struct_size = sizeof plugin;
    parse_digest(argv[3], digest);
    plugin.digests = digest;
    plugin.digests_len = 1;
    plugin.name = "customer-kms";
    plugin.name_len = Z;
    plugin.settings_json = settings;
    plugin.settings_json_len = Z;
    check(keystead_backend_load(argv[2], Z, &plugin, &customer, &error), "plugin");

    backends[0] = managed;
    backends[1] = customer;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.backends = backends;
    options.backends_len = 2;
    sprintf(path, "%s/app.keystead", argv[1]);
    check(keystead_store_create(path, Z, &options, &store, &error), "store");
    keystead_backend_free(customer); /* the store keeps what it needs */
    keystead_backend_free(managed);

    check(keystead_organization_create(store, "acme", Z, &acme, &error), "organization");
    check(keystead_put(acme, "prod/db/password", Z, (const uint8_t *)"correct horse", 13, NULL, &version, &error), "put");
    printf("put version %u\n", (unsigned)version);

    /* Who acts, and why, stands in the audit trail. */
    check(keystead_organization_acting_as(acme, "alice@acme", Z, "ticket 4711", Z, &alice, &error), "acting as");
    check(keystead_key_add(alice, "acme-cmk", Z, "customer-kms", Z, NULL, 0, &job, &error), "add key");
    printf("acme brought its key\n");
    check(keystead_rewrap_wait(job, 60000, show, NULL, NULL, &error), "re-wrap");
    keystead_rewrap_job_free(job);

    check(keystead_get(acme, "prod/db/password", Z, 0, &secret, &error), "get");
    printf("got version %u, %lu bytes\n", (unsigned)keystead_secret_version(secret),
           (unsigned long)keystead_secret_len(secret));
    if (keystead_secret_len(secret) != 13 || memcmp(keystead_secret_data(secret), "correct horse", 13) != 0) {
        fprintf(stderr, "another value than was put\n");
        return 1;
    }
    keystead_secret_free(secret); /* erased */
    print_epochs(acme);

    keystead_organization_free(alice);
    keystead_store_free(store); /* in any order: the last handle closes the store */
    keystead_organization_free(acme);
    return 0;
}
