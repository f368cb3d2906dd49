/*
 * The KMS of this example: a text file of keys, one version of a key on a line.
 *
 *     acme 1 disabled 0011223344556677889900112233445566778899001122334455667788990011
 *     acme 2 enabled ...64 hexadecimal digits...
 *
 * Lines that begin with # are left out. The file is looked at in every call, so that what its owner changes holds at once.
 */
#ifndef EXAMPLE_KEYRING_H
#define EXAMPLE_KEYRING_H

#include "keystead_backend.h"

#define KEY_BYTES 32
#define KEY_NAME_MAX 64
#define KEYRING_PROBLEM_MAX 768

typedef struct keyring_key {
    unsigned long version;
    uint8_t bytes[KEY_BYTES]; /* secret */
} keyring_key;

/* Finds a version of a key; version 0 is the greatest. KEYSTEAD_BACKEND_OK, or a code, and problem says what is wrong. */
int32_t keyring_find(const char *path, const char *name, unsigned long version, const keystead_backend_host *host,
                     keyring_key *out, char problem[KEYRING_PROBLEM_MAX]);

#endif
