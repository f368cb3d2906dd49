/* What the C test programs share: claims that end the program when they do not hold, and a store to make them about. */
#ifndef CLAIMS_H
#define CLAIMS_H

#include <keystead.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define Z KEYSTEAD_ZERO_TERMINATED
#define BYTES(text) (const uint8_t *)(text), strlen(text)

#define CLAIM(holds)                                                                                                   \
    do {                                                                                                               \
        if (!(holds)) {                                                                                                \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #holds);                                 \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* A call that succeeds; its error object is shown when it does not. */
#define DO(call)                                                                                                       \
    do {                                                                                                               \
        keystead_error *error = NULL;                                                                                  \
        int32_t code_ = (call);                                                                                        \
        if (code_ != KEYSTEAD_OK || error != NULL) {                                                                   \
            fprintf(stderr, "%s:%d: code %d: %s\n", __FILE__, __LINE__, (int)code_, keystead_error_message(error));    \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* A call that is refused with this code, which its error object repeats. */
#define REFUSED(expected, call)                                                                                        \
    do {                                                                                                               \
        keystead_error *error = NULL;                                                                                  \
        int32_t code_ = (call);                                                                                        \
        if (code_ != (expected) || keystead_error_code(error) != (expected) || *keystead_error_message(error) == 0) {  \
            fprintf(stderr, "%s:%d: code %d, not %s: %s\n", __FILE__, __LINE__, (int)code_, #expected,                 \
                    keystead_error_message(error));                                                                    \
            exit(1);                                                                                                   \
        }                                                                                                              \
        keystead_error_free(error);                                                                                    \
    } while (0)

static keystead_backend *managed_in(const char *directory)
{
    keystead_backend *backend = NULL;
    char settings[4200];
    sprintf(settings, "{\"keyring\":\"%.4000s/app.keyring\"}", directory);
    DO(keystead_backend_managed(settings, Z, &backend, &error));
    return backend;
}

/* A new store of this name with up to two backends. */
static keystead_store *store_in(const char *directory, const char *name, const keystead_backend *one,
                                const keystead_backend *other)
{
    const keystead_backend *backends[2];
    keystead_store_options options;
    keystead_store *store = NULL;
    char path[4200];
    backends[0] = one;
    backends[1] = other;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.backends = backends;
    options.backends_len = other == NULL ? 1 : 2;
    sprintf(path, "%.4000s/%.100s", directory, name);
    DO(keystead_store_create(path, Z, &options, &store, &error));
    return store;
}

#endif
