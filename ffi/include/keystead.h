/*
 * keystead.h: libkeystead, an embedded database for secrets whose owners bring their own keys.
 *
 * This header is the specification: the comment at each function is its manual. The guide is docs/embedding.md.
 *
 * RULES
 *
 *   Codes       Every function that can fail returns an int32_t: KEYSTEAD_OK, or why not. Codes are stable. More is told by
 *               an error object, for whoever wants one: see keystead_error. Nothing is global but the log, if one is opened.
 *   Handles     Are opaque. Each is freed by its own function, of which freeing NULL does nothing. A handle keeps open what
 *               it needs, so they are freed in any order. A handle that was freed is not used again.
 *   Threads     Every handle may be used by any thread, and by many at once. Freeing comes last, and once.
 *   Memory      Inputs are borrowed for the time of the call. What an accessor points to belongs to the object that was
 *               asked, and is valid until that is freed. Nothing is freed by free().
 *   Text        UTF-8, as a pointer and a length in bytes; the length KEYSTEAD_ZERO_TERMINATED means up to the zero byte.
 *               A text that may be left out is NULL. What the library answers has a zero byte behind it.
 *   NULL        A NULL where the comment does not allow it is answered by KEYSTEAD_INVALID_ARGUMENT. Out parameters are set
 *               to NULL or 0 first, so they say nothing after a failure.
 *   Structs     Begin with struct_size, which the caller sets to sizeof(the struct); what else is 0 has its default. They
 *               grow at the end only. A new caller that asks an old library for what it does not know is told so
 *               (KEYSTEAD_UNSUPPORTED_OPTION); what an old library does not know to answer is 0.
 *   Secrets     Never stand in an error. What the library held is erased when it is freed; the caller erases what it copied.
 *   Panics      None leaves the library. After one (KEYSTEAD_PANICKED), the handles on that store can be freed alone.
 *   Callbacks   Throw nothing, and do not longjmp.
 *   Fork        Handles are not used in the child of a fork(): calls return KEYSTEAD_FORKED, freeing does nothing.
 *
 * Compiles as C89 (with stdint.h), C99, C11, C++11 and C++17.
 */
#ifndef KEYSTEAD_H
#define KEYSTEAD_H


#include <stddef.h>
#include <stdint.h>
#include "keystead_backend.h"

/* A text's length for "up to its zero byte". Any other length is the number of its bytes. */
#define KEYSTEAD_ZERO_TERMINATED ((size_t)-1)

/* No end to a wait. */
#define KEYSTEAD_FOREVER (~(uint64_t)0)

#ifdef __cplusplus
extern "C" {
#endif

/*
 New data keys are wrapped under it.
 */
#define KEYSTEAD_EPOCH_ACTIVE 1

/*
 Data keys are, or are going to be, wrapped under it.
 */
#define KEYSTEAD_EPOCH_LIVE 2

/*
 No data key refers to it; its wraps are erased.
 */
#define KEYSTEAD_EPOCH_RETIRED 3

/*
 It was opened when the organization was created.
 */
#define KEYSTEAD_CAUSE_ORGANIZATION_CREATED 1

/*
 It was opened when the first customer-managed key was added.
 */
#define KEYSTEAD_CAUSE_FIRST_OWN_KEY 2

/*
 It was opened when a key was made the default.
 */
#define KEYSTEAD_CAUSE_SET_DEFAULT 3

/*
 It was opened when a key was rotated.
 */
#define KEYSTEAD_CAUSE_ROTATION 4

/*
 It was opened to take what a disabled key held.
 */
#define KEYSTEAD_CAUSE_KEY_DISABLED 5

/*
 It was opened when all customer-managed keys were disabled.
 */
#define KEYSTEAD_CAUSE_ALL_KEYS_DISABLED 6

/*
 Why is not known: its record was lost to damage, and a salvage put another one in its place.
 */
#define KEYSTEAD_CAUSE_RECORD_LOST 7

/*
 It was done.
 */
#define KEYSTEAD_OK 0

/*
 An argument is against the rules: a null pointer, text that is not UTF-8, a struct_size that is too small.
 */
#define KEYSTEAD_INVALID_ARGUMENT 1

/*
 A path of a secret, or a prefix of paths, is against the rules.
 */
#define KEYSTEAD_INVALID_PATH 2

/*
 A name of an organization or a key is against the rules.
 */
#define KEYSTEAD_INVALID_NAME 3

/*
 A value, or a batch of values, is too large.
 */
#define KEYSTEAD_TOO_LARGE 4

/*
 The caller's buffer has no room for the answer.
 */
#define KEYSTEAD_BUFFER_TOO_SMALL 5

/*
 Options ask for something that this library is too old for.
 */
#define KEYSTEAD_UNSUPPORTED_OPTION 6

/*
 The time that the caller gave is over; the work goes on.
 */
#define KEYSTEAD_TIMED_OUT 7

/*
 The caller's own callback asked to stop waiting.
 */
#define KEYSTEAD_STOPPED 8

/*
 A fault in the library: it panicked. The handles on this store, or this backend, can be freed, and nothing else.
 */
#define KEYSTEAD_PANICKED 9

/*
 The handle belongs to the process that forked this one.
 */
#define KEYSTEAD_FORKED 10

/*
 Something failed that this header has no code for.
 */
#define KEYSTEAD_OTHER 11

/*
 A process has one log, and it is open.
 */
#define KEYSTEAD_LOG_TAKEN 12

/*
 There is no organization of this name.
 */
#define KEYSTEAD_ORGANIZATION_NOT_FOUND 20

/*
 There is an organization of this name already.
 */
#define KEYSTEAD_ORGANIZATION_EXISTS 21

/*
 Organizations keep their names.
 */
#define KEYSTEAD_RENAME_REFUSED 22

/*
 There is no secret at this path.
 */
#define KEYSTEAD_SECRET_NOT_FOUND 30

/*
 The secret has no such version.
 */
#define KEYSTEAD_VERSION_NOT_FOUND 31

/*
 The version is deleted; it can be undeleted.
 */
#define KEYSTEAD_VERSION_DELETED 32

/*
 The version is destroyed, for good.
 */
#define KEYSTEAD_VERSION_DESTROYED 33

/*
 The latest version is another one than the caller expected.
 */
#define KEYSTEAD_VERSION_MISMATCH 34

/*
 The version was lost to damage of the file; the store was salvaged from what was left.
 */
#define KEYSTEAD_VERSION_LOST 35

/*
 There is no key of this name.
 */
#define KEYSTEAD_KEY_NOT_FOUND 40

/*
 There is, or was, a key of this name.
 */
#define KEYSTEAD_KEY_EXISTS 41

/*
 The key's state does not allow what was asked.
 */
#define KEYSTEAD_KEY_REFUSED 42

/*
 The key's backend is not among those that the store was opened with.
 */
#define KEYSTEAD_BACKEND_NOT_REGISTERED 43

/*
 The epoch has given out as many wraps as is safe: rotate the key.
 */
#define KEYSTEAD_EPOCH_EXHAUSTED 44

/*
 No re-wrap job runs.
 */
#define KEYSTEAD_NO_JOB 45

/*
 There is a file at this path already.
 */
#define KEYSTEAD_STORE_EXISTS 60

/*
 There is no file at this path.
 */
#define KEYSTEAD_STORE_NOT_FOUND 61

/*
 The store is open already, here or in another process.
 */
#define KEYSTEAD_ALREADY_OPEN 62

/*
 The file is not a store that this library can open.
 */
#define KEYSTEAD_NOT_A_STORE 63

/*
 Bytes of the store are not what was written.
 */
#define KEYSTEAD_DAMAGED 64

/*
 The disk or the file system failed; the store has closed itself.
 */
#define KEYSTEAD_STORAGE 65

/*
 The store is closed.
 */
#define KEYSTEAD_CLOSED 66

/*
 The operating system gave no random bytes.
 */
#define KEYSTEAD_RANDOMNESS 67

/*
 The store is older than the checkpoint that it was to be opened with: it was rolled back.
 */
#define KEYSTEAD_BEHIND_CHECKPOINT 68

/*
 The store has another audit record than the one that its checkpoint pinned: history was written anew.
 */
#define KEYSTEAD_NOT_OF_CHECKPOINT 69

/*
 The checkpoint is of a store with another id.
 */
#define KEYSTEAD_CHECKPOINT_OF_ANOTHER_STORE 70

/*
 A plugin, or a table, was refused; the message says at which step and why.
 */
#define KEYSTEAD_PLUGIN_REFUSED 80

/*
 What a backend answers, as a code of KEYSTEAD_BACKEND_..., stands 100 higher: KEYSTEAD_KMS + KEYSTEAD_BACKEND_THROTTLED.
 */
#define KEYSTEAD_KMS 100

/*
 The class of KEYSTEAD_OK.
 */
#define KEYSTEAD_CLASS_NONE 0

/*
 The caller asked for what is against the rules: correct the call.
 */
#define KEYSTEAD_CLASS_CALLER 1

/*
 What was asked for is not there.
 */
#define KEYSTEAD_CLASS_NOT_FOUND 2

/*
 What is there does not go with what was asked: it exists already, it is at another version, it is in use.
 */
#define KEYSTEAD_CLASS_CONFLICT 3

/*
 The owner has taken the key away: disabled, deleted, denied.
 */
#define KEYSTEAD_CLASS_REVOKED 4

/*
 Bytes are not what was written: of the store, or of what a KMS wrapped. Nothing was guessed.
 */
#define KEYSTEAD_CLASS_INTEGRITY 5

/*
 An outage: the same call may succeed later without anybody's doing.
 */
#define KEYSTEAD_CLASS_OUTAGE 6

/*
 Settings of a backend, or the config of a key, are wrong; a plugin was refused.
 */
#define KEYSTEAD_CLASS_CONFIG 7

/*
 The disk, the file system, the operating system.
 */
#define KEYSTEAD_CLASS_SYSTEM 8

/*
 A fault in the library or in a backend.
 */
#define KEYSTEAD_CLASS_FAULT 9

/*
 It can be read.
 */
#define KEYSTEAD_VERSION_LIVE 1

/*
 It was deleted; keystead_undelete() brings it back.
 */
#define KEYSTEAD_VERSION_IS_DELETED 2

/*
 Its data key and its value are gone for good.
 */
#define KEYSTEAD_VERSION_IS_DESTROYED 3

/*
 It was lost to damage of the file, from which the rest was salvaged.
 */
#define KEYSTEAD_VERSION_IS_LOST 4

/*
 New epochs may be opened under it.
 */
#define KEYSTEAD_KEY_ENABLED 1

/*
 Its data keys are being re-wrapped to another key.
 */
#define KEYSTEAD_KEY_DISABLING 2

/*
 No data key is under it, and none will be.
 */
#define KEYSTEAD_KEY_DISABLED 3

/*
 The second key: it wraps every live epoch as well, and opens them while the other KMS is out of reach.
 */
#define KEYSTEAD_KEY_SECOND 4

/*
 The same, where revoking one of the two is not enough: the other opens the epochs alone.
 */
#define KEYSTEAD_KEY_SECOND_EITHER 5

/*
 Something failed that somebody must look at.
 */
#define KEYSTEAD_LOG_ERROR 1

/*
 Something is odd, or does not go on by itself for now: a KMS that does not answer, a second key that stands in.
 */
#define KEYSTEAD_LOG_WARN 2

/*
 Something happened.
 */
#define KEYSTEAD_LOG_INFO 3

/*
 For the one who looks for a fault.
 */
#define KEYSTEAD_LOG_DEBUG 4

/*
 Some source epoch is still wrapped by its old KMS alone.
 */
#define KEYSTEAD_REWRAP_HAND_OVER 1

/*
 Data keys are being moved; no KMS takes part in it.
 */
#define KEYSTEAD_REWRAP_MOVING 2

/*
 It goes on.
 */
#define KEYSTEAD_REWRAP_RUNNING 1

/*
 It waits and tries again; `blocked` says for what.
 */
#define KEYSTEAD_REWRAP_BLOCKED 2

/*
 It is done: every source is retired.
 */
#define KEYSTEAD_REWRAP_DONE 3

/*
 What was lost is a value.
 */
#define KEYSTEAD_LOST_VERSION 1

/*
 A value that may have been destroyed before: nothing that is left says. See keep_undecided.
 */
#define KEYSTEAD_LOST_UNDECIDED 2

/*
 A registered key: its config is gone. Register the KMS key again under another name.
 */
#define KEYSTEAD_LOST_KEY 3

/*
 An epoch: its key cannot be had any more, or its record is gone.
 */
#define KEYSTEAD_LOST_EPOCH 4

/*
 Audit records.
 */
#define KEYSTEAD_LOST_AUDIT_RECORDS 5

/*
 An organization with all that it had: its name is gone.
 */
#define KEYSTEAD_LOST_ORGANIZATION 6

/*
 Records of the journal, the newest commits: what they changed is as it was before.
 */
#define KEYSTEAD_LOST_JOURNAL 7

/*
 The latest version may be any, or there may be none.
 */
#define KEYSTEAD_EXPECT_ANY 0

/*
 The secret must be new.
 */
#define KEYSTEAD_EXPECT_NEW 1

/*
 The latest version must be expect_version.
 */
#define KEYSTEAD_EXPECT_VERSION 2

/*
 Open every data key and every value, too: asks the KMS of every live epoch.
 */
#define KEYSTEAD_VERIFY_OPEN_VALUES 1

/*
 The version of the C interface that this header describes. Rises when something is taken away or changes its meaning;
 what is added does not raise it.
 */
#define KEYSTEAD_ABI_VERSION 1

/*
 Audit records, oldest first. Freed with keystead_audit_list_free(). Threads: any, also at once.
 */
typedef struct keystead_audit_list keystead_audit_list;

/*
 A backend, to be registered with stores by keystead_store_options. Freed with keystead_backend_free(), at any time:
 stores that were opened with it keep what they need. Threads: any, also at once.

 A plugin, or a table, is never unloaded: it must be there as long as the process lives.
 */
typedef struct keystead_backend keystead_backend;

/*
 Several puts that become durable together, or not at all. Freed with keystead_batch_free(), which erases the values that
 were not committed. Threads: any; calls on one batch wait for each other.
 */
typedef struct keystead_batch keystead_batch;

/*
 How far a store had come: number and hash of the newest audit record of each organization. Freed with
 keystead_checkpoint_free(). Needs its store no longer. Threads: any, also at once.
 */
typedef struct keystead_checkpoint keystead_checkpoint;

/*
 The epochs of an organization, from the first. Freed with keystead_epoch_list_free(). Threads: any, also at once.
 */
typedef struct keystead_epoch_list keystead_epoch_list;

/*
 Why a call failed. Belongs to the caller, who frees it with keystead_error_free().

 Every function that can fail takes `keystead_error **error` as its last argument. It may be null: then the code is all
 that is told. Else *error is set, to null when the call succeeds, without looking at what was there; so free an error
 before its variable is used again. Threads: any, also at once; freed once.

     keystead_error *error = NULL;
     if (keystead_store_open("app.keystead", KEYSTEAD_ZERO_TERMINATED, &options, &store, &error) != KEYSTEAD_OK) {
         fprintf(stderr, "%s\n", keystead_error_message(error));
         keystead_error_free(error);
     }
 */
typedef struct keystead_error keystead_error;

/*
 The keys of an organization, by name. Freed with keystead_key_list_free(). Threads: any, also at once.
 */
typedef struct keystead_key_list keystead_key_list;

/*
 A keyring file. Every call looks at the file anew, so any number of processes may use and change one keyring at once; a
 change holds for each of them from its next call of a key on. **The keyring is the key: back it up.** Freed with
 keystead_keyring_free(). Threads: any, also at once.
 */
typedef struct keystead_keyring keystead_keyring;

/*
 A keyring, as it stood. Freed with keystead_keyring_status_free(). Threads: any, also at once.
 */
typedef struct keystead_keyring_status keystead_keyring_status;

/*
 The log of this process. Freed with keystead_log_free().
 */
typedef struct keystead_log keystead_log;

/*
 One organization of a store: its secrets, keys, epochs, audit trail.

 Freed with keystead_organization_free(), before or after its store's handle. Threads: any, also at once. Each change is
 durable when its call returns; reads never wait for writers. Not to be used in the child of a fork().
 */
typedef struct keystead_organization keystead_organization;

/*
 Organizations of a store, by name: one page. Freed with keystead_organization_list_free(). Threads: any, also at once.
 */
typedef struct keystead_organization_list keystead_organization_list;

/*
 Reads one value in parts. Freed with keystead_reader_free(). Threads: any; calls on one reader wait for each other.
 */
typedef struct keystead_reader keystead_reader;

/*
 A re-wrap job, to watch and to wait for; it goes on without this. Freed with keystead_rewrap_job_free(). Threads: any,
 also at once.
 */
typedef struct keystead_rewrap_job keystead_rewrap_job;

/*
 How a job stood. Freed with keystead_rewrap_status_free(). Threads: any, also at once.
 */
typedef struct keystead_rewrap_status keystead_rewrap_status;

/*
 What came of a salvage. Freed with keystead_salvage_report_free(). Threads: any, also at once.
 */
typedef struct keystead_salvage_report keystead_salvage_report;

/*
 An organization's second key, as it stood. Freed with keystead_second_key_free(). Threads: any, also at once.
 */
typedef struct keystead_second_key keystead_second_key;

/*
 A value that was read, with what stands beside it. Freed with keystead_secret_free(), which erases it from memory.
 Needs its store no longer. Threads: any, also at once.
 */
typedef struct keystead_secret keystead_secret;

/*
 Secrets by path: one page. Freed with keystead_secret_list_free(). Threads: any, also at once.
 */
typedef struct keystead_secret_list keystead_secret_list;

/*
 An open store. One process at a time has a store open.

 Freed with keystead_store_free(), at any time: organizations, jobs, readers and writers of it go on working, and the
 file is released when the last of them is freed. Threads: any, also at once. Not to be used in the child of a fork():
 there each call returns KEYSTEAD_FORKED, and freeing does nothing.
 */
typedef struct keystead_store keystead_store;

/*
 What a verification found. Freed with keystead_verify_report_free(). Threads: any, also at once.
 */
typedef struct keystead_verify_report keystead_verify_report;

/*
 Versions of a secret, oldest first. Freed with keystead_version_list_free(). Threads: any, also at once.
 */
typedef struct keystead_version_list keystead_version_list;

/*
 Writes one large value. Freed with keystead_writer_free(); before keystead_writer_finish(), that leaves nothing of the
 value. Holds at most about 1 MiB. Threads: any; calls on one writer wait for each other.
 */
typedef struct keystead_writer keystead_writer;

/*
 A text: UTF-8, `len` bytes. What the library answers has a zero byte behind it, and belongs to the object that it was
 asked of; `data` is null where there is no text. In what the caller gives, `len` may be KEYSTEAD_ZERO_TERMINATED.
 This struct does not grow.
 */
typedef struct keystead_text {
    /*
     The bytes.
     */
    const char *data;
    /*
     How many.
     */
    size_t len;
} keystead_text;

/*
 One record of the audit trail.
 */
typedef struct keystead_audit_record {
    /*
     sizeof(keystead_audit_record), set by the caller.
     */
    uint32_t struct_size;
    /*
     0.
     */
    uint32_t reserved;
    /*
     Its number in the organization's chain, from 1.
     */
    uint64_t sequence;
    /*
     When it happened: milliseconds since the Unix epoch.
     */
    uint64_t at_ms;
    /*
     What happened: "VersionPut", "KeyAdded", "EpochOpened", … Later versions may have more.
     */
    struct keystead_text event;
    /*
     Its details, a JSON object: {"path":"prod/db/password","version":1}.
     */
    struct keystead_text details_json;
    /*
     Who did it, if that was said.
     */
    struct keystead_text actor;
    /*
     Why, if that was said.
     */
    struct keystead_text reason;
    /*
     The hash that chains it to the record before, as hexadecimal digits.
     */
    struct keystead_text hash;
} keystead_audit_record;

/*
 The newest audit record's place in its chain: noted elsewhere, it shows later that nothing before was changed.
 */
typedef struct keystead_audit_head {
    /*
     sizeof(keystead_audit_head), set by the caller.
     */
    uint32_t struct_size;
    /*
     0.
     */
    uint32_t reserved;
    /*
     Its number.
     */
    uint64_t sequence;
    /*
     Its hash: 64 hexadecimal digits and zero bytes.
     */
    char hash[72];
} keystead_audit_head;

/*
 Which plugin is loaded, under which name, with which settings. Begins with its size; what is 0 has its default.
 */
typedef struct keystead_plugin_options {
    /*
     sizeof(keystead_plugin_options).
     */
    uint32_t struct_size;
    /*
     1 allows *whatever is at the path*: an update, a half-written file, or what an intruder put there. For development.
     Digests that are given are still required.
     */
    int32_t dangerously_without_digest;
    /*
     The BLAKE3 digests of the bytes that are allowed (`b3sum` prints them), 32 bytes each, one behind the other.
     */
    const uint8_t *digests;
    /*
     How many digests. With none, and without dangerously_without_digest, nothing is loaded.
     */
    size_t digests_len;
    /*
     A file larger than this is refused. 0: 512 MiB.
     */
    uint64_t size_max_bytes;
    /*
     The name by which stored keys refer to this backend. Null: the backend's own name, such as "aws-kms".
     */
    const char *name;
    /*
     Its length.
     */
    size_t name_len;
    /*
     The backend's settings, a JSON object: endpoints, files, credentials. Trusted, never stored. Null: {}.
     */
    const char *settings_json;
    /*
     Its length.
     */
    size_t settings_json_len;
    /*
     1: the plugin is loaded when a key of it is first used, not now; of many that are registered, those that no key needs
     cost nothing. `name` is given then, and no more is checked now than that the path is absolute and a digest is there.
     What else refuses the plugin is the error of that use, KEYSTEAD_KMS + KEYSTEAD_BACKEND_INVALID_CONFIG, and the next use
     tries again. A program that gives up rights, or its view of the file system, loads before.
     */
    int32_t at_first_use;
    /*
     0.
     */
    uint32_t reserved;
} keystead_plugin_options;

/*
 A label beside a value: kept in clear. This struct does not grow.
 */
typedef struct keystead_label {
    /*
     1 to 128 bytes without control characters.
     */
    struct keystead_text name;
    /*
     At most 1024 bytes without zeros.
     */
    struct keystead_text value;
} keystead_label;

/*
 What goes with a value. Begins with its size; what is 0 has its default.
 */
typedef struct keystead_put_options {
    /*
     sizeof(keystead_put_options).
     */
    uint32_t struct_size;
    /*
     KEYSTEAD_EXPECT_...: what the latest version must be for the put to go through.
     */
    int32_t expect;
    /*
     The version that is expected, with KEYSTEAD_EXPECT_VERSION.
     */
    uint32_t expect_version;
    /*
     0.
     */
    uint32_t reserved;
    /*
     What kind of content it is, such as "text/plain"; at most 128 bytes. Kept in clear. Null: not said.
     */
    const char *content_type;
    /*
     Its length.
     */
    size_t content_type_len;
    /*
     Labels beside the value, at most 64. Kept in clear.
     */
    const struct keystead_label *labels;
    /*
     How many.
     */
    size_t labels_len;
} keystead_put_options;

/*
 A registered key that wraps an epoch. This struct does not grow.
 */
typedef struct keystead_wrapped_by {
    /*
     The registered key.
     */
    struct keystead_text key;
    /*
     The KMS's own key id and version, as that wrap used it.
     */
    struct keystead_text kms_key_id;
} keystead_wrapped_by;

/*
 A key epoch.
 */
typedef struct keystead_epoch {
    /*
     sizeof(keystead_epoch), set by the caller.
     */
    uint32_t struct_size;
    /*
     Its number, from 1.
     */
    uint32_t number;
    /*
     KEYSTEAD_EPOCH_...: what it is good for.
     */
    int32_t state;
    /*
     KEYSTEAD_CAUSE_...: why it was opened. Later versions may have more.
     */
    int32_t cause;
    /*
     How many data keys refer to it.
     */
    uint64_t data_keys;
    /*
     When it was opened: milliseconds since the Unix epoch.
     */
    uint64_t opened_at_ms;
    /*
     When it was retired: milliseconds since the Unix epoch; 0 when it is not.
     */
    uint64_t retired_at_ms;
    /*
     The registered key under which it was opened.
     */
    struct keystead_text key;
    /*
     The KMS's own key id and version that wrapped it when it was opened.
     */
    struct keystead_text kms_key_id;
    /*
     Who opened it, if that was said.
     */
    struct keystead_text actor;
    /*
     The reason given, if one was.
     */
    struct keystead_text reason;
    /*
     The hash that chains it to the epochs before, as hexadecimal digits.
     */
    struct keystead_text hash;
    /*
     The registered keys that wrap it now; none when it is retired.
     */
    const struct keystead_wrapped_by *wrapped_by;
    /*
     How many.
     */
    size_t wrapped_by_len;
} keystead_epoch;

/*
 A secret in a list.
 */
typedef struct keystead_secret_info {
    /*
     sizeof(keystead_secret_info), set by the caller.
     */
    uint32_t struct_size;
    /*
     Its latest version.
     */
    uint32_t latest;
    /*
     How many of its versions are deleted, and can be undeleted.
     */
    uint32_t deleted;
    /*
     How many versions are kept. 0: all.
     */
    uint32_t retention;
    /*
     Its path.
     */
    struct keystead_text path;
    /*
     When its first version was written: milliseconds since the Unix epoch.
     */
    uint64_t created_at_ms;
    /*
     When its latest version was written: milliseconds since the Unix epoch.
     */
    uint64_t updated_at_ms;
} keystead_secret_info;

/*
 A version of a secret.
 */
typedef struct keystead_version_info {
    /*
     sizeof(keystead_version_info), set by the caller.
     */
    uint32_t struct_size;
    /*
     Its number.
     */
    uint32_t version;
    /*
     KEYSTEAD_VERSION_...: whether it can be read.
     */
    int32_t state;
    /*
     0.
     */
    uint32_t reserved;
    /*
     When it was deleted or destroyed: milliseconds since the Unix epoch; 0 when it is live.
     */
    uint64_t state_at_ms;
    /*
     When it was written: milliseconds since the Unix epoch.
     */
    uint64_t created_at_ms;
    /*
     The size of its value in bytes.
     */
    uint64_t size_bytes;
    /*
     What kind of content it is, if its writer said so.
     */
    struct keystead_text content_type;
    /*
     The labels beside it, by name.
     */
    const struct keystead_label *labels;
    /*
     How many.
     */
    size_t labels_len;
} keystead_version_info;

/*
 What seals a keyring file, beside its mode. Begins with its size; what is 0 has its default.
 */
typedef struct keystead_keyring_options {
    /*
     sizeof(keystead_keyring_options).
     */
    uint32_t struct_size;
    /*
     Of Argon2id, which makes a key of the passphrase: its memory, for a file that is made or resealed; one that is there has
     its own. 0: 65,536.
     */
    uint32_t kdf_memory_kib;
    /*
     Its passes over the memory. 0: 3.
     */
    uint32_t kdf_passes;
    /*
     Its lanes. 0: 4.
     */
    uint32_t kdf_lanes;
    /*
     The passphrase, 1 to 4,096 bytes; the library keeps a copy in locked memory, and the caller erases its own. Null: the file
     is not sealed, and its mode and the disk are all that protects it.
     */
    const uint8_t *passphrase;
    /*
     Its length.
     */
    size_t passphrase_len;
} keystead_keyring_options;

/*
 A version of a keyring's master key. This struct does not grow.
 */
typedef struct keystead_keyring_version {
    /*
     Numbers start at 1 and never repeat.
     */
    uint32_t number;
    /*
     0.
     */
    uint32_t reserved;
    /*
     When it was made, by the clock of the machine that made it: milliseconds since the Unix epoch.
     */
    uint64_t created_at_ms;
} keystead_keyring_version;

/*
 How a keyring stands.
 */
typedef struct keystead_keyring_info {
    /*
     sizeof(keystead_keyring_info), set by the caller.
     */
    uint32_t struct_size;
    /*
     1 when it is enabled, 0 when it is disabled.
     */
    int32_t enabled;
    /*
     1 when a passphrase seals it, else 0.
     */
    int32_t sealed;
    /*
     0.
     */
    uint32_t reserved;
    /*
     Its id, 32 hexadecimal digits: a part of the KMS key id of whatever it wraps.
     */
    struct keystead_text id;
    /*
     The versions of its master key, ascending; the last one wraps.
     */
    const struct keystead_keyring_version *versions;
    /*
     How many.
     */
    size_t versions_len;
} keystead_keyring_info;

/*
 A registered key.
 */
typedef struct keystead_key_info {
    /*
     sizeof(keystead_key_info), set by the caller.
     */
    uint32_t struct_size;
    /*
     KEYSTEAD_KEY_...: whether new epochs may be opened under it.
     */
    int32_t state;
    /*
     1 for the key under which the active epoch was opened, else 0.
     */
    int32_t is_default;
    /*
     0.
     */
    uint32_t reserved;
    /*
     Its name, unique in its organization.
     */
    struct keystead_text name;
    /*
     The name of its backend.
     */
    struct keystead_text backend;
    /*
     The backend's config of this key: a JSON object.
     */
    struct keystead_text config_json;
    /*
     When it was registered: milliseconds since the Unix epoch.
     */
    uint64_t created_at_ms;
} keystead_key_info;

/*
 What was logged. Valid during the callback. Later versions add fields at the end.
 */
typedef struct keystead_log_record {
    /*
     How large it is.
     */
    uint32_t struct_size;
    /*
     KEYSTEAD_LOG_ERROR, _WARN, _INFO or _DEBUG.
     */
    int32_t level;
    /*
     Which part of the library says it: "keystead::rewrap::worker"; "keystead::plugin" for what a plugin says.
     */
    struct keystead_text target;
    /*
     What happened, in words: for people, and never with a secret in it.
     */
    struct keystead_text message;
    /*
     Of what: a JSON object, such as {"organization":"acme","error":"..."}.
     */
    struct keystead_text fields_json;
} keystead_log_record;

/*
 Is told what was logged, on a thread of the library that does nothing else, one record at a time. It may call the library, and
 may block: then records wait, and what finds no room is counted and told as a record of its own. Throws nothing.
 */
typedef void (*keystead_log_callback)(void *context, const struct keystead_log_record *record);

/*
 One of the epochs that a job moves. This struct does not grow.
 */
typedef struct keystead_rewrap_source {
    /*
     The epoch.
     */
    uint32_t epoch;
    /*
     Where its data keys go.
     */
    uint32_t target;
    /*
     1 once the target's KMS wraps its key, else 0.
     */
    int32_t handed_over;
    /*
     1 once nothing refers to it and its wraps are erased, else 0.
     */
    int32_t retired;
} keystead_rewrap_source;

/*
 How a job stands.
 */
typedef struct keystead_rewrap_progress {
    /*
     sizeof(keystead_rewrap_progress), set by the caller; by the library in what a callback gets.
     */
    uint32_t struct_size;
    /*
     KEYSTEAD_REWRAP_HAND_OVER or KEYSTEAD_REWRAP_MOVING.
     */
    int32_t phase;
    /*
     KEYSTEAD_REWRAP_RUNNING, _BLOCKED or _DONE.
     */
    int32_t state;
    /*
     0.
     */
    uint32_t reserved;
    /*
     The job's number in its organization; 0 when there was nothing to move.
     */
    uint64_t job;
    /*
     Data keys that it has moved and is still to move.
     */
    uint64_t total;
    /*
     Data keys that it has moved.
     */
    uint64_t done;
    /*
     Data keys that did not open in this pass, and stay where they are.
     */
    uint64_t failed;
    /*
     Data keys that it is still to move.
     */
    uint64_t remaining;
    /*
     Batches committed so far.
     */
    uint64_t batches;
    /*
     Data keys a second, since this process began to watch; 0 when that is not known yet.
     */
    double rate;
    /*
     Why it is blocked, if it is.
     */
    struct keystead_text blocked;
    /*
     The epochs that it moves.
     */
    const struct keystead_rewrap_source *sources;
    /*
     How many.
     */
    size_t sources_len;
} keystead_rewrap_progress;

/*
 Told how a job stands, on the thread that waits. Returns 0 to go on, anything else to stop waiting (the job goes on).
 *progress is valid until it returns. Throws nothing; may call the library, but does not free the job.
 */
typedef int32_t (*keystead_rewrap_callback)(void *context, const struct keystead_rewrap_progress *progress);

/*
 For whom a token is asked. Valid during the callback. Later versions add fields at the end.
 */
typedef struct keystead_identity_request {
    /*
     How large it is.
     */
    uint32_t struct_size;
    /*
     0.
     */
    uint32_t reserved;
    /*
     The audience that the key's config names, such as `aws:acme`.
     */
    struct keystead_text audience;
    /*
     Whose key.
     */
    struct keystead_text organization;
    /*
     Which key.
     */
    struct keystead_text key;
} keystead_identity_request;

/*
 Mints a token: writes at most capacity bytes to token, their number to *token_len, and returns 0; or returns a code of
 KEYSTEAD_BACKEND_... that says why not. KEYSTEAD_BACKEND_UNAVAILABLE when it cannot be minted at the moment: what is cached
 serves on; a code of the class KEYSTEAD_CLASS_REVOKED takes the key away. Called from threads of the library, several at
 once; throws nothing. The token is a secret; the library erases its copy.
 */
typedef int32_t (*keystead_identity_token)(void *context,
                                           const struct keystead_identity_request *request,
                                           uint8_t *token,
                                           size_t capacity,
                                           size_t *token_len);

/*
 How a store is created or opened. Begins with its size; what is 0 has its default.
 */
typedef struct keystead_store_options {
    /*
     sizeof(keystead_store_options).
     */
    uint32_t struct_size;
    /*
     Re-wrap jobs go on by themselves on threads of the library, unless this is 1: then only in
     keystead_rewrap_run_here().
     */
    int32_t without_background_rewrap;
    /*
     The backends, each under its name. One named "managed" wraps the key that every organization is born with.
     */
    const struct keystead_backend *const *backends;
    /*
     How many.
     */
    size_t backends_len;
    /*
     Memory for pages of the file, in bytes. 0: 64 MiB.
     */
    uint64_t cache_bytes;
    /*
     How long an epoch's key stays in memory, from its unwrapping: the bound of revocation, and the grace in an outage.
     0: 300,000 (5 minutes).
     */
    uint64_t key_lifetime_ms;
    /*
     The deadline of one KMS call. 0: 10,000.
     */
    uint64_t kms_timeout_ms;
    /*
     How many epoch keys stay in memory. 0: 10,000.
     */
    uint64_t epoch_keys_max;
    /*
     How many data keys an epoch wraps before its key must be rotated, at most 2^32. 0: 2^30.
     */
    uint64_t wraps_per_epoch_max;
    /*
     How often a KMS is tried while it is out of reach, the first time included. 0: 3.
     */
    uint32_t kms_attempts_max;
    /*
     How many data keys one batch of a re-wrap moves, at most 65,536. 0: 2,048.
     */
    uint32_t rewrap_batch;
    /*
     Mints tokens for backends that log in with them. May be null.
     */
    keystead_identity_token identity_token;
    /*
     Given to identity_token. Lives as long as the process.
     */
    void *identity_context;
    /*
     What keystead_checkpoint_json() said: the store is opened only if it has come as far. Null: nothing is asked of it. Of no
     use to keystead_store_create(), which refuses it.
     */
    const char *checkpoint_json;
    /*
     Its length.
     */
    size_t checkpoint_json_len;
} keystead_store_options;

/*
 What is salvaged, and how. Begins with its size; what is 0 has its default.
 */
typedef struct keystead_salvage_options {
    /*
     sizeof(keystead_salvage_options).
     */
    uint32_t struct_size;
    /*
     Every value whose epoch key can be had is opened, which asks the KMS of each live epoch once, unless this is 1: then a
     value is taken for right when the tags of its blocks and rows are.
     */
    int32_t without_opening;
    /*
     1 keeps values of which nothing left says whether they were destroyed. 0: what was destroyed must not come back, so they
     are named as lost.
     */
    int32_t keep_undecided;
    /*
     0.
     */
    uint32_t reserved;
    /*
     The store's id, 16 bytes, for a file of which neither copy of the header is whole. Null: the file says it.
     */
    const uint8_t *store_id;
} keystead_salvage_options;

/*
 How far a salvage is. Valid during the callback. Later versions add fields at the end.
 */
typedef struct keystead_salvage_step {
    /*
     How large it is.
     */
    uint32_t struct_size;
    /*
     0.
     */
    uint32_t reserved;
    /*
     What it is doing, for people.
     */
    struct keystead_text phase;
    /*
     How much of it is done: rows, blocks, organizations or versions.
     */
    uint64_t done;
    /*
     Of how much; 0 where that is not known.
     */
    uint64_t total;
} keystead_salvage_step;

/*
 Told how far a salvage is, on the thread of keystead_salvage(). Throws nothing.
 */
typedef void (*keystead_salvage_progress)(void *context, const struct keystead_salvage_step *step);

/*
 What stands in the new store, and how much was lost.
 */
typedef struct keystead_salvage_counts {
    /*
     sizeof(keystead_salvage_counts), set by the caller.
     */
    uint32_t struct_size;
    /*
     0.
     */
    uint32_t reserved;
    /*
     The id of both stores.
     */
    uint8_t store_id[16];
    /*
     Organizations in the new store.
     */
    uint64_t organizations;
    /*
     Secrets in it, those included of which no version is left.
     */
    uint64_t secrets;
    /*
     Versions whose values are in it.
     */
    uint64_t versions;
    /*
     Of those, the ones that were opened.
     */
    uint64_t opened;
    /*
     Of those, the ones whose rows all carry their tags, but which were not opened.
     */
    uint64_t tagged;
    /*
     Of those, the ones that stood in pages which nothing led to, and were not opened: whether they are right shows when they
     are read.
     */
    uint64_t unproven;
    /*
     Versions that were destroyed before: their numbers stay.
     */
    uint64_t destroyed;
    /*
     Audit records that were kept in their chain.
     */
    uint64_t audit_kept;
    /*
     Audit records behind a missing one, carried over into the new chain.
     */
    uint64_t audit_carried;
    /*
     Records of the journal that are missing.
     */
    uint64_t journal_records_lost;
    /*
     How many losses are listed; 0: nothing was lost.
     */
    uint64_t lost;
    /*
     How many reasons are listed why values were not opened.
     */
    uint64_t unopened;
} keystead_salvage_counts;

/*
 One thing that was lost, or that was not opened.
 */
typedef struct keystead_loss {
    /*
     sizeof(keystead_loss), set by the caller.
     */
    uint32_t struct_size;
    /*
     KEYSTEAD_LOST_...: what kind of thing.
     */
    int32_t kind;
    /*
     Whose, by number; 0: nobody's.
     */
    uint32_t organization_id;
    /*
     In which version; 0: in none.
     */
    uint32_t version;
    /*
     Whose, if its name is known.
     */
    struct keystead_text organization;
    /*
     At which path; null when it is not of a secret, or its path is gone as well.
     */
    struct keystead_text path;
    /*
     The secret's number; 0: not known.
     */
    uint64_t secret_id;
    /*
     What it was, and why it is lost: for people.
     */
    struct keystead_text what;
} keystead_loss;

/*
 How an organization's second key stands.
 */
typedef struct keystead_second_key_status {
    /*
     sizeof(keystead_second_key_status), set by the caller.
     */
    uint32_t struct_size;
    /*
     1 when revoking one of the two keys is not enough, since the other opens the epochs alone; else 0.
     */
    int32_t either_opens;
    /*
     The registered key.
     */
    struct keystead_text key;
    /*
     Live epochs that it wraps.
     */
    uint64_t wrapped;
    /*
     Live epochs that it does not wrap yet; the organization's re-wrap job goes on until there are none.
     */
    uint64_t missing;
    /*
     Why the job waits, if it does.
     */
    struct keystead_text blocked;
    /*
     While one key serves because another does not answer, as this process last saw it: the one that serves. Else null.
     */
    struct keystead_text standing_in;
    /*
     What the other one met, in the words of the error.
     */
    struct keystead_text standing_in_because;
    /*
     Since when: milliseconds since the Unix epoch; 0 when each key answers for itself.
     */
    uint64_t standing_in_since_ms;
} keystead_second_key_status;

/*
 A value that was read, as a struct.
 */
typedef struct keystead_secret_view {
    /*
     sizeof(keystead_secret_view), set by the caller.
     */
    uint32_t struct_size;
    /*
     Which version it is.
     */
    uint32_t version;
    /*
     The value's bytes.
     */
    const uint8_t *data;
    /*
     Their number.
     */
    size_t len;
    /*
     When it was written: milliseconds since the Unix epoch.
     */
    uint64_t created_at_ms;
    /*
     What kind of content it is, if its writer said so.
     */
    struct keystead_text content_type;
    /*
     The labels beside it, by name.
     */
    const struct keystead_label *labels;
    /*
     How many.
     */
    size_t labels_len;
} keystead_secret_view;

/*
 An organization in a list.
 */
typedef struct keystead_organization_info {
    /*
     sizeof(keystead_organization_info), set by the caller.
     */
    uint32_t struct_size;
    /*
     Its number: given once, never given again.
     */
    uint32_t id;
    /*
     Its name. Belongs to the list.
     */
    struct keystead_text name;
    /*
     When it was created: milliseconds since the Unix epoch.
     */
    uint64_t created_at_ms;
    /*
     How many secrets it has.
     */
    uint64_t secrets;
} keystead_organization_info;

/*
 Told how many rows were looked at so far. Called on the thread of keystead_verify(), throws nothing.
 */
typedef void (*keystead_verify_progress)(void *context, uint64_t looked_at);

/*
 What was looked at.
 */
typedef struct keystead_verify_counts {
    /*
     sizeof(keystead_verify_counts), set by the caller.
     */
    uint32_t struct_size;
    /*
     0.
     */
    uint32_t reserved;
    /*
     Organizations looked at.
     */
    uint64_t organizations;
    /*
     Secrets looked at.
     */
    uint64_t secrets;
    /*
     Versions looked at.
     */
    uint64_t versions;
    /*
     Values that were opened.
     */
    uint64_t values_opened;
    /*
     Epochs looked at.
     */
    uint64_t epochs;
    /*
     Audit records looked at.
     */
    uint64_t audit_records;
    /*
     How many problems are listed, at most 10,000; 0: all is well.
     */
    uint64_t problems;
    /*
     How many values could not be opened since a KMS did not answer or a key was taken away, at most 10,000.
     */
    uint64_t unopened;
    /*
     Blocks of 4 KiB that were read from the disk and compared with their tags.
     */
    uint64_t blocks;
    /*
     Blocks that do not match their tags, and to which nothing refers: a crash in the middle of a commit leaves such ones.
     */
    uint64_t stale_blocks;
    /*
     Chunks of large values looked at.
     */
    uint64_t chunks;
    /*
     Wraps of epoch keys that were opened under the shred keys in their cells.
     */
    uint64_t wraps;
    /*
     1 when everything was looked at; 0 when something was so damaged that not all could be: what it was is among the problems.
     A library that is too old to say leaves it 0.
     */
    int32_t complete;
    /*
     0.
     */
    uint32_t reserved_more;
} keystead_verify_counts;

/*
 One thing that is wrong, or that could not be opened.
 */
typedef struct keystead_problem {
    /*
     sizeof(keystead_problem), set by the caller.
     */
    uint32_t struct_size;
    /*
     In which version; 0: in none.
     */
    uint32_t version;
    /*
     Whose, if it is somebody's.
     */
    struct keystead_text organization;
    /*
     At which path, if at one.
     */
    struct keystead_text path;
    /*
     What.
     */
    struct keystead_text what;
} keystead_problem;

/*
 The audit records behind number `after` (0: from the first), oldest first, at most limit (1 to 10,000) of them; each is
 checked to chain to the one before it. Asks no KMS.

 Errors: KEYSTEAD_DAMAGED where the chain is broken. Threads: any.

     code = keystead_audit_list_read(acme, 0, 1000, &list, &error);
 */
int32_t keystead_audit_list_read(const struct keystead_organization *organization,
                                 uint64_t after,
                                 size_t limit,
                                 struct keystead_audit_list **out,
                                 struct keystead_error **error);

/*
 How many records it has. Null gives 0.
 */
size_t keystead_audit_list_len(const struct keystead_audit_list *list);

/*
 Writes the item at index (from 0) to *out, whose struct_size is set. What is pointed to belongs to the list.
 */
int32_t keystead_audit_list_get(const struct keystead_audit_list *list,
                                size_t index,
                                struct keystead_audit_record *out,
                                struct keystead_error **error);

/*
 Frees a list. Null does nothing.
 */
void keystead_audit_list_free(struct keystead_audit_list *list);

/*
 Writes the newest audit record's number and hash to *out, whose struct_size is set. Threads: any.
 */
int32_t keystead_audit_head_read(const struct keystead_organization *organization,
                                 struct keystead_audit_head *out,
                                 struct keystead_error **error);

/*
 Loads a plugin, after checking its path, owners, modes and digest: see the guide. Nothing of a plugin that fails there
 runs. path is absolute. options cannot be null, since a digest must be given. No KMS is asked.

 Errors: KEYSTEAD_PLUGIN_REFUSED with the step and the reason; KEYSTEAD_INVALID_ARGUMENT for settings that are no JSON
 object, and for at_first_use without a name. Threads: any.

     keystead_plugin_options options = { sizeof options };
     options.digests = digest;
     options.digests_len = 1;
     code = keystead_backend_load("/usr/lib/keystead/libkeystead_aws_kms.so", KEYSTEAD_ZERO_TERMINATED, &options,
                                  &backend, &error);
 */
int32_t keystead_backend_load(const char *path,
                              size_t path_len,
                              const struct keystead_plugin_options *options,
                              struct keystead_backend **out,
                              struct keystead_error **error);

/*
 Writes the BLAKE3 digest of a file to out, which has room for 32 bytes: for tools that make an allow-list. It reads
 whatever is there and checks nothing: be sure that the file is the one you mean.

 Errors: KEYSTEAD_PLUGIN_REFUSED with what the system says about reading it. Threads: any.
 */
int32_t keystead_plugin_digest(const char *path,
                               size_t path_len,
                               uint8_t *out,
                               struct keystead_error **error);

/*
 A backend behind a table of functions of the application itself, by the rules of keystead_backend.h: a KMS in the
 application's own language. The table, and what its functions need, lives unchanged **as long as the process**. Its
 functions are called from threads of the library, many at once. name and settings_json may be null, as in
 keystead_plugin_options. describe() is called now, open() when a key is used.

 Errors: KEYSTEAD_PLUGIN_REFUSED with what is wrong with the table; KEYSTEAD_INVALID_ARGUMENT. Threads: any.

     code = keystead_backend_from_table(&my_table, NULL, 0, NULL, 0, &backend, &error);
 */
int32_t keystead_backend_from_table(const keystead_backend_api *table,
                                    const char *name,
                                    size_t name_len,
                                    const char *settings_json,
                                    size_t settings_json_len,
                                    struct keystead_backend **out,
                                    struct keystead_error **error);

/*
 The managed key's backend, linked into this library: a local keyring file. settings_json is a JSON object; its fields
 are `keyring` (an absolute path), `create` (make the file at the first wrap; true unless told otherwise), and for a
 sealed keyring `passphrase_env`, `passphrase_fd` or `passphrase_file`; the guide says more. Its name is "managed", the
 one that every organization's first key refers to.

 Errors: KEYSTEAD_INVALID_ARGUMENT for what is no JSON object; a wrong field is told at the first use of a key. Threads:
 any.

     code = keystead_backend_managed("{\"keyring\":\"/var/lib/app/app.keyring\"}", KEYSTEAD_ZERO_TERMINATED, &managed, &error);
 */
int32_t keystead_backend_managed(const char *settings_json,
                                 size_t settings_json_len,
                                 struct keystead_backend **out,
                                 struct keystead_error **error);

/*
 The name by which stored keys refer to the backend. Belongs to the backend. Null gives "".
 */
const char *keystead_backend_name(const struct keystead_backend *backend);

/*
 What the backend says about itself: a JSON object with its own name, version, limits and schemas, as keystead_backend.h
 describes it; {} for a plugin that is loaded at its first use. Belongs to the backend. Null gives "".
 */
const char *keystead_backend_description_json(const struct keystead_backend *backend);

/*
 Frees a backend. Null does nothing. Stores that were opened with it go on.
 */
void keystead_backend_free(struct keystead_backend *backend);

/*
 An empty batch.

     keystead_batch *batch = NULL;
     code = keystead_batch_new(&batch, &error);
     code = keystead_batch_put(batch, "db/user", KEYSTEAD_ZERO_TERMINATED, (const uint8_t *)"app", 3, NULL, &error);
     code = keystead_batch_put(batch, "db/password", KEYSTEAD_ZERO_TERMINATED, (const uint8_t *)"correct horse", 13, NULL,
                               &error);
     code = keystead_batch_commit(acme, batch, versions, 2, &error);
     keystead_batch_free(batch);
 */
int32_t keystead_batch_new(struct keystead_batch **out,
                           struct keystead_error **error);

/*
 Adds a put; the value is copied. A path may come more than once: each put is a version of its own. options may be null.

 Errors: KEYSTEAD_INVALID_PATH, KEYSTEAD_INVALID_ARGUMENT for a label, KEYSTEAD_TOO_LARGE: the batch is as it was then. What
 all values together may be is checked at the commit.
 */
int32_t keystead_batch_put(struct keystead_batch *batch,
                           const char *path,
                           size_t path_len,
                           const uint8_t *value,
                           size_t value_len,
                           const struct keystead_put_options *options,
                           struct keystead_error **error);

/*
 Writes all puts of a batch in one commit, or none, and the new versions to out_versions, in the order of the puts.
 out_versions has room for out_versions_len numbers, at least as many as the batch has puts; or it is null. The batch is
 empty then, whatever comes of it.

 Errors: KEYSTEAD_BUFFER_TOO_SMALL (nothing is written, the batch is as it was); those of keystead_put(); KEYSTEAD_TOO_LARGE
 when there are more than 10,000 puts or 16 MiB. Threads: any.
 */
int32_t keystead_batch_commit(const struct keystead_organization *organization,
                              struct keystead_batch *batch,
                              uint32_t *out_versions,
                              size_t out_versions_len,
                              struct keystead_error **error);

/*
 How many puts a batch holds. Null gives 0.
 */
size_t keystead_batch_len(const struct keystead_batch *batch);

/*
 Frees a batch, and erases the values that it still holds. Null does nothing.
 */
void keystead_batch_free(struct keystead_batch *batch);

/*
 How far every organization of the store has come. Kept where whoever can write the store cannot write, and given to
 keystead_store_open() as checkpoint_json, it has a store that was rolled back, or whose history was written anew, refused. Take
 a new one after opening, and from time to time: what happened since is not covered. Asks no KMS; reads two rows for each
 organization. Threads: any.

     code = keystead_checkpoint_take(store, &checkpoint, &error);
     printf("%s\n", keystead_checkpoint_json(checkpoint));
     keystead_checkpoint_free(checkpoint);
 */
int32_t keystead_checkpoint_take(const struct keystead_store *store,
                                 struct keystead_checkpoint **out,
                                 struct keystead_error **error);

/*
 The checkpoint as text, a JSON object with a zero byte at its end; what `keystead checkpoint` prints is the same. Holds no
 secret. Belongs to the checkpoint. Null gives "".
 */
const char *keystead_checkpoint_json(const struct keystead_checkpoint *checkpoint);

/*
 Frees a checkpoint. Null does nothing.
 */
void keystead_checkpoint_free(struct keystead_checkpoint *checkpoint);

/*
 Every epoch since the first. Reads the store only: it works while every KMS is down.

 Errors: KEYSTEAD_DAMAGED when the chain of epochs is broken. Threads: any.

     keystead_epoch epoch = { sizeof epoch };
     code = keystead_epoch_list_read(acme, &list, &error);
     for (i = 0; i < keystead_epoch_list_len(list); i++) {
         keystead_epoch_list_get(list, i, &epoch, NULL);
         printf("%u %s\n", epoch.number, epoch.key.data);
     }
     keystead_epoch_list_free(list);
 */
int32_t keystead_epoch_list_read(const struct keystead_organization *organization,
                                 struct keystead_epoch_list **out,
                                 struct keystead_error **error);

/*
 How many epochs it has. Null gives 0.
 */
size_t keystead_epoch_list_len(const struct keystead_epoch_list *list);

/*
 Writes the item at index (from 0) to *out, whose struct_size is set. What is pointed to belongs to the list.
 */
int32_t keystead_epoch_list_get(const struct keystead_epoch_list *list,
                                size_t index,
                                struct keystead_epoch *out,
                                struct keystead_error **error);

/*
 Frees a list. Null does nothing.
 */
void keystead_epoch_list_free(struct keystead_epoch_list *list);

/*
 The code of an error, KEYSTEAD_...: the same as the call returned. Null gives KEYSTEAD_OK.
 */
int32_t keystead_error_code(const struct keystead_error *error);

/*
 The class of an error, KEYSTEAD_CLASS_...: what to do about it. Null gives KEYSTEAD_CLASS_NONE. Later versions may have
 codes that this header does not know; their classes are among the known ones.
 */
int32_t keystead_error_class(const struct keystead_error *error);

/*
 1 when the same call may succeed later without anybody's doing, else 0. Null gives 0.
 */
int32_t keystead_error_is_retryable(const struct keystead_error *error);

/*
 How long a KMS asks to wait before the next try, in milliseconds; 0 when it did not say.
 */
uint64_t keystead_error_retry_after_ms(const struct keystead_error *error);

/*
 What was being done, to which object, what is wrong, what to do: for people, in English, with a zero byte at its end,
 and never with a secret in it. Belongs to the error. Null gives "".
 */
const char *keystead_error_message(const struct keystead_error *error);

/*
 Frees an error. Null does nothing.
 */
void keystead_error_free(struct keystead_error *error);

/*
 The class of a code, for callers that keep no error object.
 */
int32_t keystead_class_of(int32_t code);

/*
 The secrets whose paths begin with prefix (null: all), in the order of their bytes, behind `after` (a path; null: from the
 first), at most limit (1 to 10,000) of them. Asks no KMS.

 Errors: KEYSTEAD_INVALID_PATH for a prefix that no path can have. Threads: any.

     code = keystead_list(acme, "prod/", KEYSTEAD_ZERO_TERMINATED, NULL, 0, 100, &list, &error);
 */
int32_t keystead_list(const struct keystead_organization *organization,
                      const char *prefix,
                      size_t prefix_len,
                      const char *after,
                      size_t after_len,
                      size_t limit,
                      struct keystead_secret_list **out,
                      struct keystead_error **error);

/*
 What is known of one secret without opening it: a list of one item.

 Errors: KEYSTEAD_INVALID_PATH, KEYSTEAD_SECRET_NOT_FOUND. Threads: any.
 */
int32_t keystead_info(const struct keystead_organization *organization,
                      const char *path,
                      size_t path_len,
                      struct keystead_secret_list **out,
                      struct keystead_error **error);

/*
 How many secrets it has. Null gives 0.
 */
size_t keystead_secret_list_len(const struct keystead_secret_list *list);

/*
 What to pass as `after` for the next page, with a zero byte at its end; null when this was the last one. Belongs to the
 list.
 */
const char *keystead_secret_list_next(const struct keystead_secret_list *list);

/*
 Writes the item at index (from 0) to *out, whose struct_size is set. What is pointed to belongs to the list.
 */
int32_t keystead_secret_list_get(const struct keystead_secret_list *list,
                                 size_t index,
                                 struct keystead_secret_info *out,
                                 struct keystead_error **error);

/*
 Frees a list. Null does nothing.
 */
void keystead_secret_list_free(struct keystead_secret_list *list);

/*
 The versions of a secret behind `after` (0: from the first), oldest first, at most limit (1 to 10,000) of them. Asks no KMS.

 Errors: KEYSTEAD_SECRET_NOT_FOUND. Threads: any.

     code = keystead_history(acme, "prod/db/password", KEYSTEAD_ZERO_TERMINATED, 0, 100, &list, &error);
 */
int32_t keystead_history(const struct keystead_organization *organization,
                         const char *path,
                         size_t path_len,
                         uint32_t after,
                         size_t limit,
                         struct keystead_version_list **out,
                         struct keystead_error **error);

/*
 How many versions it has. Null gives 0.
 */
size_t keystead_version_list_len(const struct keystead_version_list *list);

/*
 Writes the item at index (from 0) to *out, whose struct_size is set. What is pointed to belongs to the list.
 */
int32_t keystead_version_list_get(const struct keystead_version_list *list,
                                  size_t index,
                                  struct keystead_version_info *out,
                                  struct keystead_error **error);

/*
 Frees a list. Null does nothing.
 */
void keystead_version_list_free(struct keystead_version_list *list);

/*
 Makes a new keyring file with one master key, mode 0600. Its directory must exist. options may be null. Blocks for the sync
 of a file, and with a passphrase for Argon2id, some tenths of a second.

 Errors: KEYSTEAD_KMS + KEYSTEAD_BACKEND_INVALID_CONFIG when there is a file already, which is left as it is, and for a
 passphrase or a cost that is against the rules; KEYSTEAD_KMS + what else is wrong with the file. Threads: any.

     keystead_keyring_options sealing = { sizeof sealing };
     sealing.passphrase = passphrase;
     sealing.passphrase_len = passphrase_len;
     code = keystead_keyring_create("/var/lib/app/app.keyring", KEYSTEAD_ZERO_TERMINATED, &sealing, &keyring, &error);
 */
int32_t keystead_keyring_create(const char *path,
                                size_t path_len,
                                const struct keystead_keyring_options *options,
                                struct keystead_keyring **out,
                                struct keystead_error **error);

/*
 Opens a keyring file that is there, and checks that the passphrase opens it. options may be null.

 Errors: KEYSTEAD_KMS + KEYSTEAD_BACKEND_UNAUTHENTICATED when the passphrase is wrong or missing, _UNAVAILABLE when there is
 no file, _ACCESS_DENIED when others may read it, _INVALID_CIPHERTEXT when it is damaged. Threads: any.
 */
int32_t keystead_keyring_open(const char *path,
                              size_t path_len,
                              const struct keystead_keyring_options *options,
                              struct keystead_keyring **out,
                              struct keystead_error **error);

/*
 The backend "managed" on this keyring, opened as the handle was: for a program that has its passphrase in memory and not where
 keystead_backend_managed() reads one. It makes no file, should this one be gone. The keyring may be freed before.

 Errors: none but those of the handle. Threads: any.

     code = keystead_keyring_backend(keyring, &managed, &error);
 */
int32_t keystead_keyring_backend(const struct keystead_keyring *keyring,
                                 struct keystead_backend **out,
                                 struct keystead_error **error);

/*
 Adds a version of the master key, and writes its number to *out, which may be null. New wraps use it; what older versions
 wrapped still opens, for they stay. Works on a disabled keyring, too. Blocks for up to 10 seconds while another process
 changes the keyring. To have data keys under it, rotate the key "managed" of each organization.

 Errors: KEYSTEAD_KMS + KEYSTEAD_BACKEND_UNSUPPORTED at 1,024 versions, _TIMEOUT, and those of the file. Threads: any.
 */
int32_t keystead_keyring_rotate(const struct keystead_keyring *keyring,
                                uint32_t *out,
                                struct keystead_error **error);

/*
 Disables the keyring: every process that uses it is refused from its next call on and drops the master keys from memory.
 **Everything under it is unreadable until keystead_keyring_enable().** The keys stay in the file. Doing it twice changes
 nothing.

 Errors: KEYSTEAD_KMS + what is wrong with the file. Threads: any.
 */
int32_t keystead_keyring_disable(const struct keystead_keyring *keyring,
                                 struct keystead_error **error);

/*
 Enables the keyring again. Doing it twice changes nothing.

 Errors: KEYSTEAD_KMS + what is wrong with the file. Threads: any.
 */
int32_t keystead_keyring_enable(const struct keystead_keyring *keyring, struct keystead_error **error);

/*
 Puts the keyring under another passphrase, or none; *out is the keyring so opened. The master keys stay the same. Whoever has
 the old passphrase, this handle and backends of it too, gets KEYSTEAD_KMS + KEYSTEAD_BACKEND_UNAUTHENTICATED from the next call
 on; copies of the old file still open with it. options may be null: **no sealing any more**.

 Errors: as keystead_keyring_create(), but for the file that is there. Threads: any.
 */
int32_t keystead_keyring_reseal(const struct keystead_keyring *keyring,
                                const struct keystead_keyring_options *options,
                                struct keystead_keyring **out,
                                struct keystead_error **error);

/*
 How the keyring stands now.

 Errors: KEYSTEAD_KMS + what is wrong with the file. Threads: any.

     keystead_keyring_info info = { sizeof info };
     code = keystead_keyring_read(keyring, &standing, &error);
     if (code == KEYSTEAD_OK && keystead_keyring_status_look(standing, &info, NULL) == KEYSTEAD_OK) {
         printf("%s: version %u wraps\n", info.id.data, (unsigned)info.versions[info.versions_len - 1].number);
     }
     keystead_keyring_status_free(standing);
 */
int32_t keystead_keyring_read(const struct keystead_keyring *keyring,
                              struct keystead_keyring_status **out,
                              struct keystead_error **error);

/*
 Writes how the keyring stood to *out, whose struct_size is set. What is pointed to belongs to the status.
 */
int32_t keystead_keyring_status_look(const struct keystead_keyring_status *status,
                                     struct keystead_keyring_info *out,
                                     struct keystead_error **error);

/*
 Frees a status. Null does nothing.
 */
void keystead_keyring_status_free(struct keystead_keyring_status *status);

/*
 Frees the handle, and erases its passphrase and keys in memory. Null does nothing. The file stays, and backends of it go on.
 */
void keystead_keyring_free(struct keystead_keyring *keyring);

/*
 Every key of the organization, by name. Asks no KMS. Threads: any.
 */
int32_t keystead_key_list_read(const struct keystead_organization *organization,
                               struct keystead_key_list **out,
                               struct keystead_error **error);

/*
 How many keys it has. Null gives 0.
 */
size_t keystead_key_list_len(const struct keystead_key_list *list);

/*
 Writes the item at index (from 0) to *out, whose struct_size is set. What is pointed to belongs to the list.
 */
int32_t keystead_key_list_get(const struct keystead_key_list *list,
                              size_t index,
                              struct keystead_key_info *out,
                              struct keystead_error **error);

/*
 Frees a list. Null does nothing.
 */
void keystead_key_list_free(struct keystead_key_list *list);

/*
 Registers a key of the KMS behind `backend`, a name that the store was opened with, after a probe: random bytes are wrapped
 and unwrapped, and must not unwrap under another context. config_json is the key's config, a JSON object (null: {}); it is
 kept in the store, in clear.

 The first customer-managed key becomes the default and takes over everything: its KMS wraps the epochs before this returns;
 re-wrapping the data keys goes on in the background. *out is the job, to wait for, and to be freed; out may be null, and
 the job goes on by itself.

 Errors: KEYSTEAD_KEY_EXISTS, KEYSTEAD_BACKEND_NOT_REGISTERED, KEYSTEAD_INVALID_NAME, KEYSTEAD_KMS + what the probe or the
 hand-over met; nothing is changed then. Blocks for some KMS calls. Threads: any.

     code = keystead_key_add(acme, "acme-cmk", KEYSTEAD_ZERO_TERMINATED, "aws-kms", KEYSTEAD_ZERO_TERMINATED, config_json,
                             KEYSTEAD_ZERO_TERMINATED, &job, &error);
     code = keystead_rewrap_wait(job, 60000, NULL, NULL, NULL, &error);
 */
int32_t keystead_key_add(const struct keystead_organization *organization,
                         const char *name,
                         size_t name_len,
                         const char *backend,
                         size_t backend_len,
                         const char *config_json,
                         size_t config_json_len,
                         struct keystead_rewrap_job **out,
                         struct keystead_error **error);

/*
 Opens a new epoch under a key, which takes the new data keys from now on. Existing data keys stay where they are unless
 rewrap is 1. *out (which may be null) is the job, to be freed.

 Errors: KEYSTEAD_KEY_NOT_FOUND, KEYSTEAD_KEY_REFUSED for a disabled key, KEYSTEAD_KMS + what it said. Threads: any.
 */
int32_t keystead_key_set_default(const struct keystead_organization *organization,
                                 const char *name,
                                 size_t name_len,
                                 int32_t rewrap,
                                 struct keystead_rewrap_job **out,
                                 struct keystead_error **error);

/*
 Disables a key: everything under it is handed over and re-wrapped to the key `target`, then its epochs are retired and it
 is disabled. If its KMS cannot be reached, it stays on the way until it can. *out (which may be null) is the job, to be
 freed.

 Errors: KEYSTEAD_KEY_REFUSED for the default key and for the target of a running job, KEYSTEAD_KEY_NOT_FOUND, KEYSTEAD_KMS +
 what the target's said. Threads: any.
 */
int32_t keystead_key_disable(const struct keystead_organization *organization,
                             const char *name,
                             size_t name_len,
                             const char *target,
                             size_t target_len,
                             struct keystead_rewrap_job **out,
                             struct keystead_error **error);

/*
 Back to the managed key: everything moves there, and all customer-managed keys are disabled. *out (which may be null) is the
 job, to be freed.

 Errors: KEYSTEAD_INVALID_ARGUMENT when there is no enabled one, KEYSTEAD_KMS + what the managed key's said. Threads: any.
 */
int32_t keystead_key_disable_all(const struct keystead_organization *organization,
                                 struct keystead_rewrap_job **out,
                                 struct keystead_error **error);

/*
 Opens a new epoch under the same key (a new epoch key, wrapped by the KMS key's newest version), re-wraps to it what the key
 held, and retires the older epochs. *out (which may be null) is the job, to be freed.

 Errors: KEYSTEAD_KEY_NOT_FOUND, KEYSTEAD_KEY_REFUSED for a disabled key, KEYSTEAD_KMS + what it said. Threads: any.
 */
int32_t keystead_key_rotate(const struct keystead_organization *organization,
                            const char *name,
                            size_t name_len,
                            struct keystead_rewrap_job **out,
                            struct keystead_error **error);

/*
 Gives the running re-wrap job another target: everything that it moves goes to a new epoch under this key. *out (which may
 be null) is the job, to be freed.

 Errors: KEYSTEAD_NO_JOB, KEYSTEAD_KEY_REFUSED, KEYSTEAD_KMS + what the new target's said. Threads: any.
 */
int32_t keystead_key_retarget(const struct keystead_organization *organization,
                              const char *name,
                              size_t name_len,
                              struct keystead_rewrap_job **out,
                              struct keystead_error **error);

/*
 Asks the KMS of a key now, by wrapping and unwrapping random bytes: three KMS calls.

 Errors: KEYSTEAD_KEY_NOT_FOUND, KEYSTEAD_KMS + what it met. Threads: any.
 */
int32_t keystead_key_probe(const struct keystead_organization *organization,
                           const char *name,
                           size_t name_len,
                           struct keystead_error **error);

/*
 Has whatever the library logs up to level (KEYSTEAD_LOG_ERROR to KEYSTEAD_LOG_DEBUG) told to callback, for every store of this
 process, until *out is freed. **There is one log in a process**: open it in the program, not in a library that others use.

 Without it nothing is told, nor printed. What is told comes a moment later than it happened: the last records before a process is
 killed are not told. Nothing of them is needed to know how things stand; for that, ask
 (keystead_rewrap_status_read(), keystead_second_key_read(), the audit trail). Messages and fields are for people and may
 change; none holds a secret, but names of organizations and keys, paths and what a KMS said stand in them.

 In the child of a fork() nothing is told, and no log can be opened while its parent had one open: KEYSTEAD_FORKED.

 Errors: KEYSTEAD_LOG_TAKEN when a log is open; KEYSTEAD_INVALID_ARGUMENT. Threads: any.

     static void write_down(void *context, const keystead_log_record *record) {
         fprintf((FILE *)context, "%d %s: %s %s\n", (int)record->level, record->target.data, record->message.data,
                 record->fields_json.data);
     }
     code = keystead_log_open(KEYSTEAD_LOG_WARN, write_down, stderr, &events, &error);
 */
int32_t keystead_log_open(int32_t level,
                          keystead_log_callback callback,
                          void *context,
                          struct keystead_log **out,
                          struct keystead_error **error);

/*
 Ends the log. What waits is told first, and when this returns, the callback is not running and never called again; so hold
 nothing meanwhile that it waits for. Called by the callback itself, it does not wait: what waits is not told. Null does nothing.
 */
void keystead_log_free(struct keystead_log *log);

/*
 The organization's name, with a zero byte at its end. Belongs to the handle. Null gives "".
 */
const char *keystead_organization_name(const struct keystead_organization *organization);

/*
 The organization's number in its store: given once, never given again. Null gives 0, which may be a number, too.
 */
uint32_t keystead_organization_id(const struct keystead_organization *organization);

/*
 A further handle on the same organization, acting for somebody and for a reason: the audit records of what is done with
 it say so. actor has at most 256 bytes, reason at most 1024, neither has control characters; null: not said. To be freed
 as well.

 Errors: KEYSTEAD_INVALID_ARGUMENT. Threads: any.

     code = keystead_organization_acting_as(acme, "alice@acme", KEYSTEAD_ZERO_TERMINATED, "ticket 4711",
                                            KEYSTEAD_ZERO_TERMINATED, &alice, &error);
 */
int32_t keystead_organization_acting_as(const struct keystead_organization *organization,
                                        const char *actor,
                                        size_t actor_len,
                                        const char *reason,
                                        size_t reason_len,
                                        struct keystead_organization **out,
                                        struct keystead_error **error);

/*
 Frees the handle. Null does nothing.
 */
void keystead_organization_free(struct keystead_organization *organization);

/*
 The organization's running re-wrap job, to wait for.

 Errors: KEYSTEAD_NO_JOB when none runs. Threads: any.
 */
int32_t keystead_rewrap_job_open(const struct keystead_organization *organization,
                                 struct keystead_rewrap_job **out,
                                 struct keystead_error **error);

/*
 The job's number; 0 when the change moved nothing, and there is nothing to wait for. Null gives 0.
 */
uint64_t keystead_rewrap_job_number(const struct keystead_rewrap_job *job);

/*
 Frees the handle; the job goes on. Null does nothing.
 */
void keystead_rewrap_job_free(struct keystead_rewrap_job *job);

/*
 Waits until a job is done, at most timeout_ms (KEYSTEAD_FOREVER: without end), telling callback (which may be null) of every
 change. A job that is blocked goes on trying, and this goes on waiting. *out (which may be null) gets how it stood at the
 end, when it is done.

 Errors: KEYSTEAD_TIMED_OUT, KEYSTEAD_STOPPED when the callback said so, KEYSTEAD_CLOSED. Threads: any.

     static int32_t show(void *context, const keystead_rewrap_progress *progress) {
         (void)context;
         printf("%lu of %lu\n", (unsigned long)progress->done, (unsigned long)progress->total);
         return 0;
     }
     code = keystead_rewrap_wait(job, KEYSTEAD_FOREVER, show, NULL, NULL, &error);
 */
int32_t keystead_rewrap_wait(const struct keystead_rewrap_job *job,
                             uint64_t timeout_ms,
                             keystead_rewrap_callback callback,
                             void *context,
                             struct keystead_rewrap_status **out,
                             struct keystead_error **error);

/*
 Does a job's work on the calling thread until it is done or blocked, telling callback (which may be null) after every batch;
 what the callback returns is not looked at. *out (which may be null) gets how it stands then: a KMS that does not answer is
 a state, not an error. For stores that were opened without_background_rewrap.

 Errors: those of the store. Threads: any.
 */
int32_t keystead_rewrap_run_here(const struct keystead_rewrap_job *job,
                                 keystead_rewrap_callback callback,
                                 void *context,
                                 struct keystead_rewrap_status **out,
                                 struct keystead_error **error);

/*
 How the organization's re-wrap job stands: the running one, or the last. *out is null when there never was one. Asks no
 KMS. Threads: any.

     code = keystead_rewrap_status_read(acme, &status, &error);
 */
int32_t keystead_rewrap_status_read(const struct keystead_organization *organization,
                                    struct keystead_rewrap_status **out,
                                    struct keystead_error **error);

/*
 Writes how the job stood to *out, whose struct_size is set. What is pointed to belongs to the status.
 */
int32_t keystead_rewrap_status_look(const struct keystead_rewrap_status *status,
                                    struct keystead_rewrap_progress *out,
                                    struct keystead_error **error);

/*
 Frees a status. Null does nothing.
 */
void keystead_rewrap_status_free(struct keystead_rewrap_status *status);

/*
 Copies whatever is provably right in a damaged store into a new one, and says what is lost, each version by name. A value
 is copied only to the place for which it was sealed. The damaged file is locked and read, never written; the new one
 appears, mode 0600, when it is whole. Opened, it verifies clean, and writes and re-wrap jobs go on.

 The new store has the same id, organizations, histories and keys. A lost version keeps its number. Audit records behind a
 missing one are carried over into a new chain: take a new checkpoint. Both files then hold the keys to their wraps: destroy the
 damaged one when it is no longer needed.

 options is that of keystead_store_open(), without a checkpoint: its backends open values, and one that does not answer is in the report, not an
 error. how and progress may be null. Reads the file up to three times; memory: some MiB, and some hundred bytes for
 each version that is lost. A file that was made to do harm may make it take long, or end the process: one that comes from
 elsewhere is for the command, `keystead salvage`.

 Errors: KEYSTEAD_STORE_NOT_FOUND, KEYSTEAD_ALREADY_OPEN; KEYSTEAD_NOT_A_STORE or KEYSTEAD_DAMAGED when neither copy of the
 header is whole and no store_id is given; KEYSTEAD_STORE_EXISTS for the new one; KEYSTEAD_STORAGE,
 KEYSTEAD_INVALID_ARGUMENT. Threads: any.

     code = keystead_salvage("damaged.keystead", KEYSTEAD_ZERO_TERMINATED, "new.keystead", KEYSTEAD_ZERO_TERMINATED,
                             &options, NULL, NULL, NULL, &salvaged, &error);
     if (code == KEYSTEAD_OK) {
         keystead_loss loss = { sizeof loss };
         for (i = 0; keystead_salvage_report_lost(salvaged, i, &loss, NULL) == KEYSTEAD_OK; i++) {
             printf("%s: %s\n", loss.path.data == NULL ? "" : loss.path.data, loss.what.data);
         }
     }
     keystead_salvage_report_free(salvaged);
 */
int32_t keystead_salvage(const char *damaged_path,
                         size_t damaged_path_len,
                         const char *new_path,
                         size_t new_path_len,
                         const struct keystead_store_options *options,
                         const struct keystead_salvage_options *how,
                         keystead_salvage_progress progress,
                         void *context,
                         struct keystead_salvage_report **out,
                         struct keystead_error **error);

/*
 Writes how much was salvaged and lost to *out, whose struct_size is set.
 */
int32_t keystead_salvage_report_counts(const struct keystead_salvage_report *report,
                                       struct keystead_salvage_counts *out,
                                       struct keystead_error **error);

/*
 Writes the loss at index (from 0) to *out, whose struct_size is set. What is pointed to belongs to the report.
 */
int32_t keystead_salvage_report_lost(const struct keystead_salvage_report *report,
                                     size_t index,
                                     struct keystead_loss *out,
                                     struct keystead_error **error);

/*
 Writes why values were not opened, an epoch whose KMS did not answer, at index (from 0) to *out, whose struct_size is set.
 What is pointed to belongs to the report.
 */
int32_t keystead_salvage_report_unopened(const struct keystead_salvage_report *report,
                                         size_t index,
                                         struct keystead_loss *out,
                                         struct keystead_error **error);

/*
 Frees a report. Null does nothing.
 */
void keystead_salvage_report_free(struct keystead_salvage_report *report);

/*
 Makes a registered key the second key: beside the key that each live epoch belongs to, it wraps that epoch too, and so every
 one that is opened later. While one of the two KMSs is out of reach, the other opens everything. It must be enabled, and
 not the default key.

 Revoking either key is honoured: the epoch's own key is asked first, the second one in its outage, and a refusal of the one
 that is asked is the answer. With either_opens 1 it is not: **then both must be revoked to take the data away**.

 *out (which may be null) is the job, to be freed. It moves nothing, and is done when every live epoch is wrapped by both keys:
 its number is 0 when that is so already, and it is blocked while an epoch's own key cannot be asked.

 Errors: KEYSTEAD_KEY_REFUSED for the managed key, the default key, a key that is not enabled or to which epochs belong, and
 where there is a second key already; KEYSTEAD_KEY_NOT_FOUND; KEYSTEAD_KMS + what the second key's said. Nothing is changed
 then. Blocks for three KMS calls, and three more for each live epoch. Threads: any.

     code = keystead_key_set_second(acme, "acme-paris", KEYSTEAD_ZERO_TERMINATED, 0, &job, &error);
     code = keystead_rewrap_wait(job, 60000, NULL, NULL, NULL, &error);
 */
int32_t keystead_key_set_second(const struct keystead_organization *organization,
                                const char *name,
                                size_t name_len,
                                int32_t either_opens,
                                struct keystead_rewrap_job **out,
                                struct keystead_error **error);

/*
 The second key is one like the others again, and opens nothing: its wraps are erased before this returns. Asks no KMS.

 Errors: KEYSTEAD_INVALID_ARGUMENT where there is none; KEYSTEAD_KEY_REFUSED when after a salvage it alone wraps an epoch.
 Threads: any.
 */
int32_t keystead_key_remove_second(const struct keystead_organization *organization,
                                   struct keystead_error **error);

/*
 The organization's second key, and how it stands. *out is null where there is none. Asks no KMS. Threads: any.

     keystead_second_key_status standing = { sizeof standing };
     code = keystead_second_key_read(acme, &second, &error);
     if (second != NULL) {
         keystead_second_key_look(second, &standing, NULL);
         printf("%s wraps %lu epochs\n", standing.key.data, (unsigned long)standing.wrapped);
     }
     keystead_second_key_free(second);
 */
int32_t keystead_second_key_read(const struct keystead_organization *organization,
                                 struct keystead_second_key **out,
                                 struct keystead_error **error);

/*
 Writes how the second key stood to *out, whose struct_size is set. What is pointed to belongs to the second key's object.
 */
int32_t keystead_second_key_look(const struct keystead_second_key *second,
                                 struct keystead_second_key_status *out,
                                 struct keystead_error **error);

/*
 Frees what was read of a second key. Null does nothing.
 */
void keystead_second_key_free(struct keystead_second_key *second);

/*
 Writes a new version of a secret, of 0 bytes to 64 MiB, and its number to *out_version (which may be null) when it is
 durable. options may be null.

 Errors: KEYSTEAD_INVALID_PATH, KEYSTEAD_TOO_LARGE, KEYSTEAD_VERSION_MISMATCH, KEYSTEAD_KMS + what it said when the
 active epoch's key cannot be had. Blocks for one sync of the disk, shared with whoever else writes. Threads: any.

     code = keystead_put(acme, "prod/db/password", KEYSTEAD_ZERO_TERMINATED, (const uint8_t *)"correct horse", 13, NULL,
                         &version, &error);
 */
int32_t keystead_put(const struct keystead_organization *organization,
                     const char *path,
                     size_t path_len,
                     const uint8_t *value,
                     size_t value_len,
                     const struct keystead_put_options *options,
                     uint32_t *out_version,
                     struct keystead_error **error);

/*
 Reads a version of a secret; version 0: the latest.

 Errors: KEYSTEAD_SECRET_NOT_FOUND, KEYSTEAD_VERSION_NOT_FOUND, KEYSTEAD_VERSION_DELETED, KEYSTEAD_VERSION_DESTROYED,
 KEYSTEAD_VERSION_LOST; KEYSTEAD_KMS + what it said when the epoch's key cannot be had (class KEYSTEAD_CLASS_REVOKED: its owner has taken it
 away); KEYSTEAD_DAMAGED. Asks a KMS only when the epoch's key is not in memory. Threads: any.

     if (keystead_get(acme, "prod/db/password", KEYSTEAD_ZERO_TERMINATED, 0, &secret, &error) == KEYSTEAD_OK) {
         log_in(keystead_secret_data(secret), keystead_secret_len(secret));
         keystead_secret_free(secret);
     }
 */
int32_t keystead_get(const struct keystead_organization *organization,
                     const char *path,
                     size_t path_len,
                     uint32_t version,
                     struct keystead_secret **out,
                     struct keystead_error **error);

/*
 Reads a version of a secret (0: the latest) into the caller's buffer, and its length to *out_len. The library keeps no
 copy; the caller erases the buffer.

 Errors: as keystead_get(), and KEYSTEAD_BUFFER_TOO_SMALL: *out_len is the room that is needed, the buffer is as it was.
 Threads: any.

     code = keystead_get_into(acme, "prod/db/password", KEYSTEAD_ZERO_TERMINATED, 0, buffer, sizeof buffer, &len, &error);
 */
int32_t keystead_get_into(const struct keystead_organization *organization,
                          const char *path,
                          size_t path_len,
                          uint32_t version,
                          uint8_t *buffer,
                          size_t capacity,
                          size_t *out_len,
                          struct keystead_error **error);

/*
 The value's bytes; never null for a secret, also when it is empty. They belong to the secret. Null gives null.
 */
const uint8_t *keystead_secret_data(const struct keystead_secret *secret);

/*
 The value's number of bytes. Null gives 0.
 */
size_t keystead_secret_len(const struct keystead_secret *secret);

/*
 Which version it is. Null gives 0.
 */
uint32_t keystead_secret_version(const struct keystead_secret *secret);

/*
 Writes what the secret holds to *out, whose struct_size is set. What is pointed to belongs to the secret.
 */
int32_t keystead_secret_look(const struct keystead_secret *secret,
                             struct keystead_secret_view *out,
                             struct keystead_error **error);

/*
 Erases the value from memory and frees it. Null does nothing.
 */
void keystead_secret_free(struct keystead_secret *secret);

/*
 Deletes a version: it is kept, but not read, until it is undeleted. Doing it twice changes nothing. Durable when it
 returns.

 Errors: KEYSTEAD_SECRET_NOT_FOUND, KEYSTEAD_VERSION_NOT_FOUND, KEYSTEAD_VERSION_DESTROYED. Threads: any.
 */
int32_t keystead_delete(const struct keystead_organization *organization,
                        const char *path,
                        size_t path_len,
                        uint32_t version,
                        struct keystead_error **error);

/*
 Brings a deleted version back. Durable when it returns.

 Errors: as keystead_delete(). Threads: any.
 */
int32_t keystead_undelete(const struct keystead_organization *organization,
                          const char *path,
                          size_t path_len,
                          uint32_t version,
                          struct keystead_error **error);

/*
 Destroys a version: **its data key and its value are gone for good.** Durable when it returns.

 Errors: as keystead_delete(). Threads: any.
 */
int32_t keystead_destroy(const struct keystead_organization *organization,
                         const char *path,
                         size_t path_len,
                         uint32_t version,
                         struct keystead_error **error);

/*
 Sets how many versions of a secret are kept: every further put **destroys** the oldest ones beyond that. 0: all are
 kept, which is the default.

 Errors: KEYSTEAD_SECRET_NOT_FOUND. Threads: any.
 */
int32_t keystead_set_retention(const struct keystead_organization *organization,
                               const char *path,
                               size_t path_len,
                               uint32_t keep,
                               struct keystead_error **error);

/*
 Creates a store: the file appears when it is whole and synced, mode 0600. options may be null.

 Errors: KEYSTEAD_STORE_EXISTS, KEYSTEAD_STORAGE, KEYSTEAD_INVALID_ARGUMENT for two backends of one name. Blocks for about
 ten syncs of the disk. Threads: any.

     keystead_store_options options = { sizeof options };
     const keystead_backend *backends[1];
     backends[0] = managed;
     options.backends = backends;
     options.backends_len = 1;
     code = keystead_store_create("app.keystead", KEYSTEAD_ZERO_TERMINATED, &options, &store, &error);
 */
int32_t keystead_store_create(const char *path,
                              size_t path_len,
                              const struct keystead_store_options *options,
                              struct keystead_store **out,
                              struct keystead_error **error);

/*
 Opens a store, brings back what a crash left in its journal, and lets its re-wrap jobs go on. options may be null. The
 cost does not grow with the store; no KMS is asked.

 Errors: KEYSTEAD_STORE_NOT_FOUND, KEYSTEAD_ALREADY_OPEN, KEYSTEAD_NOT_A_STORE, KEYSTEAD_DAMAGED,
 KEYSTEAD_INVALID_ARGUMENT; with a checkpoint KEYSTEAD_BEHIND_CHECKPOINT, KEYSTEAD_NOT_OF_CHECKPOINT,
 KEYSTEAD_CHECKPOINT_OF_ANOTHER_STORE. Threads: any.

     code = keystead_store_open("app.keystead", KEYSTEAD_ZERO_TERMINATED, &options, &store, &error);
 */
int32_t keystead_store_open(const char *path,
                            size_t path_len,
                            const struct keystead_store_options *options,
                            struct keystead_store **out,
                            struct keystead_error **error);

/*
 Closes a store now: stops the background work and brings the file into its resting state. Whatever needs the file returns
 KEYSTEAD_CLOSED from then on, through every handle; a writer says so at the latest when it finishes. The handle is still to be freed. Not needed before keystead_store_free(), which
 does the same with the last handle, but cannot tell an error. Null does nothing.

 Errors: those of the disk; nothing that was acknowledged is lost by them. Threads: any.
 */
int32_t keystead_store_close(struct keystead_store *store,
                             struct keystead_error **error);

/*
 Frees the handle; null does nothing. With the last handle on the store (store, organizations, jobs, readers, writers),
 the store is closed and the file is released; that may wait for a batch of a re-wrap and for some syncs.
 */
void keystead_store_free(struct keystead_store *store);

/*
 Writes the store's random id, 16 bytes, to out, which has room for 16.
 */
int32_t keystead_store_id(const struct keystead_store *store, uint8_t *out, struct keystead_error **error);

/*
 Creates an organization with its first epoch under the key "managed". name: 1 to 128 bytes of UTF-8, no control
 characters, no white space at either end. One KMS call, one commit; durable when it returns.

 Errors: KEYSTEAD_INVALID_NAME, KEYSTEAD_ORGANIZATION_EXISTS, KEYSTEAD_BACKEND_NOT_REGISTERED without a backend named
 "managed", KEYSTEAD_KMS + what it said. Threads: any.

     code = keystead_organization_create(store, "acme", KEYSTEAD_ZERO_TERMINATED, &acme, &error);
 */
int32_t keystead_organization_create(const struct keystead_store *store,
                                     const char *name,
                                     size_t name_len,
                                     struct keystead_organization **out,
                                     struct keystead_error **error);

/*
 The handle of an organization.

 Errors: KEYSTEAD_INVALID_NAME, KEYSTEAD_ORGANIZATION_NOT_FOUND. Threads: any.

     code = keystead_organization_open(store, "acme", KEYSTEAD_ZERO_TERMINATED, &acme, &error);
 */
int32_t keystead_organization_open(const struct keystead_store *store,
                                   const char *name,
                                   size_t name_len,
                                   struct keystead_organization **out,
                                   struct keystead_error **error);

/*
 The organizations behind `after` (a name; null: from the first), by name, at most limit (1 to 10,000) of them. Asks no
 KMS.

     code = keystead_organization_list_read(store, NULL, 0, 100, &list, &error);
 */
int32_t keystead_organization_list_read(const struct keystead_store *store,
                                        const char *after,
                                        size_t after_len,
                                        size_t limit,
                                        struct keystead_organization_list **out,
                                        struct keystead_error **error);

/*
 How many organizations are in the list. Null gives 0.
 */
size_t keystead_organization_list_len(const struct keystead_organization_list *list);

/*
 What to pass as `after` for the next page, with a zero byte at its end; null when this was the last one. Belongs to the
 list.
 */
const char *keystead_organization_list_next(const struct keystead_organization_list *list);

/*
 Writes the item at index (from 0) to *out, whose struct_size is set.
 */
int32_t keystead_organization_list_get(const struct keystead_organization_list *list,
                                       size_t index,
                                       struct keystead_organization_info *out,
                                       struct keystead_error **error);

/*
 Frees a list. Null does nothing.
 */
void keystead_organization_list_free(struct keystead_organization_list *list);

/*
 Drops every epoch key of the store from memory: the next use of each asks its KMS.
 */
int32_t keystead_store_forget_epoch_keys(const struct keystead_store *store, struct keystead_error **error);

/*
 Writes how many epoch keys are in memory now to *out.
 */
int32_t keystead_store_cached_epoch_keys(const struct keystead_store *store,
                                         size_t *out,
                                         struct keystead_error **error);

/*
 Begins to write a value in parts. options may be null.

 Errors: KEYSTEAD_INVALID_PATH, KEYSTEAD_INVALID_ARGUMENT. Threads: any.

     code = keystead_writer_open(acme, "backups/keyring", KEYSTEAD_ZERO_TERMINATED, NULL, &writer, &error);
     while ((len = fread(part, 1, sizeof part, file)) > 0) {
         code = keystead_writer_write(writer, part, len, &error);
     }
     code = keystead_writer_finish(writer, &version, &error);
     keystead_writer_free(writer);
 */
int32_t keystead_writer_open(const struct keystead_organization *organization,
                             const char *path,
                             size_t path_len,
                             const struct keystead_put_options *options,
                             struct keystead_writer **out,
                             struct keystead_error **error);

/*
 Writes a part of any size. All of it is taken, or the call fails, and the writer can only be freed.

 Errors: KEYSTEAD_TOO_LARGE when the whole value would be longer than 64 MiB; those of keystead_put(). Blocks for one sync
 for each MiB.
 */
int32_t keystead_writer_write(struct keystead_writer *writer,
                              const uint8_t *data,
                              size_t len,
                              struct keystead_error **error);

/*
 Makes the version, and writes its number to *out_version (which may be null) when it is durable. The writer can only be
 freed then.

 Errors: those of keystead_put(); nothing is left of the value then.
 */
int32_t keystead_writer_finish(struct keystead_writer *writer,
                               uint32_t *out_version,
                               struct keystead_error **error);

/*
 Frees a writer; unfinished, its value is as if it had never begun. Null does nothing.
 */
void keystead_writer_free(struct keystead_writer *writer);

/*
 Begins to read a version of a secret (0: the latest) in parts.

 Errors: as keystead_get(). Threads: any.

     code = keystead_reader_open(acme, "backups/keyring", KEYSTEAD_ZERO_TERMINATED, 0, &reader, &error);
     do {
         code = keystead_reader_read(reader, part, sizeof part, &len, &error);
         use(part, len);
     } while (code == KEYSTEAD_OK && len > 0);
     keystead_reader_free(reader);
 */
int32_t keystead_reader_open(const struct keystead_organization *organization,
                             const char *path,
                             size_t path_len,
                             uint32_t version,
                             struct keystead_reader **out,
                             struct keystead_error **error);

/*
 Reads the next part, at most capacity bytes, and writes its length to *out_len; 0: the value has ended. Every byte that is
 answered is authenticated. A part may be shorter than capacity before the end. The caller erases the buffer.

 Errors: KEYSTEAD_DAMAGED; KEYSTEAD_INVALID_ARGUMENT for a capacity of 0; those of the store.
 */
int32_t keystead_reader_read(struct keystead_reader *reader,
                             uint8_t *buffer,
                             size_t capacity,
                             size_t *out_len,
                             struct keystead_error **error);

/*
 Writes what is known of the version that is being read to *out, whose struct_size is set. What is pointed to belongs to the
 reader.
 */
int32_t keystead_reader_info(const struct keystead_reader *reader,
                             struct keystead_version_info *out,
                             struct keystead_error **error);

/*
 Frees a reader. Null does nothing.
 */
void keystead_reader_free(struct keystead_reader *reader);

/*
 Checks the whole store: every page, row, chain and count; with KEYSTEAD_VERIFY_OPEN_VALUES in flags also that every value
 opens. Takes time in proportion to the store, changes nothing, and stops nobody. What is damaged is in the report, not an
 error. progress may be null. A file that was made to do harm may make it take long, or end the process: of one that comes
 from elsewhere, ask the command `keystead verify`, which looks at it in a process of its own.

 Errors: KEYSTEAD_CLOSED, KEYSTEAD_STORAGE, KEYSTEAD_INVALID_ARGUMENT for an unknown flag. Threads: any.

     code = keystead_verify(store, 0, NULL, NULL, &report, &error);
 */
int32_t keystead_verify(const struct keystead_store *store,
                        uint32_t flags,
                        keystead_verify_progress progress,
                        void *context,
                        struct keystead_verify_report **out,
                        struct keystead_error **error);

/*
 Writes what was looked at to *out, whose struct_size is set.
 */
int32_t keystead_verify_report_counts(const struct keystead_verify_report *report,
                                      struct keystead_verify_counts *out,
                                      struct keystead_error **error);

/*
 Writes the problem at index (from 0) to *out, whose struct_size is set. What is pointed to belongs to the report.
 */
int32_t keystead_verify_report_problem(const struct keystead_verify_report *report,
                                       size_t index,
                                       struct keystead_problem *out,
                                       struct keystead_error **error);

/*
 Writes the value that could not be opened at index (from 0) to *out, whose struct_size is set. What is pointed to belongs to the report.
 */
int32_t keystead_verify_report_unopened(const struct keystead_verify_report *report,
                                        size_t index,
                                        struct keystead_problem *out,
                                        struct keystead_error **error);

/*
 Frees a report. Null does nothing.
 */
void keystead_verify_report_free(struct keystead_verify_report *report);

/*
 The version of the library that runs, such as "0.1.0". Lives as long as the process.
 */
const char *keystead_version(void);

/*
 The version of the interface of the library that runs: the header's KEYSTEAD_ABI_VERSION, or the program was built
 against another one and must not go on.
 */
uint32_t keystead_abi_version(void);

#ifdef __cplusplus
}
#endif

#endif /* KEYSTEAD_H */
