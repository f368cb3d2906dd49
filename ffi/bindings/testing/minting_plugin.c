/*
 * A plugin for the tests of the bindings: a "KMS" that logs in with a token, which the application mints for it.
 *
 * FOR TESTS ONLY: the token is the key, and what it wraps is only XORed. It protects nothing.
 *
 *     cc -shared -fPIC $(pkg-config --cflags keystead) minting_plugin.c -o minting_plugin.so
 */
#include <keystead_backend.h>

#include <stdlib.h>
#include <string.h>

struct keystead_backend_instance {
    const keystead_backend_host *host;
};

static int32_t failed(keystead_backend_error *error, int32_t code, const char *message)
{
    if (error != NULL) {
        error->code = code;
        error->message.len = strlen(message) < error->message.capacity ? strlen(message) : error->message.capacity;
        memcpy(error->message.data, message, error->message.len);
    }
    return code;
}

static int32_t answer(keystead_backend_output *out, const void *data, uint64_t len)
{
    out->len = len;
    if (len > out->capacity)
        return KEYSTEAD_BACKEND_BUFFER_TOO_SMALL;
    memcpy(out->data, data, len);
    return KEYSTEAD_BACKEND_OK;
}

static int32_t describe(void *backend, keystead_backend_output *json, keystead_backend_error *error)
{
    static const char text[] = "{\"name\":\"minting\",\"version\":\"1.0.0\",\"credentials\":[\"minted-token\"]}";

    (void)backend;
    (void)error;
    return answer(json, text, sizeof text - 1);
}

static int32_t open_key(void *backend, const keystead_backend_open_request *request, keystead_backend_instance **out,
                        keystead_backend_error *error)
{
    keystead_backend_instance *instance = malloc(sizeof *instance);

    (void)backend;
    if (instance == NULL)
        return failed(error, KEYSTEAD_BACKEND_INTERNAL, "no memory");
    instance->host = request->host;
    *out = instance;
    return KEYSTEAD_BACKEND_OK;
}

static void close_key(keystead_backend_instance *instance)
{
    free(instance);
}

static int32_t status(keystead_backend_instance *instance, const keystead_backend_call *call,
                      keystead_backend_status_out *out, keystead_backend_error *error)
{
    (void)instance;
    (void)call;
    (void)error;
    out->detail.len = 0;
    return answer(&out->key_id, "minted", 6);
}

/* XORs with the token, which is asked for at each call. */
static int32_t masked(keystead_backend_instance *instance, const keystead_backend_input *in, keystead_backend_output *out,
                      keystead_backend_error *error)
{
    static const char audience_text[] = "keystead:tests";
    keystead_backend_input audience;
    keystead_backend_output token;
    uint8_t room[KEYSTEAD_BACKEND_TOKEN_MAX];
    uint64_t i;
    int32_t code;

    audience.data = (const uint8_t *)audience_text;
    audience.len = sizeof audience_text - 1;
    token.data = room;
    token.capacity = sizeof room;
    token.len = 0;
    code = instance->host->identity_token(instance->host->context, &audience, &token, NULL);
    if (code != KEYSTEAD_BACKEND_OK)
        return failed(error, code, "the application gave no token");
    if (token.len == 0)
        return failed(error, KEYSTEAD_BACKEND_UNAUTHENTICATED, "the token is empty");
    out->len = in->len;
    if (in->len > out->capacity)
        return failed(error, KEYSTEAD_BACKEND_BUFFER_TOO_SMALL, "no room");
    for (i = 0; i < in->len; i++)
        out->data[i] = (uint8_t)(in->data[i] ^ room[i % token.len]);
    instance->host->zero(room, sizeof room);
    return KEYSTEAD_BACKEND_OK;
}

static int32_t wrap(keystead_backend_instance *instance, const keystead_backend_call *call,
                    const keystead_backend_context *context, const keystead_backend_input *plaintext,
                    keystead_backend_wrapped_out *out, keystead_backend_error *error)
{
    int32_t code = masked(instance, plaintext, &out->blob, error);

    (void)call;
    (void)context;
    out->metadata.len = 0;
    return code == KEYSTEAD_BACKEND_OK ? answer(&out->key_id, "minted", 6) : code;
}

static int32_t unwrap(keystead_backend_instance *instance, const keystead_backend_call *call,
                      const keystead_backend_context *context, const keystead_backend_wrapped *wrapped,
                      keystead_backend_output *out, keystead_backend_error *error)
{
    (void)call;
    (void)context;
    return masked(instance, &wrapped->blob, out, error);
}

int32_t keystead_backend_get_interface(uint32_t abi_min, uint32_t abi_max, const keystead_backend_host *host,
                                       const keystead_backend_api **out)
{
    static keystead_backend_api api;

    (void)host;
    if (abi_min > KEYSTEAD_BACKEND_ABI || abi_max < KEYSTEAD_BACKEND_ABI)
        return KEYSTEAD_BACKEND_UNSUPPORTED_ABI;
    api.struct_size = sizeof api;
    api.abi = KEYSTEAD_BACKEND_ABI;
    api.describe = describe;
    api.open = open_key;
    api.close = close_key;
    api.status = status;
    api.wrap = wrap;
    api.unwrap = unwrap;
    *out = &api;
    return KEYSTEAD_BACKEND_OK;
}
