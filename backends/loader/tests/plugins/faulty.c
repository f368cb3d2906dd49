/*
 * A plugin that does wrong what it is told to do wrong, for the tests of the loader.
 *
 * Without a definition it loads and works: it "wraps" by exclusive or with one byte. What concerns loading is chosen by
 * definitions when it is compiled, what concerns calls by a word in the config.
 */
#include "keystead_backend.h"

#define _POSIX_C_SOURCE 200809L
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef VARIANT
#define VARIANT 0 /* makes other bytes, so that the dynamic linker takes it for another library */
#endif
#ifndef NAME
#define NAME "faulty"
#endif
#ifndef CAPABILITIES
#define CAPABILITIES KEYSTEAD_BACKEND_CAN_INTERRUPT
#endif
#ifndef DESCRIPTION
#define DESCRIPTION                                                                                                   \
    "{\"name\":\"" NAME "\",\"version\":\"1\",\"limits\":{\"plaintext_max_bytes\":64,\"blob_max_bytes\":64,"             \
    "\"key_id_max_bytes\":16,\"metadata_max_bytes\":16}}"
#endif

const int keystead_test_variant = VARIANT;

struct keystead_backend_instance {
    const keystead_backend_host *host;
    char fault[256];
    const char *when; /* a file: the fault is there as soon as that is */
    atomic_int interrupted;
};

static int fails(const keystead_backend_instance *instance, const char *fault) {
    return strcmp(instance->fault, fault) == 0 && (instance->when == NULL || access(instance->when, F_OK) == 0);
}

static void put(keystead_backend_output *out, const void *data, uint64_t len) {
    if (len > 0) {
        memcpy(out->data, data, len);
    }
    out->len = len;
}

/* Writes one byte more than there is room for. */
static void overrun(keystead_backend_output *out) {
    memset(out->data, 'x', out->capacity + 1);
    out->len = out->capacity;
}

static void claim_too_much(keystead_backend_output *out) {
    out->len = out->capacity + 1;
}

static int32_t fail(keystead_backend_error *error, int32_t code, const char *message) {
    if (error != NULL) {
        error->code = code;
        put(&error->message, message, strlen(message));
    }
    return code;
}

static void say(const keystead_backend_instance *instance, const char *text) {
    keystead_backend_input message;
    message.data = (const uint8_t *)text;
    message.len = strlen(text);
    instance->host->log(instance->host->context, KEYSTEAD_BACKEND_LOG_INFO, &message);
}

static int32_t describe(void *backend, keystead_backend_output *json, keystead_backend_error *error) {
    (void)backend;
    (void)json;
    (void)error;
#if defined(DESCRIBE_FAILS)
    return fail(error, KEYSTEAD_BACKEND_INTERNAL, "out of ideas");
#elif defined(DESCRIBE_OVERRUNS_ONCE)
    static int asked = 0;
    if (asked++ == 0) {
        overrun(json);
    } else {
        put(json, DESCRIPTION, strlen(DESCRIPTION));
    }
    return KEYSTEAD_BACKEND_OK;
#elif defined(DESCRIBE_CLAIMS_TOO_MUCH)
    claim_too_much(json);
    return KEYSTEAD_BACKEND_OK;
#elif defined(DESCRIBE_NEVER_FITS)
    json->len = json->capacity + 1;
    return KEYSTEAD_BACKEND_BUFFER_TOO_SMALL;
#elif defined(DESCRIBE_WANTS_EVERYTHING)
    json->len = UINT64_MAX;
    return KEYSTEAD_BACKEND_BUFFER_TOO_SMALL;
#elif defined(DESCRIBE_AT_LENGTH)
    if (json->capacity < DESCRIBE_AT_LENGTH) {
        json->len = DESCRIBE_AT_LENGTH;
        return KEYSTEAD_BACKEND_BUFFER_TOO_SMALL;
    }
    memset(json->data, ' ', DESCRIBE_AT_LENGTH);
    memcpy(json->data, DESCRIPTION, strlen(DESCRIPTION));
    json->len = DESCRIBE_AT_LENGTH;
    return KEYSTEAD_BACKEND_OK;
#else
    put(json, DESCRIPTION, strlen(DESCRIPTION));
    return KEYSTEAD_BACKEND_OK;
#endif
}

static int32_t open_instance(void *backend, const keystead_backend_open_request *request,
                             keystead_backend_instance **out, keystead_backend_error *error) {
    keystead_backend_instance *instance;
    uint64_t len = request->config_json.len;
    (void)backend;
    instance = calloc(1, sizeof *instance);
    if (instance == NULL || len >= sizeof instance->fault) {
        free(instance);
        return fail(error, KEYSTEAD_BACKEND_INTERNAL, "no memory");
    }
    memcpy(instance->fault, request->config_json.data, len);
    if (len > 12 && memcmp(instance->fault, "{\"fault\":\"", 10) == 0) {
        /* As a store has it: {"fault":"what@when"} */
        char *when;
        memmove(instance->fault, instance->fault + 10, len - 12);
        instance->fault[len - 12] = '\0';
        when = strchr(instance->fault, '@');
        if (when != NULL) {
            *when = '\0';
            instance->when = when + 1;
        }
    }
    instance->host = request->host;
    if (fails(instance, "open answers nothing")) {
        free(instance);
        return KEYSTEAD_BACKEND_OK;
    }
    if (fails(instance, "open overruns its message")) {
        overrun(&error->message);
        free(instance);
        error->code = KEYSTEAD_BACKEND_INTERNAL;
        return KEYSTEAD_BACKEND_INTERNAL;
    }
    *out = instance;
    return KEYSTEAD_BACKEND_OK;
}

static void close_instance(keystead_backend_instance *instance) {
    if (instance != NULL) {
        say(instance, "closed");
        free(instance);
    }
}

static uint8_t kept[32];

/* What ends the process, or the thread. */
static void end(const keystead_backend_instance *instance) {
    if (fails(instance, "exits")) {
        exit(42);
    } else if (fails(instance, "exits at once")) {
        _exit(43);
    } else if (fails(instance, "aborts")) {
        abort();
    } else if (fails(instance, "writes where nothing is")) {
        volatile int *volatile nowhere = (volatile int *)8;
        *nowhere = 1;
    } else if (fails(instance, "blocks for ever")) {
        for (;;) {
            pause();
        }
    }
}

static int32_t status(keystead_backend_instance *instance, const keystead_backend_call *call,
                      keystead_backend_status_out *out, keystead_backend_error *error) {
    put(&out->key_id, "key/1", 5);
    if (fails(instance, "keeps the key")) {
        /* What no check can keep it from: it was given the key. */
        put(&out->detail, kept, sizeof kept);
    }
    if (fails(instance, "wait")) {
        while (!call->is_cancelled(call->cancel_context)) {
            if (atomic_load(&instance->interrupted)) {
                return fail(error, KEYSTEAD_BACKEND_CANCELLED, "interrupted");
            }
        }
        return fail(error, KEYSTEAD_BACKEND_CANCELLED, "cancelled");
    }
    if (fails(instance, "asks for a token with too much room")) {
        static uint8_t room[2 * KEYSTEAD_BACKEND_TOKEN_MAX];
        keystead_backend_input audience = {(const uint8_t *)"aws:acme", 8};
        keystead_backend_output token = {room, sizeof room, 0};
        return instance->host->identity_token(instance->host->context, &audience, &token, error);
    }
    if (fails(instance, "status overruns")) {
        overrun(&out->detail);
    }
    if (fails(instance, "status is not UTF-8")) {
        put(&out->detail, "a\xFFz\nb", 5);
    }
    if (fails(instance, "status key id is not UTF-8")) {
        put(&out->key_id, "\xC3\x28", 2);
    }
    return KEYSTEAD_BACKEND_OK;
}

static int32_t wrap(keystead_backend_instance *instance, const keystead_backend_call *call,
                    const keystead_backend_context *context, const keystead_backend_input *plaintext,
                    keystead_backend_wrapped_out *out, keystead_backend_error *error) {
    uint64_t i;
    (void)call;
    (void)context;
    end(instance);
    if (fails(instance, "keeps the key") && plaintext->len == sizeof kept) {
        memcpy(kept, plaintext->data, sizeof kept);
    }
    for (i = 0; i < plaintext->len; i++) {
        out->blob.data[i] = plaintext->data[i] ^ 0x5A;
    }
    out->blob.len = plaintext->len;
    put(&out->key_id, "key/1", 5);
    put(&out->metadata, "m", 1);

    if (fails(instance, "wrap overruns the blob")) {
        overrun(&out->blob);
    } else if (fails(instance, "wrap overruns the key id")) {
        overrun(&out->key_id);
    } else if (fails(instance, "wrap overruns the metadata")) {
        overrun(&out->metadata);
    } else if (fails(instance, "wrap overruns the blob and fails")) {
        overrun(&out->blob);
        return fail(error, KEYSTEAD_BACKEND_UNAVAILABLE, "no answer");
    } else if (fails(instance, "wrap overruns the message")) {
        overrun(&error->message);
    } else if (fails(instance, "wrap claims too long a blob")) {
        claim_too_much(&out->blob);
    } else if (fails(instance, "wrap claims too long a key id")) {
        claim_too_much(&out->key_id);
    } else if (fails(instance, "wrap claims a key id of everything")) {
        out->key_id.len = UINT64_MAX;
    } else if (fails(instance, "wrap claims too long metadata")) {
        claim_too_much(&out->metadata);
    } else if (fails(instance, "wrap key id is not UTF-8")) {
        put(&out->key_id, "key/\xFF", 5);
    } else if (fails(instance, "wrap key id has an escape")) {
        put(&out->key_id, "k\x1B[1m", 5);
    } else if (fails(instance, "wrap answers no key id")) {
        out->key_id.len = 0;
    } else if (fails(instance, "wrap answers no blob")) {
        out->blob.len = 0;
    } else if (fails(instance, "wrap moves its room")) {
        /* The host must use its own idea of where the room is. */
        out->blob.data = (uint8_t *)1;
        out->blob.capacity = UINT64_MAX;
    } else if (fails(instance, "unknown code")) {
        return fail(error, 55, "what is this?");
    } else if (fails(instance, "negative code")) {
        return fail(error, -1, "minus one");
    } else if (fails(instance, "code of the interface")) {
        return fail(error, KEYSTEAD_BACKEND_BUFFER_TOO_SMALL, "no room");
    } else if (fails(instance, "contradicts itself")) {
        fail(error, KEYSTEAD_BACKEND_UNAVAILABLE, "come back");
        return KEYSTEAD_BACKEND_KEY_DISABLED;
    } else if (fails(instance, "no reason")) {
        error->code = KEYSTEAD_BACKEND_KEY_DISABLED;
        return KEYSTEAD_BACKEND_KEY_DISABLED;
    } else if (fails(instance, "message claims too much")) {
        fail(error, KEYSTEAD_BACKEND_KEY_DISABLED, "x");
        claim_too_much(&error->message);
        return KEYSTEAD_BACKEND_KEY_DISABLED;
    } else if (fails(instance, "message with escapes")) {
        return fail(error, KEYSTEAD_BACKEND_KEY_DISABLED, "one\ntwo\x1B[31m\xFF");
    } else if (fails(instance, "waits for ages")) {
        error->retry_after_ms = UINT64_MAX;
        return fail(error, KEYSTEAD_BACKEND_THROTTLED, "later");
    }
    return KEYSTEAD_BACKEND_OK;
}

static int32_t unwrap(keystead_backend_instance *instance, const keystead_backend_call *call,
                      const keystead_backend_context *context, const keystead_backend_wrapped *wrapped,
                      keystead_backend_output *out, keystead_backend_error *error) {
    uint64_t i;
    (void)call;
    (void)context;
    (void)error;
    for (i = 0; i < wrapped->blob.len; i++) {
        out->data[i] = wrapped->blob.data[i] ^ 0x5A;
    }
    out->len = wrapped->blob.len;
    if (fails(instance, "unwrap overruns")) {
        overrun(out);
    } else if (fails(instance, "unwrap claims too much")) {
        claim_too_much(out);
    } else if (fails(instance, "unwrap answers half")) {
        out->len /= 2;
    } else if (fails(instance, "unwrap answers nothing")) {
        out->len = 0;
    } else if (fails(instance, "unwrap answers another key")) {
        out->data[0] ^= 1;
    } else if (fails(instance, "unwrap answers twice as much")) {
        out->len *= 2;
    }
    return KEYSTEAD_BACKEND_OK;
}

static void interrupt(keystead_backend_instance *instance) {
    atomic_store(&instance->interrupted, 1);
}

static keystead_backend_api table = {
    sizeof(keystead_backend_api), KEYSTEAD_BACKEND_ABI, CAPABILITIES, NULL, describe, open_instance, close_instance,
    status, wrap, unwrap, NULL, interrupt,
};

#ifdef MARKER
/* Leaves a file behind when the library is loaded, before anything in it is called. */
#include <stdio.h>
__attribute__((constructor)) static void leave_marker(void) {
    FILE *file = fopen(MARKER, "w");
    if (file != NULL) {
        fclose(file);
    }
}
#endif

#ifdef NEEDS_WHAT_NOBODY_HAS
int keystead_test_nowhere(void);
KEYSTEAD_BACKEND_EXPORT int keystead_test_needs(void);
int keystead_test_needs(void) {
    return keystead_test_nowhere();
}
#endif

#ifdef NO_SYMBOL
#define keystead_backend_get_interface some_other_symbol
KEYSTEAD_BACKEND_EXPORT int32_t some_other_symbol(uint32_t, uint32_t, const keystead_backend_host *,
                                                  const keystead_backend_api **);
#endif

int32_t keystead_backend_get_interface(uint32_t abi_min, uint32_t abi_max, const keystead_backend_host *host,
                                       const keystead_backend_api **out) {
    (void)host;
    (void)table;
    (void)abi_min;
    (void)abi_max;
#ifdef ONLY_ABI
    if (abi_min > ONLY_ABI || abi_max < ONLY_ABI) {
        return KEYSTEAD_BACKEND_UNSUPPORTED_ABI;
    }
#endif
#ifdef INTERFACE_CODE
    return INTERFACE_CODE;
#endif
#ifdef STRUCT_SIZE
    table.struct_size = STRUCT_SIZE;
#endif
#ifdef TABLE_ABI
    table.abi = TABLE_ABI;
#endif
#ifdef NULL_ENTRY
    table.NULL_ENTRY = NULL;
#endif
#if defined(NULL_TABLE)
    *out = NULL;
#elif defined(MISALIGNED_TABLE)
    *out = (const keystead_backend_api *)((const char *)&table + 1);
#else
    *out = &table;
#endif
    return KEYSTEAD_BACKEND_OK;
}
