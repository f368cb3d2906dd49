/*
 * A Keystead backend in plain C, written against keystead_backend.h alone: a keyring in a text file (keyring.h), and
 * AES-256-GCM of OpenSSL's libcrypto. docs/writing-a-backend.md goes through it.
 *
 * It is an example. It keeps its keys in a file of this machine, as the managed key of Keystead does, which does it better:
 * locked memory, a sealed file, rotation. Take it to pieces for a backend of your own.
 *
 *     settings   {"keyring": "/absolute/path"}   the application's: trusted
 *     config     {"key": "acme"}                 the store's: untrusted, so it names a key and no file
 *     key id     example-c:acme:v2
 *     blob       the ciphertext and its tag of 16 bytes
 *     metadata   the initialization vector, 12 bytes
 */
#include "keystead_backend.h"

#include "json.h"
#include "keyring.h"

#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLAINTEXT_MAX 256
#define TAG_BYTES 16
#define IV_BYTES 12
#define BLOB_MAX (PLAINTEXT_MAX + TAG_BYTES)
#define KEY_ID_MAX 128
#define PATH_BYTES_MAX 512

static const char DESCRIPTION[] =
    "{\"name\":\"example-c\",\"version\":\"1.0.0\","
    "\"config_schema\":{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"key\"],\"properties\":{"
    "\"key\":{\"type\":\"string\",\"pattern\":\"^[a-z0-9-]{1,64}$\",\"description\":\"Name of a key in the keyring\"}}},"
    "\"settings_schema\":{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"keyring\"],\"properties\":{"
    "\"keyring\":{\"type\":\"string\",\"description\":\"Absolute path of the keyring file\"}}},"
    "\"limits\":{\"plaintext_max_bytes\":256,\"blob_max_bytes\":272,\"key_id_max_bytes\":128,\"metadata_max_bytes\":12},"
    "\"capabilities\":{\"binds_context\":true,\"rewrap\":false,\"interrupt\":false},"
    "\"credentials\":[\"none\"]}";

/* One registered key. It never changes once it is open, so any number of threads may use it. */
struct keystead_backend_instance {
    const keystead_backend_host *host;
    char path[PATH_BYTES_MAX + 1];
    char name[KEY_NAME_MAX + 1];
};

/* -- Answers --------------------------------------------------------------------------------------------------------- */

/* A failure: the code twice, and a message for people, cut to its room on a character's boundary. */
static int32_t fail(keystead_backend_error *error, int32_t code, const char *format, ...) {
    char message[KEYSTEAD_BACKEND_MESSAGE_MAX];
    va_list arguments;
    size_t len;
    if (error == NULL || error->struct_size < sizeof *error) {
        return code;
    }
    va_start(arguments, format);
    if (vsnprintf(message, sizeof message, format, arguments) < 0) {
        message[0] = 0;
    }
    va_end(arguments);
    len = strlen(message);
    if (len > error->message.capacity) {
        len = (size_t)error->message.capacity;
    }
    while (len > 0 && len < strlen(message) && ((uint8_t)message[len] & 0xc0) == 0x80) {
        len--;
    }
    if (len > 0) {
        memcpy(error->message.data, message, len);
    }
    error->message.len = len;
    error->code = code;
    return code;
}

/* Looks, before anything is done, whether the largest answer fits. */
static int has_room(keystead_backend_output *out, uint64_t needed) {
    out->len = out->capacity < needed ? needed : 0;
    return out->capacity >= needed;
}

static void put(keystead_backend_output *out, const void *data, size_t len) {
    if (len > 0) {
        memcpy(out->data, data, len);
    }
    out->len = len;
}

/* A call that is over before it began. */
static int32_t check_call(const keystead_backend_call *call, keystead_backend_error *error) {
    if (call == NULL || call->struct_size < sizeof *call) {
        return fail(error, KEYSTEAD_BACKEND_INVALID_ARGUMENT, "the call has no header that this plugin knows");
    }
    if (call->is_cancelled != NULL && call->is_cancelled(call->cancel_context)) {
        return fail(error, KEYSTEAD_BACKEND_CANCELLED, "the call was cancelled before anything was done");
    }
    if (call->timeout_ms == 0) {
        return fail(error, KEYSTEAD_BACKEND_TIMEOUT, "the call has no time left; try again, or allow it more");
    }
    return KEYSTEAD_BACKEND_OK;
}

/* -- Key ids --------------------------------------------------------------------------------------------------------- */

static const char PREFIX[] = "example-c:";

static void put_key_id(const keystead_backend_instance *instance, unsigned long version, keystead_backend_output *out) {
    char id[KEY_ID_MAX];
    int len = snprintf(id, sizeof id, "%s%s:v%lu", PREFIX, instance->name, version);
    put(out, id, (size_t)len);
}

/* The version in a recorded key id of this key; 0 if it is not this key's. The id comes from a file: it is compared with
 * what this plugin writes, and is nothing but that. */
static unsigned long version_of(const keystead_backend_instance *instance, const keystead_backend_input *key_id) {
    char start[KEY_ID_MAX];
    size_t len = (size_t)snprintf(start, sizeof start, "%s%s:v", PREFIX, instance->name);
    unsigned long version = 0;
    uint64_t i;
    if (key_id->len <= len || key_id->len > len + 9 || memcmp(key_id->data, start, len) != 0 || key_id->data[len] == '0') {
        return 0;
    }
    for (i = len; i < key_id->len; i++) {
        if (key_id->data[i] < '0' || key_id->data[i] > '9') {
            return 0;
        }
        version = version * 10 + (unsigned long)(key_id->data[i] - '0');
    }
    return version;
}

/* -- The cipher ------------------------------------------------------------------------------------------------------ */

/* AES-256-GCM with the context as associated data. 1, or 0 and nothing in out. */
static int seal(const keyring_key *key, const uint8_t *iv, const keystead_backend_input *context,
                const keystead_backend_input *plaintext, uint8_t *out) {
    static const uint8_t nothing[1] = {0};
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    int len = 0, last = 0;
    int is_done = cipher != NULL && EVP_EncryptInit_ex(cipher, EVP_aes_256_gcm(), NULL, key->bytes, iv) == 1 &&
                  EVP_EncryptUpdate(cipher, NULL, &len, context->data, (int)context->len) == 1 &&
                  EVP_EncryptUpdate(cipher, out, &len, plaintext->len > 0 ? plaintext->data : nothing,
                                    (int)plaintext->len) == 1 &&
                  EVP_EncryptFinal_ex(cipher, out + len, &last) == 1 &&
                  EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, out + plaintext->len) == 1;
    EVP_CIPHER_CTX_free(cipher); /* overwrites the key schedule */
    return is_done;
}

/* The other way. 0 when the tag is not right; out then holds what nobody may use. */
static int open_sealed(const keyring_key *key, const uint8_t *iv, const keystead_backend_input *context,
                       const keystead_backend_input *blob, uint8_t *out) {
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    uint64_t plaintext_len = blob->len - TAG_BYTES;
    uint8_t tag[TAG_BYTES];
    int len = 0, last = 0, is_right;
    memcpy(tag, blob->data + plaintext_len, TAG_BYTES);
    is_right = cipher != NULL && EVP_DecryptInit_ex(cipher, EVP_aes_256_gcm(), NULL, key->bytes, iv) == 1 &&
               EVP_DecryptUpdate(cipher, NULL, &len, context->data, (int)context->len) == 1 &&
               EVP_DecryptUpdate(cipher, out, &len, blob->data, (int)plaintext_len) == 1 &&
               EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, tag) == 1 &&
               EVP_DecryptFinal_ex(cipher, out + len, &last) == 1;
    EVP_CIPHER_CTX_free(cipher);
    return is_right;
}

/* -- The table ------------------------------------------------------------------------------------------------------- */

static int32_t describe(void *backend, keystead_backend_output *json, keystead_backend_error *error) {
    (void)backend;
    if (json == NULL) {
        return fail(error, KEYSTEAD_BACKEND_INVALID_ARGUMENT, "there is no output for the description");
    }
    if (!has_room(json, sizeof DESCRIPTION - 1)) {
        return fail(error, KEYSTEAD_BACKEND_BUFFER_TOO_SMALL, "there is no room for the description");
    }
    put(json, DESCRIPTION, sizeof DESCRIPTION - 1);
    return KEYSTEAD_BACKEND_OK;
}

static int32_t open_instance(void *backend, const keystead_backend_open_request *request,
                             keystead_backend_instance **out, keystead_backend_error *error) {
    json_field setting = {"keyring", PATH_BYTES_MAX, "", 0};
    json_field field = {"key", KEY_NAME_MAX, "", 0};
    char problem[JSON_PROBLEM_MAX];
    keystead_backend_instance *instance;
    (void)backend;
    if (request == NULL || request->struct_size < sizeof *request || request->host == NULL ||
        request->host->struct_size < sizeof *request->host || out == NULL) {
        return fail(error, KEYSTEAD_BACKEND_INVALID_ARGUMENT, "the request to open a key is none that this plugin knows");
    }
    if (!json_read(request->settings_json.data, request->settings_json.len, &setting, 1, problem)) {
        return fail(error, KEYSTEAD_BACKEND_INVALID_CONFIG, "the settings of the backend example-c: %s", problem);
    }
    if (setting.value[0] != '/') {
        return fail(error, KEYSTEAD_BACKEND_INVALID_CONFIG,
                    "the settings of the backend example-c: `keyring` must be an absolute path");
    }
    if (!json_read(request->config_json.data, request->config_json.len, &field, 1, problem)) {
        return fail(error, KEYSTEAD_BACKEND_INVALID_CONFIG, "the config of the key: %s", problem);
    }
    if (strspn(field.value, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(field.value)) {
        return fail(error, KEYSTEAD_BACKEND_INVALID_CONFIG, "the config of the key: `key` must be of a-z, 0-9 and -");
    }
    instance = malloc(sizeof *instance);
    if (instance == NULL) {
        return fail(error, KEYSTEAD_BACKEND_INTERNAL, "opening a key: out of memory");
    }
    instance->host = request->host;
    strcpy(instance->path, setting.value);
    strcpy(instance->name, field.value);
    *out = instance;
    return KEYSTEAD_BACKEND_OK;
}

static void close_instance(keystead_backend_instance *instance) {
    free(instance); /* no secret in it: keys are read for each call */
}

static int32_t status(keystead_backend_instance *instance, const keystead_backend_call *call,
                      keystead_backend_status_out *out, keystead_backend_error *error) {
    static const char detail[] = "a keyring in a text file";
    char problem[KEYRING_PROBLEM_MAX];
    keyring_key key;
    int32_t code = check_call(call, error);
    if (code != KEYSTEAD_BACKEND_OK) {
        return code;
    }
    if (instance == NULL || out == NULL || out->struct_size < sizeof *out) {
        return fail(error, KEYSTEAD_BACKEND_INVALID_ARGUMENT, "there is no room for the status");
    }
    if (!has_room(&out->key_id, KEY_ID_MAX)) {
        return fail(error, KEYSTEAD_BACKEND_BUFFER_TOO_SMALL, "there is no room for the key id");
    }
    code = keyring_find(instance->path, instance->name, 0, instance->host, &key, problem);
    if (code != KEYSTEAD_BACKEND_OK) {
        return fail(error, code, "looking at the key %s: %s", instance->name, problem);
    }
    put_key_id(instance, key.version, &out->key_id);
    put(&out->detail, detail, out->detail.capacity < sizeof detail - 1 ? (size_t)out->detail.capacity : sizeof detail - 1);
    instance->host->zero(&key, sizeof key);
    return KEYSTEAD_BACKEND_OK;
}

static int32_t wrap(keystead_backend_instance *instance, const keystead_backend_call *call,
                    const keystead_backend_context *context, const keystead_backend_input *plaintext,
                    keystead_backend_wrapped_out *out, keystead_backend_error *error) {
    char problem[KEYRING_PROBLEM_MAX];
    uint8_t iv[IV_BYTES];
    keyring_key key;
    int is_sealed;
    int32_t code = check_call(call, error);
    if (code != KEYSTEAD_BACKEND_OK) {
        return code;
    }
    if (instance == NULL || context == NULL || context->struct_size < sizeof *context || plaintext == NULL || out == NULL ||
        out->struct_size < sizeof *out) {
        return fail(error, KEYSTEAD_BACKEND_INVALID_ARGUMENT, "wrapping: an argument is missing");
    }
    if (plaintext->len > PLAINTEXT_MAX || context->canonical.len > KEYSTEAD_BACKEND_CONTEXT_MAX) {
        return fail(error, KEYSTEAD_BACKEND_INVALID_ARGUMENT, "wrapping with the key %s: more than %d bytes were given",
                    instance->name, PLAINTEXT_MAX);
    }
    if (!has_room(&out->blob, plaintext->len + TAG_BYTES) || !has_room(&out->key_id, KEY_ID_MAX) ||
        !has_room(&out->metadata, IV_BYTES)) {
        return fail(error, KEYSTEAD_BACKEND_BUFFER_TOO_SMALL, "wrapping with the key %s: there is no room for the answer",
                    instance->name);
    }
    code = keyring_find(instance->path, instance->name, 0, instance->host, &key, problem);
    if (code != KEYSTEAD_BACKEND_OK) {
        return fail(error, code, "wrapping with the key %s: %s", instance->name, problem);
    }
    code = instance->host->random(instance->host->context, iv, sizeof iv);
    is_sealed = code == KEYSTEAD_BACKEND_OK && seal(&key, iv, &context->canonical, plaintext, out->blob.data);
    if (is_sealed) {
        out->blob.len = plaintext->len + TAG_BYTES;
        put(&out->metadata, iv, sizeof iv);
        put_key_id(instance, key.version, &out->key_id);
    }
    instance->host->zero(&key, sizeof key);
    return is_sealed ? KEYSTEAD_BACKEND_OK
                     : fail(error, KEYSTEAD_BACKEND_INTERNAL, "wrapping with the key %s: %s", instance->name,
                            code == KEYSTEAD_BACKEND_OK ? "libcrypto failed" : "the host has no random bytes");
}

static int32_t unwrap(keystead_backend_instance *instance, const keystead_backend_call *call,
                      const keystead_backend_context *context, const keystead_backend_wrapped *wrapped,
                      keystead_backend_output *out, keystead_backend_error *error) {
    char problem[KEYRING_PROBLEM_MAX];
    unsigned long version;
    keyring_key key;
    uint64_t len;
    int is_right;
    int32_t code = check_call(call, error);
    if (code != KEYSTEAD_BACKEND_OK) {
        return code;
    }
    if (instance == NULL || context == NULL || context->struct_size < sizeof *context || wrapped == NULL ||
        wrapped->struct_size < sizeof *wrapped || out == NULL) {
        return fail(error, KEYSTEAD_BACKEND_INVALID_ARGUMENT, "unwrapping: an argument is missing");
    }
    version = version_of(instance, &wrapped->key_id);
    if (version == 0) {
        return fail(error, KEYSTEAD_BACKEND_WRONG_KEY, "unwrapping with the key %s: another key wrapped the blob",
                    instance->name);
    }
    if (wrapped->blob.len < TAG_BYTES || wrapped->blob.len > BLOB_MAX || wrapped->metadata.len != IV_BYTES ||
        context->canonical.len > KEYSTEAD_BACKEND_CONTEXT_MAX) {
        return fail(error, KEYSTEAD_BACKEND_INVALID_CIPHERTEXT, "unwrapping with the key %s: the blob has an impossible length",
                    instance->name);
    }
    len = wrapped->blob.len - TAG_BYTES;
    if (!has_room(out, len)) {
        return fail(error, KEYSTEAD_BACKEND_BUFFER_TOO_SMALL, "unwrapping with the key %s: there is no room for the answer",
                    instance->name);
    }
    code = keyring_find(instance->path, instance->name, version, instance->host, &key, problem);
    if (code != KEYSTEAD_BACKEND_OK) {
        return fail(error, code, "unwrapping with the key %s, version %lu: %s", instance->name, version, problem);
    }
    is_right = open_sealed(&key, wrapped->metadata.data, &context->canonical, &wrapped->blob, out->data);
    instance->host->zero(&key, sizeof key);
    if (!is_right) {
        instance->host->zero(out->data, len);
        return fail(error, KEYSTEAD_BACKEND_INVALID_CIPHERTEXT,
                    "unwrapping with the key %s, version %lu: the blob is damaged, or was wrapped under another context",
                    instance->name, version);
    }
    out->len = len;
    return KEYSTEAD_BACKEND_OK;
}

static const keystead_backend_api TABLE = {
    sizeof(keystead_backend_api),
    KEYSTEAD_BACKEND_ABI,
    KEYSTEAD_BACKEND_BINDS_CONTEXT,
    NULL, /* nothing that all instances share */
    describe,
    open_instance,
    close_instance,
    status,
    wrap,
    unwrap,
    NULL, /* no rewrap */
    NULL, /* no interrupt: no call takes long */
};

int32_t keystead_backend_get_interface(uint32_t abi_min, uint32_t abi_max, const keystead_backend_host *host,
                                       const keystead_backend_api **out) {
    if (host == NULL || out == NULL) {
        return KEYSTEAD_BACKEND_INVALID_ARGUMENT;
    }
    if (abi_min > KEYSTEAD_BACKEND_ABI || abi_max < KEYSTEAD_BACKEND_ABI) {
        return KEYSTEAD_BACKEND_UNSUPPORTED_ABI;
    }
    *out = &TABLE;
    return KEYSTEAD_BACKEND_OK;
}
