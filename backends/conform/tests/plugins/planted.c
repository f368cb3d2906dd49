/*
 * A plugin with one planted fault, for the tests of keystead-conform. Without one it is toy_cipher.c of the loader's tests.
 *
 * The environment variable KEYSTEAD_PLANTED names the fault: unlike a field of the settings it is there before `open`, too.
 */
#define _GNU_SOURCE
#define keystead_backend_get_interface toy_get_interface
#include "../../../loader/tests/plugins/toy_cipher.c"
#undef keystead_backend_get_interface

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static int planted(const char *fault) {
    const char *name = getenv("KEYSTEAD_PLANTED");
    return name != NULL && strcmp(name, fault) == 0;
}

/* The plaintext of the latest wrap, for those that tell. */
static uint8_t latest[PLAINTEXT_MAX + 1];
static uint64_t latest_len;
static int interrupted;

static void say(const keystead_backend_instance *instance, const char *text) {
    keystead_backend_input message;
    message.data = (const uint8_t *)text;
    message.len = strlen(text);
    instance->host->log(instance->host->context, KEYSTEAD_BACKEND_LOG_INFO, &message);
}

static void hex_of(char *text, const uint8_t *bytes, uint64_t len) {
    uint64_t i;
    for (i = 0; i < len; i++) {
        sprintf(text + 2 * i, "%02x", bytes[i]);
    }
}

/* In the description "false" becomes "true " behind this name. */
static void promise(keystead_backend_output *json, const char *capability) {
    uint8_t *at = memmem(json->data, json->len, capability, strlen(capability));
    if (at != NULL) {
        memcpy(at + strlen(capability), "true ", 5);
    }
}

static int32_t planted_describe(void *backend, keystead_backend_output *json, keystead_backend_error *error) {
    static int asked;
    int32_t code;
    if (planted("describes itself anew each time") && json->capacity >= sizeof DESCRIPTION + 2) {
        put(json, DESCRIPTION, sizeof DESCRIPTION - 1);
        json->data[json->len++] = asked++ % 2 == 0 ? ' ' : '\n';
        return KEYSTEAD_BACKEND_OK;
    }
    if (planted("describes itself beyond its room") && json->capacity > 0) {
        put(json, DESCRIPTION, sizeof DESCRIPTION - 1);
        return KEYSTEAD_BACKEND_OK;
    }
    code = describe(backend, json, error);
    if (code == KEYSTEAD_BACKEND_OK && planted("re-wraps another key")) {
        promise(json, "\"rewrap\":");
    }
    if (code == KEYSTEAD_BACKEND_OK && planted("stays interrupted")) {
        promise(json, "\"interrupt\":");
    }
    return code;
}

static keystead_backend_input text(const char *text) {
    keystead_backend_input input;
    input.data = (const uint8_t *)text;
    input.len = strlen(text);
    return input;
}

static int32_t planted_open(void *backend, const keystead_backend_open_request *request,
                            keystead_backend_instance **out, keystead_backend_error *error) {
    keystead_backend_open_request changed = *request;
    int is_object = request->config_json.len > 0 && request->config_json.data[0] == '{';
    int is_known = request->config_json.len < 64 && memmem(request->config_json.data, request->config_json.len,
                                                            "conform_field", 13) == NULL;
    int32_t code;
    if (planted("takes whatever is no object") && !is_object) {
        changed.config_json = text("{\"passphrase\":\"a default\"}");
    }
    if (planted("takes fields that it does not know") && is_object && !is_known) {
        changed.config_json = text("{\"passphrase\":\"a default\"}");
    }
    if (planted("names no field") && is_object && !is_known) {
        return fail(error, KEYSTEAD_BACKEND_INVALID_CONFIG, "something is wrong");
    }
    if (planted("crashes on a deep config") && request->config_json.len > 400000) {
        abort();
    }
    code = open_instance(backend, &changed, out, error);
    if (code == KEYSTEAD_BACKEND_OK && planted("forgets its key with its process")) {
        (*out)->key ^= (uint64_t)getpid();
    }
    return code;
}

static const keystead_backend_host *late_host;

static void *log_late(void *instance) {
    keystead_backend_instance copy;
    int times;
    (void)instance;
    copy.host = late_host;
    for (times = 0; times < 50; times++) {
        usleep(50000);
        say(&copy, "still here");
    }
    return NULL;
}

static void planted_close(keystead_backend_instance *instance) {
    pthread_t thread;
    if (planted("calls its host after close") && instance != NULL) {
        late_host = instance->host;
        pthread_create(&thread, NULL, log_late, NULL);
        pthread_detach(thread);
    }
    if (planted("dies when nothing is closed") && instance == NULL) {
        abort();
    }
    close_instance(instance);
    if (planted("closes its neighbours") && instance != NULL) {
        interrupted = 2;
    }
}

static int32_t planted_status(keystead_backend_instance *instance, const keystead_backend_call *call,
                              keystead_backend_status_out *out, keystead_backend_error *error) {
    if (planted("says another key id in its status") && out->key_id.capacity >= KEY_ID_MAX) {
        put(&out->key_id, "toy/newest", 10);
        return KEYSTEAD_BACKEND_OK;
    }
    return status(instance, call, out, error);
}

static int32_t planted_wrap(keystead_backend_instance *instance, const keystead_backend_call *call,
                            const keystead_backend_context *context, const keystead_backend_input *plaintext,
                            keystead_backend_wrapped_out *out, keystead_backend_error *error) {
    static uint8_t shared[PLAINTEXT_MAX];
    static unsigned counter;
    keystead_backend_input changed = *plaintext;
    keystead_backend_context none = *context;
    char line[2 * PLAINTEXT_MAX + 1];
    int32_t code;
    none.canonical.len = 0;
    if (plaintext->len <= PLAINTEXT_MAX) {
        if (planted("keeps the key") && plaintext->len > 0) {
            uint8_t *copy = malloc(plaintext->len);
            memcpy(copy, plaintext->data, plaintext->len);
            *(uint8_t *volatile *)&copy = copy; /* and never erases it */
        }
        if (planted("keeps the key as a text") && plaintext->len > 0) {
            char *copy = malloc(2 * plaintext->len + 1);
            hex_of(copy, plaintext->data, plaintext->len);
            *(char *volatile *)&copy = copy; /* and never erases it */
        }
        if (planted("tells the key in an error")) {
            memcpy(latest, plaintext->data, plaintext->len);
            latest_len = plaintext->len;
        }
        if (planted("logs the key") && plaintext->len <= 64) {
            hex_of(line, plaintext->data, plaintext->len);
            say(instance, line);
        }
        if (planted("prints the key")) {
            hex_of(line, plaintext->data, plaintext->len);
            printf("wrapping %s\n", line);
        }
        if (planted("shares a buffer between threads") && plaintext->len > 0) {
            memcpy(shared, plaintext->data, plaintext->len);
            usleep(200);
            changed.data = shared;
        }
        if (planted("loses a byte") && plaintext->len > 200) {
            changed.len--;
        }
    }
    if (planted("hears no cancelling and knows no deadline")) {
        usleep(5500000);
    }
    if (planted("never returns")) {
        for (;;) {
            pause();
        }
    }
    if (interrupted == 1) {
        return fail(error, KEYSTEAD_BACKEND_CANCELLED, "interrupted");
    }
    if (interrupted == 2) {
        return fail(error, KEYSTEAD_BACKEND_INTERNAL, "somebody closed this");
    }
    if (planted("writes beyond the room for a blob") && out->blob.capacity < BLOB_MAX && out->blob.data != NULL) {
        out->blob.capacity = BLOB_MAX;
    }
    if (planted("needs more room than it says") && out->blob.capacity < BLOB_MAX) {
        return fail(error, KEYSTEAD_BACKEND_BUFFER_TOO_SMALL, "no room");
    }
    if (planted("takes short structs") && call->struct_size < sizeof *call) {
        keystead_backend_call whole = *call;
        whole.struct_size = sizeof whole;
        return wrap(instance, &whole, context, plaintext, out, error);
    }
    code = wrap(instance, call, planted("ignores the context") ? &none : context, &changed, out, error);
    if (code != KEYSTEAD_BACKEND_OK) {
        return code;
    }
    if (planted("wraps in clear") && plaintext->len > 0) {
        memcpy(out->blob.data, plaintext->data, plaintext->len); /* the tag stays */
    }
    if (planted("says another key id each time")) {
        out->key_id.data[out->key_id.len - 1] = (uint8_t)('a' + counter++ % 26);
    }
    return code;
}

static int32_t planted_unwrap(keystead_backend_instance *instance, const keystead_backend_call *call,
                              const keystead_backend_context *context, const keystead_backend_wrapped *wrapped,
                              keystead_backend_output *out, keystead_backend_error *error) {
    keystead_backend_context none = *context;
    keystead_backend_wrapped known = *wrapped;
    uint8_t id[KEY_ID_MAX];
    keystead_backend_output own = {id, sizeof id, 0};
    char line[2 * PLAINTEXT_MAX + 1];
    uint8_t sealed[BLOB_MAX];
    int32_t code;
    none.canonical.len = 0;
    if (planted("wraps in clear") && wrapped->blob.len > TAG_LEN && wrapped->blob.len <= BLOB_MAX &&
        wrapped->metadata.len == NONCE_LEN) {
        memcpy(sealed, wrapped->blob.data, wrapped->blob.len);
        apply_keystream(start(instance, context, wrapped->metadata.data), wrapped->blob.data, sealed,
                        wrapped->blob.len - TAG_LEN);
        known.blob.data = sealed;
    }
    if (planted("needs an error")) {
        error->retry_after_ms = 0;
    }
    if (planted("looks at no key id") || planted("says another key id each time")) {
        make_key_id(instance, &own);
        known.key_id.data = id;
        known.key_id.len = own.len;
    }
    code = unwrap(instance, call, planted("ignores the context") ? &none : context, &known, out, error);
    if (code == KEYSTEAD_BACKEND_INVALID_CIPHERTEXT && planted("opens what is damaged")) {
        uint64_t len = wrapped->blob.len < TAG_LEN ? 0 : wrapped->blob.len - TAG_LEN;
        memset(out->data, 7, len);
        out->len = len;
        return KEYSTEAD_BACKEND_OK;
    }
    if (code == KEYSTEAD_BACKEND_INVALID_CIPHERTEXT && planted("calls damage an outage")) {
        return fail(error, KEYSTEAD_BACKEND_UNAVAILABLE, "come back later");
    }
    if (code == KEYSTEAD_BACKEND_INVALID_CIPHERTEXT && planted("contradicts itself") && error != NULL) {
        error->code = KEYSTEAD_BACKEND_KEY_DISABLED;
    }
    if (code == KEYSTEAD_BACKEND_INVALID_CIPHERTEXT && planted("writes messages beyond their room") && error != NULL &&
        error->message.data != NULL) {
        memset(error->message.data, 'x', 300);
        error->message.len = error->message.capacity < 300 ? error->message.capacity : 300;
    }
    if (code != KEYSTEAD_BACKEND_OK && planted("tells the key in an error")) {
        hex_of(line, latest, latest_len < 64 ? latest_len : 64);
        return fail(error, code, line);
    }
    return code;
}

static int32_t planted_rewrap(keystead_backend_instance *instance, const keystead_backend_call *call,
                              const keystead_backend_context *context, const keystead_backend_wrapped *wrapped,
                              keystead_backend_wrapped_out *out, keystead_backend_error *error) {
    uint8_t plaintext[PLAINTEXT_MAX];
    keystead_backend_output room = {plaintext, sizeof plaintext, 0};
    keystead_backend_input again = {plaintext, 0};
    int32_t code = planted_unwrap(instance, call, context, wrapped, &room, error);
    if (code != KEYSTEAD_BACKEND_OK) {
        return code;
    }
    again.len = room.len;
    plaintext[0] ^= 1; /* what was asked for with "re-wraps another key" */
    return wrap(instance, call, context, &again, out, error);
}

static void interrupt(keystead_backend_instance *instance) {
    (void)instance;
    interrupted = 1; /* for ever */
}

static keystead_backend_api faulty;

KEYSTEAD_BACKEND_EXPORT int32_t keystead_backend_get_interface(uint32_t abi_min, uint32_t abi_max,
                                                               const keystead_backend_host *host,
                                                               const keystead_backend_api **out) {
    int32_t code;
    if (planted("takes any version")) {
        abi_min = abi_max = KEYSTEAD_BACKEND_ABI;
    }
    code = toy_get_interface(abi_min, abi_max, host, out);
    if (code != KEYSTEAD_BACKEND_OK) {
        return code;
    }
    faulty = table;
    faulty.describe = planted_describe;
    faulty.open = planted_open;
    faulty.close = planted_close;
    faulty.status = planted_status;
    faulty.wrap = planted_wrap;
    faulty.unwrap = planted_unwrap;
    if (planted("re-wraps another key")) {
        faulty.capabilities |= KEYSTEAD_BACKEND_CAN_REWRAP;
        faulty.rewrap = planted_rewrap;
    }
    if (planted("stays interrupted")) {
        faulty.capabilities |= KEYSTEAD_BACKEND_CAN_INTERRUPT;
        faulty.interrupt = interrupt;
    }
    *out = &faulty;
    return KEYSTEAD_BACKEND_OK;
}
