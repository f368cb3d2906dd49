/* A KMS in the program itself: one that hides a key by turning its bits around, and is good for tests alone. */
#ifndef TABLE_H
#define TABLE_H

#include <keystead_backend.h>
#include <string.h>

static int table_calls = 0; /* counted by the library's threads */
static int table_code = KEYSTEAD_BACKEND_OK; /* what it answers; anything else than OK is a failure */

static int32_t table_fail(int32_t code, keystead_backend_error *error)
{
    if (error != NULL) {
        error->code = code;
        error->retry_after_ms = 1;
    }
    return code;
}

static int32_t table_put(keystead_backend_output *out, const void *data, uint64_t len)
{
    out->len = len;
    if (len > out->capacity) {
        return KEYSTEAD_BACKEND_BUFFER_TOO_SMALL;
    }
    memcpy(out->data, data, (size_t)len);
    return KEYSTEAD_BACKEND_OK;
}

static int32_t table_describe(void *backend, keystead_backend_output *json, keystead_backend_error *error)
{
    static const char description[] = "{\"name\":\"own-kms\",\"version\":\"1\"}";
    (void)backend;
    (void)error;
    return table_put(json, description, sizeof description - 1);
}

static int32_t table_open(void *backend, const keystead_backend_open_request *request, keystead_backend_instance **out,
                          keystead_backend_error *error)
{
    (void)request;
    (void)error;
    *out = (keystead_backend_instance *)backend;
    return KEYSTEAD_BACKEND_OK;
}

static void table_close(keystead_backend_instance *instance)
{
    (void)instance;
}

static int32_t table_status(keystead_backend_instance *instance, const keystead_backend_call *call,
                            keystead_backend_status_out *out, keystead_backend_error *error)
{
    (void)instance;
    (void)call;
    (void)out;
    return table_code == KEYSTEAD_BACKEND_OK ? table_code : table_fail(table_code, error);
}

static int32_t table_turn(const keystead_backend_input *from, keystead_backend_output *to)
{
    uint64_t i;
    int32_t code = table_put(to, from->data, from->len);
    for (i = 0; code == KEYSTEAD_BACKEND_OK && i < from->len; i++) {
        to->data[i] = (uint8_t)(to->data[i] ^ 0x5a);
    }
    return code;
}

static int32_t table_wrap(keystead_backend_instance *instance, const keystead_backend_call *call,
                          const keystead_backend_context *context, const keystead_backend_input *plaintext,
                          keystead_backend_wrapped_out *out, keystead_backend_error *error)
{
    (void)instance;
    (void)call;
    (void)context;
    (void)__atomic_add_fetch(&table_calls, 1, __ATOMIC_RELAXED);
    if (table_code != KEYSTEAD_BACKEND_OK) {
        return table_fail(table_code, error);
    }
    table_put(&out->key_id, "own:1", 5);
    return table_turn(plaintext, &out->blob);
}

static int32_t table_unwrap(keystead_backend_instance *instance, const keystead_backend_call *call,
                            const keystead_backend_context *context, const keystead_backend_wrapped *wrapped,
                            keystead_backend_output *out, keystead_backend_error *error)
{
    (void)instance;
    (void)call;
    (void)context;
    (void)__atomic_add_fetch(&table_calls, 1, __ATOMIC_RELAXED);
    if (table_code != KEYSTEAD_BACKEND_OK) {
        return table_fail(table_code, error);
    }
    return table_turn(&wrapped->blob, out);
}

static int table_self = 0;

static const keystead_backend_api table = {
    sizeof(keystead_backend_api), KEYSTEAD_BACKEND_ABI, 0, &table_self, table_describe, table_open, table_close,
    table_status, table_wrap, table_unwrap, NULL, NULL
};

#endif
