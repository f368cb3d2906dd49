/*
 * keystead_backend.h: what a key backend in C, or in any language that speaks C, has to offer.
 *
 * A key backend connects Keystead to one kind of key management service (KMS). It is a shared library that exports
 * one function, keystead_backend_get_interface(). This header is the whole specification of version 1 of the
 * interface: everything that a plugin may rely on, and everything that it must do, stands here.
 *
 * WORDS
 *
 *   host        the process that loaded the plugin
 *   settings    what the application says about a backend: endpoints, files, credentials. Trusted.
 *   config      what is stored about one registered key: its ARN, a role. It comes from a file. UNTRUSTED.
 *   instance    one registered key, made by open() from settings and config
 *   context     authenticated data. What is wrapped under one context must not unwrap under another.
 *   key id      the KMS's own name for the key, with its version where it has one
 *   metadata    what else the plugin needs in order to unwrap (an algorithm, an initialization vector); may be empty
 *
 * RULES
 *
 *   Threads     Every function may be called from many threads at once, on one instance or on several. The host never
 *               calls close() while another call on that instance runs, and calls nothing on it afterwards.
 *   Memory      Each side frees what it took; nothing is handed over. Inputs are borrowed for the time of the call: a
 *               plugin that needs one for longer copies it. Outputs go to memory of the host.
 *   Sizes       The host takes memory for every output before it calls, as large as describe() said. So a plugin
 *               checks the room BEFORE it asks the KMS, and no KMS call is repeated for want of room. A plugin never
 *               writes beyond an output's capacity; one that does is stopped for the rest of the process.
 *   Structs     Begin with struct_size, which the side that owns the memory sets to sizeof(the struct) as it knows it.
 *               Later versions add fields at the end only. Before using a struct, check that struct_size is at least
 *               the size that you know. The four exceptions, which never grow: keystead_backend_input,
 *               keystead_backend_output, keystead_backend_context_entry, and the opaque keystead_backend_instance.
 *   Text        UTF-8, not terminated by a zero byte.
 *   Secrets     A plaintext, a token or a credential never goes into a message, a log line or a key id. Memory that
 *               held one is overwritten before it is freed: the host offers zero() for it.
 *   Unwinding   No exception, panic or longjmp leaves a function of the plugin. Catch it, answer
 *               KEYSTEAD_BACKEND_INTERNAL.
 *   Time        A call returns within its timeout_ms, or little later. Whoever overruns is abandoned with its thread.
 *   Unloading   Does not happen. A plugin stays mapped until the process ends.
 *   Fork        Nothing of a plugin is used in the child of a fork().
 *
 * The header compiles as C89 (with stdint.h), C99, C11 and C++11.
 */
#ifndef KEYSTEAD_BACKEND_H
#define KEYSTEAD_BACKEND_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the interface that this header describes. */
#define KEYSTEAD_BACKEND_ABI 1

/* ---------------------------------------------------------------------------------------------------------------------
 * Codes. Every function that can fail returns one, as int32_t. A host reads a code that it does not know as
 * KEYSTEAD_BACKEND_INTERNAL.
 */
#define KEYSTEAD_BACKEND_OK 0

/* The settings or the config are wrong; the message names the field. Nothing was changed. */
#define KEYSTEAD_BACKEND_INVALID_CONFIG 1

/* The owner of the key does not let us use it. The host drops cached keys at once and does not retry in a loop. */
#define KEYSTEAD_BACKEND_UNAUTHENTICATED 2      /* the KMS does not accept the credentials */
#define KEYSTEAD_BACKEND_ACCESS_DENIED 3        /* it knows the caller and refuses the use of the key */
#define KEYSTEAD_BACKEND_KEY_DISABLED 4         /* the key is switched off */
#define KEYSTEAD_BACKEND_KEY_PENDING_DELETION 5 /* the key is going to be deleted */
#define KEYSTEAD_BACKEND_KEY_NOT_FOUND 6        /* there is no such key */

/* What was given does not belong together. The host fails closed and does not retry. */
#define KEYSTEAD_BACKEND_WRONG_KEY 7          /* another key wrapped the blob */
#define KEYSTEAD_BACKEND_INVALID_CIPHERTEXT 8 /* the blob is damaged, or was wrapped under another context */

/* An outage, not a refusal. The only codes after which a host tries again. */
#define KEYSTEAD_BACKEND_THROTTLED 9    /* too many calls */
#define KEYSTEAD_BACKEND_UNAVAILABLE 10 /* the KMS cannot be reached, or is ill */
#define KEYSTEAD_BACKEND_TIMEOUT 11     /* timeout_ms passed */

#define KEYSTEAD_BACKEND_CANCELLED 12   /* the host cancelled the call, or interrupt() was called */
#define KEYSTEAD_BACKEND_UNSUPPORTED 13 /* the plugin cannot do this */
#define KEYSTEAD_BACKEND_INTERNAL 14    /* a fault in the plugin */

/* Misuse of the interface itself. A host that keeps the rules never sees these three from a call. */
#define KEYSTEAD_BACKEND_BUFFER_TOO_SMALL 100 /* an output has no room. Its len says how much is needed; the KMS was
                                                 NOT called */
#define KEYSTEAD_BACKEND_INVALID_ARGUMENT 101 /* a null pointer, a struct_size too small, text that is not UTF-8 */
#define KEYSTEAD_BACKEND_UNSUPPORTED_ABI 102  /* no version within the range that was asked for */

/* ---------------------------------------------------------------------------------------------------------------------
 * Limits, in bytes unless said otherwise. The host keeps them, so a plugin may refuse what is beyond.
 */
#define KEYSTEAD_BACKEND_JSON_MAX 1048576      /* settings, config, a description */
#define KEYSTEAD_BACKEND_CONTEXT_ENTRIES_MAX 32 /* pairs in a context */
#define KEYSTEAD_BACKEND_CONTEXT_MAX 8192      /* a context's canonical bytes */
#define KEYSTEAD_BACKEND_MESSAGE_MAX 1024      /* an error's message, a status detail: longer ones are cut */
#define KEYSTEAD_BACKEND_TOKEN_MAX 16384       /* an identity token */

/* The range of what describe() may say in "limits". A description beyond it is refused when the plugin is loaded. */
#define KEYSTEAD_BACKEND_PLAINTEXT_MAX_LEAST 64
#define KEYSTEAD_BACKEND_PLAINTEXT_MAX_MOST 65536
#define KEYSTEAD_BACKEND_BLOB_MAX_LEAST 64
#define KEYSTEAD_BACKEND_BLOB_MAX_MOST 1048576
#define KEYSTEAD_BACKEND_KEY_ID_MAX_LEAST 1
#define KEYSTEAD_BACKEND_KEY_ID_MAX_MOST 16384
#define KEYSTEAD_BACKEND_METADATA_MAX_LEAST 0
#define KEYSTEAD_BACKEND_METADATA_MAX_MOST 65536

/* ---------------------------------------------------------------------------------------------------------------------
 * Borrowed bytes. data may be null when len is 0.
 */
typedef struct keystead_backend_input {
    const uint8_t *data;
    uint64_t len;
} keystead_backend_input;

/* Room for an answer, in memory of the host. The host sets data and capacity and sets len to 0; the plugin writes at
 * most capacity bytes and sets len to how many it wrote. data is null only when capacity is 0. With
 * KEYSTEAD_BACKEND_BUFFER_TOO_SMALL the plugin sets len to the room that it needs. With any other code but
 * KEYSTEAD_BACKEND_OK the host ignores what was written. */
typedef struct keystead_backend_output {
    uint8_t *data;
    uint64_t capacity;
    uint64_t len;
} keystead_backend_output;

/* One name and value of a context. */
typedef struct keystead_backend_context_entry {
    keystead_backend_input name;  /* text, not empty */
    keystead_backend_input value; /* text */
} keystead_backend_context_entry;

/* What a wrap is bound to. The same thing in two forms, of which a plugin takes the one that suits its KMS: the pairs
 * (an encryption context of AWS KMS), or one string of bytes (additional authenticated data).
 *
 * The pairs are ordered by name, byte by byte; no name occurs twice.
 *
 * The canonical bytes are: the number of pairs; then, for each pair in order, the length of its name in bytes, the
 * name, the length of its value in bytes, the value. Numbers are 32 bits, little-endian, unsigned. Two contexts have
 * the same canonical bytes exactly if they have the same pairs. Nothing in a context is secret. */
typedef struct keystead_backend_context {
    uint32_t struct_size;
    uint32_t count; /* how many pairs */
    const keystead_backend_context_entry *entries;
    keystead_backend_input canonical;
} keystead_backend_context;

/* The header of a call. */
typedef struct keystead_backend_call {
    uint32_t struct_size;
    uint32_t timeout_ms; /* do it, or give up, within this time; 0: at once */
    uint64_t request_id; /* names the call in logs on both sides */
    /* Answers 1 once nobody waits for the answer any more, else 0. Cheap, callable from any thread until the call
     * returns, and not after. May be null. A plugin polls it while it waits, and returns KEYSTEAD_BACKEND_CANCELLED. */
    int32_t (*is_cancelled)(void *cancel_context);
    void *cancel_context;
} keystead_backend_call;

/* Why a call failed. The host sets struct_size and message (with KEYSTEAD_BACKEND_MESSAGE_MAX bytes of room) and zeroes
 * the rest. A plugin that returns anything but KEYSTEAD_BACKEND_OK fills it in; a message that does not fit is cut, on
 * a character's boundary. The pointer may be null: then nobody wants to know. */
typedef struct keystead_backend_error {
    uint32_t struct_size;
    int32_t code;            /* the same as the function returns; if they differ, the host reads INTERNAL */
    uint64_t retry_after_ms; /* how long the KMS asks us to wait before the next try; 0: it did not say */
    keystead_backend_output message; /* for people: what was being done, to what, what is wrong, what next. No secret */
} keystead_backend_error;

/* ---------------------------------------------------------------------------------------------------------------------
 * What the host offers. Every entry is set. All may be called from any thread.
 */
#define KEYSTEAD_BACKEND_LOG_ERROR 1 /* something failed that somebody must look at */
#define KEYSTEAD_BACKEND_LOG_WARN 2  /* something is odd */
#define KEYSTEAD_BACKEND_LOG_INFO 3  /* something happened */
#define KEYSTEAD_BACKEND_LOG_DEBUG 4 /* for the one who looks for a fault */

typedef struct keystead_backend_host {
    uint32_t struct_size;
    uint32_t abi; /* the highest version of the interface that the host speaks */
    void *context; /* given back to the host's functions */

    /* Writes one line to the application's log. No secrets, ever. */
    void (*log)(void *context, int32_t level, const keystead_backend_input *message);

    /* Overwrites memory with zeroes in a way that a compiler does not leave out. Takes no context. */
    void (*zero)(void *data, uint64_t len);

    /* Fills out with random bytes fit for keys. KEYSTEAD_BACKEND_OK, or a code and unusable bytes. */
    int32_t (*random)(void *context, uint8_t *out, uint64_t len);

    /* Asks the application, as an OpenID Connect issuer, for a token with this audience for the organization that the
     * instance belongs to. The token is a secret: zero() it. KEYSTEAD_BACKEND_TOKEN_MAX bytes are room enough for any.
     * KEYSTEAD_BACKEND_UNSUPPORTED when the application mints no tokens, which it never does through the table that
     * keystead_backend_get_interface() gets. May take as long as the application takes: do not call it under a lock.
     * Here the plugin is the caller, and sets struct_size and room in error. */
    int32_t (*identity_token)(void *context, const keystead_backend_input *audience, keystead_backend_output *token,
                              keystead_backend_error *error);
} keystead_backend_host;

/* ---------------------------------------------------------------------------------------------------------------------
 * What is asked of the plugin, and what it answers.
 */

/* One registered key. What it is, the plugin alone knows. */
typedef struct keystead_backend_instance keystead_backend_instance;

typedef struct keystead_backend_open_request {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    /* Services for this instance. Valid until close() has returned, or until open() has returned a failure; after that
     * no thread of the plugin may use it. */
    const keystead_backend_host *host;
    keystead_backend_input settings_json; /* a JSON object; {} when there are no settings. Trusted */
    keystead_backend_input config_json;   /* a JSON object. UNTRUSTED: it must not choose an endpoint or a file */
} keystead_backend_open_request;

typedef struct keystead_backend_status_out {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    keystead_backend_output key_id; /* as in wrapped_out, but empty where a least-privilege grant does not tell */
    keystead_backend_output detail; /* text: one line for people; cut to its room */
} keystead_backend_status_out;

/* What wrap() once answered, given back. */
typedef struct keystead_backend_wrapped {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    keystead_backend_input blob;
    keystead_backend_input key_id;
    keystead_backend_input metadata;
} keystead_backend_wrapped;

/* Where wrap() puts its answer. */
typedef struct keystead_backend_wrapped_out {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    keystead_backend_output blob;     /* not empty */
    keystead_backend_output key_id;   /* text, not empty, without control characters */
    keystead_backend_output metadata; /* may be empty */
} keystead_backend_wrapped_out;

/* Capabilities. The host ignores bits that it does not know. */
#define KEYSTEAD_BACKEND_BINDS_CONTEXT 1 /* the KMS authenticates the context. Without this the host frames the
                                            plaintext with a hash of the context, and checks it after unwrap */
#define KEYSTEAD_BACKEND_CAN_REWRAP 2    /* rewrap() is set and works */
#define KEYSTEAD_BACKEND_CAN_INTERRUPT 4 /* interrupt() is set and works */

/* The plugin's table. It lives, unchanged, as long as the process. */
typedef struct keystead_backend_api {
    uint32_t struct_size;
    uint32_t abi;          /* the version of this table */
    uint64_t capabilities;
    void *backend;         /* the plugin's own; given back to describe() and open(). May be null */

    /* Says what the backend is, as a JSON object. Needs no network, no settings and no key; always says the same.
     * Required members:
     *
     *   "name"             the backend's own name, of a-z, 0-9 and '-', at most 64 bytes: "aws-kms"
     *   "version"          the backend's version, at most 64 bytes: "1.4.0"
     *
     * Optional members:
     *
     *   "config_schema"    JSON Schema of the config of a registered key
     *   "settings_schema"  JSON Schema of the application's settings
     *   "limits"           the largest sizes, in bytes, of what the plugin takes and answers, all four of them:
     *                      { "plaintext_max_bytes": 256, "blob_max_bytes": 8192, "key_id_max_bytes": 2048,
     *                      "metadata_max_bytes": 1024 }, which are also the defaults
     *   "capabilities"     { "binds_context": true, "rewrap": false, "interrupt": false }; if given it must agree
     *                      with the table's bits
     *   "credentials"      the kinds of credentials it understands: "none", "ambient", "token-file", "minted-token",
     *                      "settings"
     *
     * Codes: OK; BUFFER_TOO_SMALL, and json->len is the room needed: the host asks again. */
    int32_t (*describe)(void *backend, keystead_backend_output *json, keystead_backend_error *error);

    /* Makes an instance for one registered key and puts it into *out. Checks settings and config strictly: a field that
     * it does not know is refused by its name. Need not reach the KMS, and takes no long time. On failure *out is left
     * as it was.
     *
     * Codes: OK, INVALID_CONFIG with the field's name in the message, or any other. */
    int32_t (*open)(void *backend, const keystead_backend_open_request *request, keystead_backend_instance **out,
                    keystead_backend_error *error);

    /* Ends an instance: background work is over and the host's table is not used any more when it returns. close(NULL)
     * does nothing. */
    void (*close)(keystead_backend_instance *instance);

    /* Health, and the key's id as the KMS names it now. Cheap, safe to poll.
     *
     * Codes: OK, or why the key cannot be used. */
    int32_t (*status)(keystead_backend_instance *instance, const keystead_backend_call *call,
                      keystead_backend_status_out *out, keystead_backend_error *error);

    /* Wraps plaintext, bound to context. One KMS call. out->key_id is the id that THIS call used, as the KMS's answer
     * says, never a guess: it is stored, and unwrap() gets it back. plaintext is secret.
     *
     * Codes: OK; INVALID_ARGUMENT when plaintext is longer than the described limit; any other. */
    int32_t (*wrap)(keystead_backend_instance *instance, const keystead_backend_call *call,
                    const keystead_backend_context *context, const keystead_backend_input *plaintext,
                    keystead_backend_wrapped_out *out, keystead_backend_error *error);

    /* Unwraps what wrap() answered. One KMS call, which names wrapped->key_id to the KMS where the KMS takes one.
     * out has room for the described plaintext_max_bytes; what is written there is secret. wrapped comes from a file:
     * UNTRUSTED.
     *
     * Codes: OK; INVALID_CIPHERTEXT when the blob is damaged or was wrapped under another context; WRONG_KEY when
     * another key wrapped it; any other. */
    int32_t (*unwrap)(keystead_backend_instance *instance, const keystead_backend_call *call,
                      const keystead_backend_context *context, const keystead_backend_wrapped *wrapped,
                      keystead_backend_output *out, keystead_backend_error *error);

    /* Wraps the same plaintext under the newest version of the key, inside of the KMS. Null unless
     * KEYSTEAD_BACKEND_CAN_REWRAP.
     *
     * Codes: as wrap() and unwrap(). */
    int32_t (*rewrap)(keystead_backend_instance *instance, const keystead_backend_call *call,
                      const keystead_backend_context *context, const keystead_backend_wrapped *wrapped,
                      keystead_backend_wrapped_out *out, keystead_backend_error *error);

    /* Asks the calls in flight on this instance to return soon with KEYSTEAD_BACKEND_CANCELLED, and returns at once.
     * Calls made later are not affected. Null unless KEYSTEAD_BACKEND_CAN_INTERRUPT. */
    void (*interrupt)(keystead_backend_instance *instance);
} keystead_backend_api;

#if defined(_WIN32)
#define KEYSTEAD_BACKEND_EXPORT __declspec(dllexport)
#elif defined(__GNUC__)
#define KEYSTEAD_BACKEND_EXPORT __attribute__((visibility("default")))
#else
#define KEYSTEAD_BACKEND_EXPORT
#endif

/* The one symbol that a plugin exports. Puts into *out the table of the highest version that it speaks between abi_min
 * and abi_max, both included; may be called more than once, and answers the same. host lives as long as the process,
 * and serves what belongs to no instance.
 *
 * Codes: OK; UNSUPPORTED_ABI when it speaks no version of that range (then *out is left as it was); INVALID_ARGUMENT;
 * INTERNAL. */
KEYSTEAD_BACKEND_EXPORT int32_t keystead_backend_get_interface(uint32_t abi_min, uint32_t abi_max,
                                                               const keystead_backend_host *host,
                                                               const keystead_backend_api **out);

#ifdef __cplusplus
}
#endif

#endif /* KEYSTEAD_BACKEND_H */
