/*
 * A whole plugin in plain C, against the header alone.
 *
 * DEMONSTRATION ONLY. The cipher is a toy that a child could break, and its key is a passphrase in the config, which the
 * store file holds in clear. It shows how a plugin is built, and protects nothing.
 *
 *     cc -std=c99 -shared -fPIC -I backends/api/include -o libtoy_cipher.so toy_cipher.c
 */
#include "keystead_backend.h"

#include <stdlib.h>
#include <string.h>

#define NONCE_LEN 8
#define TAG_LEN 8
#define PLAINTEXT_MAX 256
#define BLOB_MAX (PLAINTEXT_MAX + TAG_LEN)
#define KEY_ID_MAX 64
#define METADATA_MAX NONCE_LEN

static const char DESCRIPTION[] = "{\"name\":\"toy-cipher\",\"version\":\"0.1.0\","
                                  "\"config_schema\":{\"type\":\"object\",\"required\":[\"passphrase\"],"
                                  "\"additionalProperties\":false,"
                                  "\"properties\":{\"passphrase\":{\"type\":\"string\"}}},"
                                  "\"limits\":{\"plaintext_max_bytes\":256,\"blob_max_bytes\":264,"
                                  "\"key_id_max_bytes\":64,\"metadata_max_bytes\":8},"
                                  "\"capabilities\":{\"binds_context\":true,\"rewrap\":false,\"interrupt\":false},"
                                  "\"credentials\":[\"none\"]}";

struct keystead_backend_instance {
    const keystead_backend_host *host;
    uint64_t key;
};

/* Answers a failure: the code twice, and a message that is cut to its room. */
static int32_t fail(keystead_backend_error *error, int32_t code, const char *message) {
    if (error != NULL && error->struct_size >= sizeof *error) {
        uint64_t len = strlen(message);
        if (len > error->message.capacity) {
            len = error->message.capacity;
        }
        if (len > 0) {
            memcpy(error->message.data, message, len);
        }
        error->message.len = len;
        error->code = code;
    }
    return code;
}

/* Checks, before anything is done, that the largest answer fits. */
static int has_room(keystead_backend_output *out, uint64_t needed) {
    if (out->capacity < needed) {
        out->len = needed;
        return 0;
    }
    out->len = 0;
    return 1;
}

/* What is beyond a struct's own size is somebody else's memory. */
#define IS_WHOLE(pointer) ((pointer)->struct_size >= sizeof *(pointer))

static int32_t short_struct(keystead_backend_error *error) {
    return fail(error, KEYSTEAD_BACKEND_INVALID_ARGUMENT, "a struct is shorter than version 1 has it");
}

static void put(keystead_backend_output *out, const void *data, uint64_t len) {
    if (len > 0) {
        memcpy(out->data, data, len);
    }
    out->len = len;
}

/* FNV-1a. A toy: no one-way function, let alone a keyed one. */
static uint64_t mix(uint64_t state, const void *data, uint64_t len) {
    const uint8_t *bytes = data;
    uint64_t i;
    for (i = 0; i < len; i++) {
        state = (state ^ bytes[i]) * 1099511628211u;
    }
    return state;
}

static void apply_keystream(uint64_t state, const uint8_t *in, uint8_t *out, uint64_t len) {
    uint64_t i;
    for (i = 0; i < len; i++) {
        state = mix(state, &i, sizeof i);
        out[i] = in[i] ^ (uint8_t)(state >> 56);
    }
}

static void make_key_id(const keystead_backend_instance *instance, keystead_backend_output *out) {
    static const char prefix[] = "toy-cipher/";
    static const char digits[] = "0123456789abcdef";
    uint64_t fingerprint = mix(instance->key, "fingerprint", 11);
    char id[sizeof prefix - 1 + 16];
    int i;
    memcpy(id, prefix, sizeof prefix - 1);
    for (i = 0; i < 16; i++) {
        id[sizeof prefix - 1 + i] = digits[(fingerprint >> (60 - 4 * i)) & 15];
    }
    put(out, id, sizeof id);
}

static int32_t describe(void *backend, keystead_backend_output *json, keystead_backend_error *error) {
    (void)backend;
    if (!has_room(json, sizeof DESCRIPTION - 1)) {
        return fail(error, KEYSTEAD_BACKEND_BUFFER_TOO_SMALL, "no room for the description");
    }
    put(json, DESCRIPTION, sizeof DESCRIPTION - 1);
    return KEYSTEAD_BACKEND_OK;
}

/* Refuses by its name the first field that is not the passphrase, if there is one. */
static int32_t refuse(const char *what, const keystead_backend_input *json, keystead_backend_error *error) {
    static const char known[] = "passphrase";
    static const char before[] = ": unknown field `";
    char message[128];
    uint64_t from, to;
    size_t len;
    for (from = 0; from < json->len && json->data[from] != '"'; from++) {
    }
    for (to = from + 1; to < json->len && json->data[to] != '"' && to - from <= 64; to++) {
    }
    if (to >= json->len || json->data[0] != '{' ||
        (to - from - 1 == sizeof known - 1 && memcmp(json->data + from + 1, known, sizeof known - 1) == 0)) {
        return fail(error, KEYSTEAD_BACKEND_INVALID_CONFIG, what);
    }
    len = strlen(what) < 24 ? strlen(what) : 24;
    memcpy(message, what, len);
    memcpy(message + len, before, sizeof before - 1);
    len += sizeof before - 1;
    memcpy(message + len, json->data + from + 1, to - from - 1);
    len += to - from - 1;
    memcpy(message + len, "`", 2);
    return fail(error, KEYSTEAD_BACKEND_INVALID_CONFIG, message);
}

/* Strict: exactly {"passphrase":"..."} without blanks or escapes. A real plugin uses a JSON parser. */
static int32_t open_instance(void *backend, const keystead_backend_open_request *request,
                             keystead_backend_instance **out, keystead_backend_error *error) {
    static const char before[] = "{\"passphrase\":\"";
    static const char after[] = "\"}";
    const keystead_backend_input *config = &request->config_json;
    const keystead_backend_input *settings = &request->settings_json;
    keystead_backend_instance *instance;
    uint64_t len;
    (void)backend;
    if (!IS_WHOLE(request)) {
        return short_struct(error);
    }
    if (settings->len != 2 || memcmp(settings->data, "{}", 2) != 0) {
        return refuse("the settings must be {}", settings, error);
    }
    if (config->len < sizeof before + sizeof after - 1 || memcmp(config->data, before, sizeof before - 1) != 0 ||
        memcmp(config->data + config->len - 2, after, 2) != 0) {
        return refuse("the config must be {\"passphrase\":\"...\"}, without blanks and other fields", config, error);
    }
    len = config->len - (sizeof before - 1) - (sizeof after - 1);
    if (memchr(config->data + sizeof before - 1, '"', len) != NULL ||
        memchr(config->data + sizeof before - 1, '\\', len) != NULL) {
        return fail(error, KEYSTEAD_BACKEND_INVALID_CONFIG, "the config has another field, or an escape, in `passphrase`");
    }
    instance = malloc(sizeof *instance);
    if (instance == NULL) {
        return fail(error, KEYSTEAD_BACKEND_INTERNAL, "out of memory");
    }
    instance->host = request->host;
    instance->key = mix(14695981039346656037u, config->data + sizeof before - 1, len);
    *out = instance;
    return KEYSTEAD_BACKEND_OK;
}

static void close_instance(keystead_backend_instance *instance) {
    if (instance != NULL) {
        const keystead_backend_host *host = instance->host;
        host->zero(instance, sizeof *instance);
        free(instance);
    }
}

static int32_t status(keystead_backend_instance *instance, const keystead_backend_call *call,
                      keystead_backend_status_out *out, keystead_backend_error *error) {
    static const char detail[] = "a toy: protects nothing";
    if (!IS_WHOLE(call) || !IS_WHOLE(out)) {
        return short_struct(error);
    }
    if (!has_room(&out->key_id, KEY_ID_MAX) || !has_room(&out->detail, sizeof detail - 1)) {
        return fail(error, KEYSTEAD_BACKEND_BUFFER_TOO_SMALL, "no room for the status");
    }
    make_key_id(instance, &out->key_id);
    put(&out->detail, detail, sizeof detail - 1);
    return KEYSTEAD_BACKEND_OK;
}

static uint64_t start(const keystead_backend_instance *instance, const keystead_backend_context *context,
                      const uint8_t *nonce) {
    return mix(mix(instance->key, nonce, NONCE_LEN), context->canonical.data, context->canonical.len);
}

static int32_t wrap(keystead_backend_instance *instance, const keystead_backend_call *call,
                    const keystead_backend_context *context, const keystead_backend_input *plaintext,
                    keystead_backend_wrapped_out *out, keystead_backend_error *error) {
    uint8_t nonce[NONCE_LEN];
    uint64_t state, tag;
    if (!IS_WHOLE(call) || !IS_WHOLE(context) || !IS_WHOLE(out)) {
        return short_struct(error);
    }
    if (!has_room(&out->blob, BLOB_MAX) || !has_room(&out->key_id, KEY_ID_MAX) ||
        !has_room(&out->metadata, METADATA_MAX)) {
        return fail(error, KEYSTEAD_BACKEND_BUFFER_TOO_SMALL, "no room for the wrapped key");
    }
    if (plaintext->len > PLAINTEXT_MAX) {
        return fail(error, KEYSTEAD_BACKEND_INVALID_ARGUMENT, "the plaintext is longer than 256 bytes");
    }
    if (call->is_cancelled != NULL && call->is_cancelled(call->cancel_context)) {
        return fail(error, KEYSTEAD_BACKEND_CANCELLED, "cancelled before anything was done");
    }
    if (instance->host->random(instance->host->context, nonce, sizeof nonce) != KEYSTEAD_BACKEND_OK) {
        return fail(error, KEYSTEAD_BACKEND_INTERNAL, "the host has no random bytes");
    }
    state = start(instance, context, nonce);
    apply_keystream(state, plaintext->data, out->blob.data, plaintext->len);
    tag = mix(state, plaintext->data, plaintext->len);
    memcpy(out->blob.data + plaintext->len, &tag, TAG_LEN);
    out->blob.len = plaintext->len + TAG_LEN;
    put(&out->metadata, nonce, sizeof nonce);
    make_key_id(instance, &out->key_id);
    return KEYSTEAD_BACKEND_OK;
}

static int32_t unwrap(keystead_backend_instance *instance, const keystead_backend_call *call,
                      const keystead_backend_context *context, const keystead_backend_wrapped *wrapped,
                      keystead_backend_output *out, keystead_backend_error *error) {
    uint8_t own_id[KEY_ID_MAX];
    keystead_backend_output own = {own_id, sizeof own_id, 0};
    uint64_t state, tag, found, len;
    if (!IS_WHOLE(call) || !IS_WHOLE(context) || !IS_WHOLE(wrapped)) {
        return short_struct(error);
    }
    if (!has_room(out, PLAINTEXT_MAX)) {
        return fail(error, KEYSTEAD_BACKEND_BUFFER_TOO_SMALL, "no room for the plaintext");
    }
    make_key_id(instance, &own);
    if (wrapped->key_id.len != own.len || memcmp(wrapped->key_id.data, own.data, own.len) != 0) {
        return fail(error, KEYSTEAD_BACKEND_WRONG_KEY, "another passphrase wrapped this");
    }
    if (wrapped->blob.len < TAG_LEN || wrapped->blob.len > BLOB_MAX || wrapped->metadata.len != NONCE_LEN) {
        return fail(error, KEYSTEAD_BACKEND_INVALID_CIPHERTEXT, "the wrapped key has an impossible length");
    }
    len = wrapped->blob.len - TAG_LEN;
    state = start(instance, context, wrapped->metadata.data);
    apply_keystream(state, wrapped->blob.data, out->data, len);
    tag = mix(state, out->data, len);
    memcpy(&found, wrapped->blob.data + len, TAG_LEN);
    if (tag != found) {
        instance->host->zero(out->data, len);
        return fail(error, KEYSTEAD_BACKEND_INVALID_CIPHERTEXT, "damaged, or wrapped under another context");
    }
    out->len = len;
    return KEYSTEAD_BACKEND_OK;
}

static const keystead_backend_api table = {
    sizeof(keystead_backend_api),
    KEYSTEAD_BACKEND_ABI,
    KEYSTEAD_BACKEND_BINDS_CONTEXT,
    NULL,
    describe,
    open_instance,
    close_instance,
    status,
    wrap,
    unwrap,
    NULL, /* no rewrap */
    NULL, /* no interrupt */
};

int32_t keystead_backend_get_interface(uint32_t abi_min, uint32_t abi_max, const keystead_backend_host *host,
                                       const keystead_backend_api **out) {
    if (host == NULL || out == NULL) {
        return KEYSTEAD_BACKEND_INVALID_ARGUMENT;
    }
    if (abi_min > KEYSTEAD_BACKEND_ABI || abi_max < KEYSTEAD_BACKEND_ABI) {
        return KEYSTEAD_BACKEND_UNSUPPORTED_ABI;
    }
    *out = &table;
    return KEYSTEAD_BACKEND_OK;
}
