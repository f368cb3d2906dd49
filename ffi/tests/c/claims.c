/* What the header promises, claimed in C: claims DIRECTORY */
#include "claims.h"
#include "table.h"

#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

static keystead_organization *organization_of(keystead_store *store, const char *name)
{
    keystead_organization *organization = NULL;
    DO(keystead_organization_create(store, name, Z, &organization, &error));
    return organization;
}

static void put(const keystead_organization *organization, const char *path, const char *value)
{
    DO(keystead_put(organization, path, Z, BYTES(value), NULL, NULL, &error));
}

static void a_value_comes_back_with_its_labels(const keystead_organization *acme)
{
    keystead_label label = { { "owner", 5 }, { "team-db", Z } };
    keystead_put_options options = { sizeof options, 0, 0, 0, NULL, 0, NULL, 0 };
    keystead_secret_view view = { sizeof view, 0, NULL, 0, 0, { NULL, 0 }, NULL, 0 };
    keystead_secret *secret = NULL;
    uint32_t version = 0;
    options.expect = KEYSTEAD_EXPECT_NEW;
    options.content_type = "text/plain";
    options.content_type_len = Z;
    options.labels = &label;
    options.labels_len = 1;
    DO(keystead_put(acme, "a/b", 3, BYTES("one"), &options, &version, &error));
    CLAIM(version == 1);
    REFUSED(KEYSTEAD_VERSION_MISMATCH, keystead_put(acme, "a/b", 3, BYTES("two"), &options, &version, &error));
    CLAIM(version == 0);
    DO(keystead_get(acme, "a/b", Z, 0, &secret, &error));
    DO(keystead_secret_look(secret, &view, &error));
    CLAIM(view.version == 1 && view.len == 3 && memcmp(view.data, "one", 3) == 0);
    CLAIM(strcmp(view.content_type.data, "text/plain") == 0 && view.labels_len == 1);
    CLAIM(strcmp(view.labels[0].name.data, "owner") == 0 && view.labels[0].value.len == 7);
    keystead_secret_free(secret);
}

static void a_buffer_of_the_caller_is_filled_or_left_as_it_was(const keystead_organization *acme)
{
    uint8_t buffer[8] = { 7, 7, 7, 7, 7, 7, 7, 7 };
    size_t len = 0;
    put(acme, "into", "five!");
    REFUSED(KEYSTEAD_BUFFER_TOO_SMALL, keystead_get_into(acme, "into", Z, 0, buffer, 4, &len, &error));
    CLAIM(len == 5 && buffer[0] == 7);
    DO(keystead_get_into(acme, "into", Z, 0, buffer, 8, &len, &error));
    CLAIM(len == 5 && memcmp(buffer, "five!\7\7\7", 8) == 0);
}

static void a_version_is_deleted_undeleted_destroyed(const keystead_organization *acme)
{
    keystead_secret *secret = NULL;
    keystead_version_list *versions = NULL;
    keystead_version_info info = { sizeof info, 0, 0, 0, 0, 0, 0, { NULL, 0 }, NULL, 0 };
    put(acme, "gone", "1");
    put(acme, "gone", "2");
    DO(keystead_delete(acme, "gone", Z, 1, &error));
    REFUSED(KEYSTEAD_VERSION_DELETED, keystead_get(acme, "gone", Z, 1, &secret, &error));
    CLAIM(secret == NULL);
    DO(keystead_undelete(acme, "gone", Z, 1, &error));
    DO(keystead_destroy(acme, "gone", Z, 1, &error));
    REFUSED(KEYSTEAD_VERSION_DESTROYED, keystead_undelete(acme, "gone", Z, 1, &error));
    REFUSED(KEYSTEAD_INVALID_ARGUMENT, keystead_delete(acme, "gone", Z, 0, &error));
    DO(keystead_history(acme, "gone", Z, 0, 10, &versions, &error));
    CLAIM(keystead_version_list_len(versions) == 2);
    DO(keystead_version_list_get(versions, 0, &info, &error));
    CLAIM(info.version == 1 && info.state == KEYSTEAD_VERSION_IS_DESTROYED && info.state_at_ms > 0);
    DO(keystead_version_list_get(versions, 1, &info, &error));
    CLAIM(info.version == 2 && info.state == KEYSTEAD_VERSION_LIVE && info.size_bytes == 1);
    REFUSED(KEYSTEAD_INVALID_ARGUMENT, keystead_version_list_get(versions, 2, &info, &error));
    keystead_version_list_free(versions);
    DO(keystead_set_retention(acme, "gone", Z, 1, &error));
}

static void a_batch_is_there_together_and_lists_page(const keystead_organization *acme)
{
    keystead_batch *batch = NULL;
    keystead_secret_list *list = NULL;
    keystead_secret_info info = { sizeof info, 0, 0, 0, { NULL, 0 }, 0, 0 };
    uint32_t versions[2] = { 0, 0 };
    DO(keystead_batch_new(&batch, &error));
    DO(keystead_batch_put(batch, "batch/1", Z, BYTES("one"), NULL, &error));
    REFUSED(KEYSTEAD_INVALID_PATH, keystead_batch_put(batch, "batch//2", Z, BYTES("two"), NULL, &error));
    DO(keystead_batch_put(batch, "batch/2", Z, BYTES("two"), NULL, &error));
    CLAIM(keystead_batch_len(batch) == 2);
    REFUSED(KEYSTEAD_BUFFER_TOO_SMALL, keystead_batch_commit(acme, batch, versions, 1, &error));
    DO(keystead_batch_commit(acme, batch, versions, 2, &error));
    CLAIM(versions[0] == 1 && versions[1] == 1 && keystead_batch_len(batch) == 0);
    keystead_batch_free(batch);
    DO(keystead_list(acme, "batch/", Z, NULL, 0, 1, &list, &error));
    CLAIM(keystead_secret_list_len(list) == 1 && strcmp(keystead_secret_list_next(list), "batch/1") == 0);
    DO(keystead_secret_list_get(list, 0, &info, &error));
    CLAIM(strcmp(info.path.data, "batch/1") == 0 && info.latest == 1 && info.updated_at_ms > 0);
    keystead_secret_list_free(list);
    DO(keystead_list(acme, "batch/", Z, "batch/1", Z, 10, &list, &error));
    CLAIM(keystead_secret_list_len(list) == 1 && keystead_secret_list_next(list) == NULL);
    keystead_secret_list_free(list);
}

/* 3 MB, since a writer commits at every MiB. */
#define LARGE 3000001

static void a_large_value_goes_through_in_parts(const keystead_organization *acme)
{
    static uint8_t part[65536];
    keystead_writer *writer = NULL;
    keystead_reader *reader = NULL;
    keystead_version_info info = { sizeof info, 0, 0, 0, 0, 0, 0, { NULL, 0 }, NULL, 0 };
    uint32_t version = 0;
    size_t at, len = 0, i;
    DO(keystead_writer_open(acme, "large", Z, NULL, &writer, &error));
    for (at = 0; at < LARGE; at += len) {
        len = LARGE - at < 65521 ? LARGE - at : 65521;
        for (i = 0; i < len; i++) {
            part[i] = (uint8_t)((at + i) * 31);
        }
        DO(keystead_writer_write(writer, part, len, &error));
    }
    DO(keystead_writer_finish(writer, &version, &error));
    REFUSED(KEYSTEAD_INVALID_ARGUMENT, keystead_writer_write(writer, part, 1, &error));
    keystead_writer_free(writer);
    DO(keystead_reader_open(acme, "large", Z, version, &reader, &error));
    DO(keystead_reader_info(reader, &info, &error));
    CLAIM(info.size_bytes == LARGE);
    REFUSED(KEYSTEAD_INVALID_ARGUMENT, keystead_reader_read(reader, part, 0, &len, &error));
    for (at = 0; at < LARGE; at += len) {
        DO(keystead_reader_read(reader, part, sizeof part, &len, &error));
        CLAIM(len > 0);
        for (i = 0; i < len; i++) {
            CLAIM(part[i] == (uint8_t)((at + i) * 31));
        }
    }
    DO(keystead_reader_read(reader, part, sizeof part, &len, &error));
    CLAIM(len == 0);
    keystead_reader_free(reader);
    DO(keystead_writer_open(acme, "never", Z, NULL, &writer, &error));
    DO(keystead_writer_write(writer, part, sizeof part, &error));
    keystead_writer_free(writer);
    REFUSED(KEYSTEAD_SECRET_NOT_FOUND, keystead_reader_open(acme, "never", Z, 0, &reader, &error));
}

static int32_t count_and_go_on(void *context, const keystead_rewrap_progress *progress)
{
    CLAIM(progress->struct_size >= sizeof *progress && progress->done <= progress->total);
    ++*(int *)context;
    return 0;
}

static void a_table_of_the_program_is_a_kms(keystead_store *store)
{
    keystead_organization *own = organization_of(store, "own");
    keystead_organization *alice = NULL;
    keystead_rewrap_job *job = NULL;
    keystead_rewrap_status *status = NULL;
    keystead_rewrap_progress progress;
    keystead_key_list *keys = NULL;
    keystead_key_info key = { sizeof key, 0, 0, 0, { NULL, 0 }, { NULL, 0 }, { NULL, 0 }, 0 };
    keystead_epoch_list *epochs = NULL;
    keystead_epoch epoch;
    keystead_audit_list *audit = NULL;
    keystead_audit_record record;
    keystead_audit_head head;
    keystead_secret *secret = NULL;
    keystead_error *error = NULL;
    size_t i, by_alice = 0;
    int told = 0;
    memset(&progress, 0, sizeof progress);
    progress.struct_size = sizeof progress;
    memset(&epoch, 0, sizeof epoch);
    epoch.struct_size = sizeof epoch;
    memset(&record, 0, sizeof record);
    record.struct_size = sizeof record;
    memset(&head, 0, sizeof head);
    head.struct_size = sizeof head;

    put(own, "x", "value");
    DO(keystead_rewrap_status_read(own, &status, &error));
    CLAIM(status == NULL);
    REFUSED(KEYSTEAD_NO_JOB, keystead_rewrap_job_open(own, &job, &error));
    DO(keystead_organization_acting_as(own, "alice", Z, "ticket 1", Z, &alice, &error));
    table_calls = 0;
    DO(keystead_key_add(alice, "cmk", Z, "own-kms", Z, "{}", Z, &job, &error));
    CLAIM(table_calls > 0 && keystead_rewrap_job_number(job) == 1);
    DO(keystead_rewrap_wait(job, 600000, count_and_go_on, &told, &status, &error));
    DO(keystead_rewrap_status_look(status, &progress, &error));
    CLAIM(told > 0 && progress.state == KEYSTEAD_REWRAP_DONE && progress.sources_len == 1);
    CLAIM(progress.sources[0].retired == 1 && progress.blocked.data == NULL);
    keystead_rewrap_status_free(status);
    keystead_rewrap_job_free(job);

    DO(keystead_key_list_read(own, &keys, &error));
    CLAIM(keystead_key_list_len(keys) == 2);
    DO(keystead_key_list_get(keys, 0, &key, &error));
    CLAIM(strcmp(key.name.data, "cmk") == 0 && key.is_default == 1 && strcmp(key.config_json.data, "{}") == 0);
    keystead_key_list_free(keys);
    DO(keystead_epoch_list_read(own, &epochs, &error));
    CLAIM(keystead_epoch_list_len(epochs) == 2);
    DO(keystead_epoch_list_get(epochs, 1, &epoch, &error));
    CLAIM(epoch.state == KEYSTEAD_EPOCH_ACTIVE && epoch.data_keys == 1 && strcmp(epoch.actor.data, "alice") == 0);
    CLAIM(epoch.wrapped_by_len == 1 && strcmp(epoch.wrapped_by[0].kms_key_id.data, "own:1") == 0);
    keystead_epoch_list_free(epochs);
    DO(keystead_audit_list_read(own, 0, 100, &audit, &error));
    for (i = 0; i < keystead_audit_list_len(audit); i++) {
        DO(keystead_audit_list_get(audit, i, &record, &error));
        by_alice += record.actor.data != NULL && strcmp(record.reason.data, "ticket 1") == 0;
        CLAIM(record.sequence == i + 1 && record.details_json.data[0] == '{' && record.hash.len == 64);
    }
    CLAIM(by_alice > 0);
    DO(keystead_audit_head_read(own, &head, &error));
    CLAIM(head.sequence == i && strlen(head.hash) == 64 && strcmp(head.hash, record.hash.data) == 0);
    keystead_audit_list_free(audit);

    /* Its owner takes the key away. */
    table_code = KEYSTEAD_BACKEND_KEY_DISABLED;
    DO(keystead_store_forget_epoch_keys(store, &error));
    CLAIM(keystead_get(own, "x", Z, 0, &secret, &error) == KEYSTEAD_KMS + KEYSTEAD_BACKEND_KEY_DISABLED);
    CLAIM(secret == NULL && keystead_error_class(error) == KEYSTEAD_CLASS_REVOKED);
    CLAIM(!keystead_error_is_retryable(error));
    keystead_error_free(error);
    /* An outage is told apart. */
    table_code = KEYSTEAD_BACKEND_THROTTLED;
    DO(keystead_store_forget_epoch_keys(store, &error));
    CLAIM(keystead_key_probe(own, "cmk", Z, &error) == KEYSTEAD_KMS + KEYSTEAD_BACKEND_THROTTLED);
    CLAIM(keystead_error_is_retryable(error) && keystead_error_retry_after_ms(error) == 1);
    keystead_error_free(error);
    table_code = KEYSTEAD_BACKEND_OK;
    DO(keystead_store_forget_epoch_keys(store, &error));
    DO(keystead_get(own, "x", Z, 0, &secret, &error));
    keystead_secret_free(secret);
    keystead_organization_free(alice);
    keystead_organization_free(own);
}

static void a_table_that_breaks_the_rules_is_refused(void)
{
    keystead_backend *backend = NULL;
    keystead_backend_api broken = table;
    REFUSED(KEYSTEAD_PLUGIN_REFUSED, keystead_backend_from_table(NULL, NULL, 0, NULL, 0, &backend, &error));
    broken.wrap = NULL;
    REFUSED(KEYSTEAD_PLUGIN_REFUSED, keystead_backend_from_table(&broken, NULL, 0, NULL, 0, &backend, &error));
    broken = table;
    broken.struct_size--;
    REFUSED(KEYSTEAD_PLUGIN_REFUSED, keystead_backend_from_table(&broken, NULL, 0, NULL, 0, &backend, &error));
    CLAIM(backend == NULL);
}

static void a_setting_that_is_no_json_is_not_quoted(void)
{
    keystead_backend *backend = NULL;
    keystead_error *error = NULL;
    CLAIM(keystead_backend_managed("{\"passphrase\": hunter2}", Z, &backend, &error) == KEYSTEAD_INVALID_ARGUMENT);
    CLAIM(strstr(keystead_error_message(error), "hunter2") == NULL);
    keystead_error_free(error);
}

static void a_newer_caller_is_told_what_an_old_library_cannot_do(const keystead_organization *acme)
{
    struct {
        keystead_put_options known;
        uint64_t newer[3]; /* more than the grown library has */
    } options;
    struct {
        keystead_secret_view known;
        uint64_t newer[3];
    } view;
    keystead_secret *secret = NULL;
    memset(&options, 0, sizeof options);
    options.known.struct_size = sizeof options;
    DO(keystead_put(acme, "new", Z, BYTES("1"), &options.known, NULL, &error));
    options.newer[2] = 1;
    REFUSED(KEYSTEAD_UNSUPPORTED_OPTION,
            keystead_put(acme, "new", Z, BYTES("2"), &options.known, NULL, &error));
    options.known.struct_size = 4;
    REFUSED(KEYSTEAD_INVALID_ARGUMENT, keystead_put(acme, "new", Z, BYTES("2"), &options.known, NULL, &error));
    DO(keystead_get(acme, "new", Z, 0, &secret, &error));
    memset(&view, 0xff, sizeof view);
    view.known.struct_size = sizeof view;
    DO(keystead_secret_look(secret, &view.known, &error));
    CLAIM(view.known.version == 1 && view.newer[2] == 0 && view.known.struct_size == sizeof view);
    /* An older caller's memory behind the struct is left alone. */
    memset(&view, 0xff, sizeof view);
    view.known.struct_size = sizeof view.known;
    DO(keystead_secret_look(secret, &view.known, &error));
    CLAIM(view.known.len == 1 && view.newer[0] == ~(uint64_t)0);
    keystead_secret_free(secret);
}

static void handles_are_freed_in_any_order(const char *directory)
{
    keystead_backend *managed = managed_in(directory);
    keystead_store *store = store_in(directory, "order.keystead", managed, NULL);
    keystead_organization *acme = organization_of(store, "acme");
    keystead_reader *reader = NULL;
    keystead_store *again = NULL;
    uint8_t part[8];
    size_t len = 0;
    char path[4200];
    sprintf(path, "%.4000s/order.keystead", directory);
    put(acme, "x", "value");
    DO(keystead_reader_open(acme, "x", Z, 0, &reader, &error));
    keystead_backend_free(managed);
    keystead_store_free(store);
    put(acme, "y", "value");
    keystead_organization_free(acme);
    DO(keystead_reader_read(reader, part, sizeof part, &len, &error));
    CLAIM(len == 5);
    REFUSED(KEYSTEAD_ALREADY_OPEN, keystead_store_open(path, Z, NULL, &again, &error));
    keystead_reader_free(reader);
    DO(keystead_store_open(path, Z, NULL, &again, &error));
    DO(keystead_store_close(again, &error));
    REFUSED(KEYSTEAD_CLOSED, keystead_verify(again, 0, NULL, NULL, (keystead_verify_report **)&reader, &error));
    REFUSED(KEYSTEAD_CLOSED, keystead_organization_open(again, "acme", Z, &acme, &error));
    keystead_store_free(again);
}

/* A KMS that answers while that of the table does not. */
static int32_t steady_wrap(keystead_backend_instance *instance, const keystead_backend_call *call,
                           const keystead_backend_context *context, const keystead_backend_input *plaintext,
                           keystead_backend_wrapped_out *out, keystead_backend_error *error)
{
    (void)instance;
    (void)call;
    (void)context;
    (void)error;
    table_put(&out->key_id, "steady:1", 8);
    return table_turn(plaintext, &out->blob);
}

static int32_t steady_unwrap(keystead_backend_instance *instance, const keystead_backend_call *call,
                             const keystead_backend_context *context, const keystead_backend_wrapped *wrapped,
                             keystead_backend_output *out, keystead_backend_error *error)
{
    (void)instance;
    (void)call;
    (void)context;
    (void)error;
    return table_turn(&wrapped->blob, out);
}

static const keystead_backend_api steady = {
    sizeof(keystead_backend_api), KEYSTEAD_BACKEND_ABI, 0, &table_self, table_describe, table_open, table_close,
    table_status, steady_wrap, steady_unwrap, NULL, NULL
};

static void reads(keystead_store *store, const keystead_organization *organization, int32_t code)
{
    keystead_secret *secret = NULL;
    DO(keystead_store_forget_epoch_keys(store, &error));
    CLAIM(keystead_get(organization, "x", Z, 0, &secret, NULL) == code && (secret != NULL) == (code == KEYSTEAD_OK));
    keystead_secret_free(secret);
}

static void wait_for(keystead_rewrap_job *job)
{
    DO(keystead_rewrap_wait(job, 600000, NULL, NULL, NULL, &error));
    keystead_rewrap_job_free(job);
}

static void a_second_key_serves_in_an_outage_of_the_first_and_does_not_get_around_its_revocation(const char *directory)
{
    const keystead_backend *backends[3];
    keystead_backend *managed = managed_in(directory), *own = NULL, *paris = NULL;
    keystead_store_options options;
    keystead_store *store = NULL;
    keystead_organization *acme;
    keystead_rewrap_job *job = NULL;
    keystead_second_key *second = NULL;
    keystead_second_key_status standing;
    char path[4200];
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    memset(&standing, 0, sizeof standing);
    standing.struct_size = sizeof standing;
    DO(keystead_backend_from_table(&table, NULL, 0, NULL, 0, &own, &error));
    DO(keystead_backend_from_table(&steady, "steady-kms", Z, NULL, 0, &paris, &error));
    backends[0] = managed;
    backends[1] = own;
    backends[2] = paris;
    options.backends = backends;
    options.backends_len = 3;
    sprintf(path, "%.4000s/second.keystead", directory);
    DO(keystead_store_create(path, Z, &options, &store, &error));
    acme = organization_of(store, "acme");
    put(acme, "x", "value");
    DO(keystead_key_add(acme, "cmk", Z, "own-kms", Z, NULL, 0, &job, &error));
    wait_for(job);
    DO(keystead_key_add(acme, "paris", Z, "steady-kms", Z, NULL, 0, NULL, &error));

    DO(keystead_second_key_read(acme, &second, &error));
    CLAIM(second == NULL);
    REFUSED(KEYSTEAD_INVALID_ARGUMENT, keystead_key_remove_second(acme, &error));
    REFUSED(KEYSTEAD_KEY_NOT_FOUND, keystead_key_set_second(acme, "none", Z, 0, &job, &error));
    REFUSED(KEYSTEAD_KEY_REFUSED, keystead_key_set_second(acme, "cmk", Z, 0, &job, &error));
    REFUSED(KEYSTEAD_KEY_REFUSED, keystead_key_set_second(acme, "managed", Z, 0, &job, &error));
    DO(keystead_key_set_second(acme, "paris", Z, 0, &job, &error));
    wait_for(job);
    DO(keystead_second_key_read(acme, &second, &error));
    DO(keystead_second_key_look(second, &standing, &error));
    CLAIM(strcmp(standing.key.data, "paris") == 0 && standing.either_opens == 0);
    CLAIM(standing.wrapped == 1 && standing.missing == 0 && standing.blocked.data == NULL);
    CLAIM(standing.standing_in.data == NULL && standing.standing_in_since_ms == 0);
    keystead_second_key_free(second);

    table_code = KEYSTEAD_BACKEND_THROTTLED;
    reads(store, acme, KEYSTEAD_OK);
    DO(keystead_second_key_read(acme, &second, &error));
    DO(keystead_second_key_look(second, &standing, &error));
    CLAIM(strcmp(standing.standing_in.data, "paris") == 0 && standing.standing_in_since_ms > 0);
    CLAIM(strstr(standing.standing_in_because.data, "cmk") != NULL);
    keystead_second_key_free(second);
    table_code = KEYSTEAD_BACKEND_KEY_DISABLED;
    reads(store, acme, KEYSTEAD_KMS + KEYSTEAD_BACKEND_KEY_DISABLED);
    table_code = KEYSTEAD_BACKEND_OK;
    reads(store, acme, KEYSTEAD_OK);

    /* Removed, it opens nothing; and then its owner says that either opens. */
    DO(keystead_key_remove_second(acme, &error));
    DO(keystead_second_key_read(acme, &second, &error));
    CLAIM(second == NULL);
    table_code = KEYSTEAD_BACKEND_THROTTLED;
    reads(store, acme, KEYSTEAD_KMS + KEYSTEAD_BACKEND_THROTTLED);
    table_code = KEYSTEAD_BACKEND_OK;
    reads(store, acme, KEYSTEAD_OK);
    DO(keystead_key_set_second(acme, "paris", Z, 1, &job, &error));
    wait_for(job);
    table_code = KEYSTEAD_BACKEND_KEY_DISABLED;
    reads(store, acme, KEYSTEAD_OK);
    table_code = KEYSTEAD_BACKEND_OK;

    keystead_organization_free(acme);
    keystead_store_free(store);
    keystead_backend_free(paris);
    keystead_backend_free(own);
    keystead_backend_free(managed);
}

static void copy_file(const char *from, const char *to)
{
    static char part[65536];
    size_t len;
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    CLAIM(in != NULL && out != NULL);
    while ((len = fread(part, 1, sizeof part, in)) > 0) {
        CLAIM(fwrite(part, 1, len, out) == len);
    }
    CLAIM(fclose(in) == 0 && fclose(out) == 0);
}

static void a_store_that_was_rolled_back_is_refused_by_its_checkpoint(const char *directory)
{
    keystead_backend *managed = managed_in(directory);
    keystead_store *store = store_in(directory, "pinned.keystead", managed, NULL);
    keystead_organization *acme = organization_of(store, "acme");
    keystead_checkpoint *checkpoint = NULL;
    keystead_store_options options;
    char path[4200], old[4200], other[4200];
    sprintf(path, "%.4000s/pinned.keystead", directory);
    sprintf(old, "%.4000s/old.keystead", directory);
    sprintf(other, "%.4000s/order.keystead", directory);
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    put(acme, "x", "old");
    DO(keystead_store_close(store, &error));
    keystead_organization_free(acme);
    keystead_store_free(store);
    copy_file(path, old);
    DO(keystead_store_open(path, Z, NULL, &store, &error));
    DO(keystead_organization_open(store, "acme", Z, &acme, &error));
    DO(keystead_delete(acme, "x", Z, 1, &error));
    DO(keystead_checkpoint_take(store, &checkpoint, &error));
    CLAIM(strstr(keystead_checkpoint_json(checkpoint), "\"acme\"") != NULL);
    keystead_organization_free(acme);
    keystead_store_free(store);

    options.checkpoint_json = keystead_checkpoint_json(checkpoint);
    options.checkpoint_json_len = Z;
    DO(keystead_store_open(path, Z, &options, &store, &error));
    keystead_store_free(store);
    REFUSED(KEYSTEAD_BEHIND_CHECKPOINT, keystead_store_open(old, Z, &options, &store, &error));
    CLAIM(store == NULL && keystead_class_of(KEYSTEAD_BEHIND_CHECKPOINT) == KEYSTEAD_CLASS_INTEGRITY);
    REFUSED(KEYSTEAD_CHECKPOINT_OF_ANOTHER_STORE, keystead_store_open(other, Z, &options, &store, &error));
    options.checkpoint_json = "{\"store\": 1}";
    REFUSED(KEYSTEAD_INVALID_ARGUMENT, keystead_store_open(path, Z, &options, &store, &error));
    keystead_checkpoint_free(checkpoint);
    keystead_backend_free(managed);
}

static void count_steps(void *context, const keystead_salvage_step *step)
{
    CLAIM(step->struct_size >= sizeof *step && step->phase.len > 0 && step->phase.data[step->phase.len] == 0);
    CLAIM(step->total == 0 || step->done <= step->total);
    ++*(int *)context;
}

/* Overwrites a stretch of a file. */
static void damage(const char *path, long from, long len)
{
    static const char nothing[4096] = { 0 };
    FILE *file = fopen(path, "r+b");
    CLAIM(file != NULL && fseek(file, from, SEEK_SET) == 0);
    for (; len > 0; len -= (long)sizeof nothing) {
        CLAIM(fwrite(nothing, 1, sizeof nothing, file) == sizeof nothing);
    }
    CLAIM(fclose(file) == 0);
}

static void what_is_whole_in_a_damaged_file_is_salvaged_and_what_is_lost_is_named(const char *directory)
{
    static uint8_t large[LARGE];
    keystead_backend *managed = managed_in(directory);
    const keystead_backend *backends[1];
    keystead_store *store = store_in(directory, "whole.keystead", managed, NULL);
    keystead_organization *acme = organization_of(store, "acme");
    keystead_store_options options;
    keystead_salvage_options how;
    keystead_salvage_report *report = NULL;
    keystead_salvage_counts counts;
    keystead_loss loss;
    keystead_secret *secret = NULL;
    uint8_t id[16];
    char whole[4200], damaged[4200], salvaged[4200];
    int steps = 0;
    size_t i, large_is_lost = 0;
    sprintf(whole, "%.4000s/whole.keystead", directory);
    sprintf(damaged, "%.4000s/damaged.keystead", directory);
    sprintf(salvaged, "%.4000s/salvaged.keystead", directory);
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    backends[0] = managed;
    options.backends = backends;
    options.backends_len = 1;
    memset(&how, 0, sizeof how);
    how.struct_size = sizeof how;
    memset(&counts, 0, sizeof counts);
    counts.struct_size = sizeof counts;
    memset(&loss, 0, sizeof loss);
    loss.struct_size = sizeof loss;
    put(acme, "small", "value");
    DO(keystead_put(acme, "large", Z, large, sizeof large, NULL, NULL, &error));
    DO(keystead_store_id(store, id, &error));
    REFUSED(KEYSTEAD_ALREADY_OPEN,
            keystead_salvage(whole, Z, salvaged, Z, &options, &how, NULL, NULL, &report, &error));
    DO(keystead_store_close(store, &error));
    keystead_organization_free(acme);
    keystead_store_free(store);
    copy_file(whole, damaged);

    DO(keystead_salvage(whole, Z, salvaged, Z, &options, NULL, count_steps, &steps, &report, &error));
    DO(keystead_salvage_report_counts(report, &counts, &error));
    CLAIM(steps > 0 && counts.lost == 0 && counts.unopened == 0 && counts.organizations == 1 && counts.secrets == 2);
    CLAIM(counts.versions == 2 && counts.opened == 2 && memcmp(counts.store_id, id, sizeof id) == 0);
    REFUSED(KEYSTEAD_INVALID_ARGUMENT, keystead_salvage_report_lost(report, 0, &loss, &error));
    keystead_salvage_report_free(report);
    REFUSED(KEYSTEAD_STORE_EXISTS,
            keystead_salvage(whole, Z, salvaged, Z, &options, NULL, NULL, NULL, &report, &error));
    CLAIM(report == NULL && remove(salvaged) == 0);
    options.checkpoint_json = "{}";
    options.checkpoint_json_len = Z;
    REFUSED(KEYSTEAD_INVALID_ARGUMENT,
            keystead_salvage(whole, Z, salvaged, Z, &options, NULL, NULL, NULL, &report, &error));
    options.checkpoint_json = NULL;
    options.checkpoint_json_len = 0;

    damage(damaged, 5 << 20, 1 << 20); /* behind the journal: in the middle of the large value */
    damage(damaged, 0, 8192); /* its header, both copies */
    REFUSED(KEYSTEAD_NOT_A_STORE,
            keystead_salvage(damaged, Z, salvaged, Z, &options, NULL, NULL, NULL, &report, &error));
    how.store_id = id;
    DO(keystead_salvage(damaged, Z, salvaged, Z, &options, &how, NULL, NULL, &report, &error));
    DO(keystead_salvage_report_counts(report, &counts, &error));
    CLAIM(counts.lost > 0 && memcmp(counts.store_id, id, sizeof id) == 0);
    for (i = 0; i < counts.lost; i++) {
        DO(keystead_salvage_report_lost(report, i, &loss, &error));
        CLAIM(loss.kind >= KEYSTEAD_LOST_VERSION && loss.what.len > 0);
        large_is_lost += loss.kind == KEYSTEAD_LOST_VERSION && loss.version == 1 && loss.path.data != NULL
            && strcmp(loss.path.data, "large") == 0 && strcmp(loss.organization.data, "acme") == 0;
    }
    CLAIM(large_is_lost == 1);
    keystead_salvage_report_free(report);
    DO(keystead_store_open(salvaged, Z, &options, &store, &error));
    DO(keystead_organization_open(store, "acme", Z, &acme, &error));
    DO(keystead_get(acme, "small", Z, 0, &secret, &error));
    keystead_secret_free(secret);
    REFUSED(KEYSTEAD_VERSION_LOST, keystead_get(acme, "large", Z, 0, &secret, &error));
    keystead_organization_free(acme);
    keystead_store_free(store);
    keystead_backend_free(managed);
}

static void a_keyring_is_made_rotated_disabled_and_resealed(const char *directory)
{
    keystead_keyring_options sealing;
    keystead_keyring *keyring = NULL, *resealed = NULL;
    keystead_keyring_status *status = NULL;
    keystead_keyring_info info;
    keystead_backend *managed = NULL;
    keystead_store *store;
    keystead_organization *acme;
    uint32_t version = 0;
    char path[4200];
    sprintf(path, "%.4000s/sealed.keyring", directory);
    memset(&sealing, 0, sizeof sealing);
    sealing.struct_size = sizeof sealing;
    sealing.passphrase = (const uint8_t *)"correct horse";
    sealing.passphrase_len = 13;
    sealing.kdf_memory_kib = 64; /* a real one takes longer than these programs have under valgrind */
    sealing.kdf_passes = 1;
    sealing.kdf_lanes = 1;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    DO(keystead_keyring_create(path, Z, &sealing, &keyring, &error));
    REFUSED(KEYSTEAD_KMS + KEYSTEAD_BACKEND_INVALID_CONFIG,
            keystead_keyring_create(path, Z, &sealing, &resealed, &error));
    REFUSED(KEYSTEAD_KMS + KEYSTEAD_BACKEND_UNAUTHENTICATED,
            keystead_keyring_open(path, Z, NULL, &resealed, &error));

    DO(keystead_keyring_backend(keyring, &managed, &error));
    CLAIM(strcmp(keystead_backend_name(managed), "managed") == 0);
    store = store_in(directory, "sealed.keystead", managed, NULL);
    acme = organization_of(store, "acme");
    put(acme, "x", "value");
    DO(keystead_keyring_rotate(keyring, &version, &error));
    CLAIM(version == 2);
    DO(keystead_keyring_read(keyring, &status, &error));
    DO(keystead_keyring_status_look(status, &info, &error));
    CLAIM(info.enabled == 1 && info.sealed == 1 && info.id.len == 32 && info.versions_len == 2);
    CLAIM(info.versions[1].number == 2 && info.versions[1].created_at_ms > 0);
    keystead_keyring_status_free(status);
    reads(store, acme, KEYSTEAD_OK);
    DO(keystead_keyring_disable(keyring, &error));
    reads(store, acme, KEYSTEAD_KMS + KEYSTEAD_BACKEND_KEY_DISABLED);
    DO(keystead_keyring_enable(keyring, &error));
    reads(store, acme, KEYSTEAD_OK);

    sealing.passphrase = NULL;
    REFUSED(KEYSTEAD_INVALID_ARGUMENT, keystead_keyring_reseal(keyring, &sealing, &resealed, &error));
    sealing.passphrase = (const uint8_t *)"battery staple";
    sealing.passphrase_len = 0;
    REFUSED(KEYSTEAD_KMS + KEYSTEAD_BACKEND_INVALID_CONFIG,
            keystead_keyring_reseal(keyring, &sealing, &resealed, &error));
    sealing.passphrase_len = 14;
    DO(keystead_keyring_reseal(keyring, &sealing, &resealed, &error));
    reads(store, acme, KEYSTEAD_KMS + KEYSTEAD_BACKEND_UNAUTHENTICATED);
    REFUSED(KEYSTEAD_KMS + KEYSTEAD_BACKEND_UNAUTHENTICATED, keystead_keyring_rotate(keyring, NULL, &error));
    DO(keystead_keyring_rotate(resealed, &version, &error));
    CLAIM(version == 3);
    keystead_keyring_free(keyring);
    keystead_keyring_free(resealed);
    keystead_organization_free(acme);
    keystead_store_free(store);
    keystead_backend_free(managed);
}

static void a_plugin_that_waits_for_its_first_use_is_refused_there(const char *directory)
{
    static const uint8_t digest[32] = { 0 };
    keystead_backend *managed = managed_in(directory), *late = NULL;
    keystead_plugin_options options;
    keystead_store *store;
    keystead_organization *acme;
    keystead_rewrap_job *job = NULL;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.at_first_use = 1;
    REFUSED(KEYSTEAD_PLUGIN_REFUSED, keystead_backend_load("/no/such/plugin.so", Z, &options, &late, &error));
    options.digests = digest;
    options.digests_len = 1;
    REFUSED(KEYSTEAD_PLUGIN_REFUSED, keystead_backend_load("no/such/plugin.so", Z, &options, &late, &error));
    REFUSED(KEYSTEAD_INVALID_ARGUMENT, keystead_backend_load("/no/such/plugin.so", Z, &options, &late, &error));
    options.name = "late-kms";
    options.name_len = Z;
    DO(keystead_backend_load("/no/such/plugin.so", Z, &options, &late, &error));
    CLAIM(strcmp(keystead_backend_name(late), "late-kms") == 0);
    CLAIM(strcmp(keystead_backend_description_json(late), "{}") == 0);
    store = store_in(directory, "late.keystead", managed, late);
    acme = organization_of(store, "acme");
    put(acme, "x", "value");
    REFUSED(KEYSTEAD_KMS + KEYSTEAD_BACKEND_INVALID_CONFIG,
            keystead_key_add(acme, "cmk", Z, "late-kms", Z, NULL, 0, &job, &error));
    CLAIM(job == NULL);
    reads(store, acme, KEYSTEAD_OK);
    keystead_organization_free(acme);
    keystead_store_free(store);
    keystead_backend_free(late);
    keystead_backend_free(managed);
}

static int told_of_a_keyring = 0, told_of_a_stand_in = 0;

static void look_at_the_log(void *context, const keystead_log_record *record)
{
    const int of_acme = strstr(record->fields_json.data, "acme") != NULL;
    CLAIM(context == &told_of_a_keyring && record->struct_size >= sizeof *record);
    CLAIM(record->level >= KEYSTEAD_LOG_ERROR && record->level <= KEYSTEAD_LOG_INFO);
    CLAIM(strncmp(record->target.data, "keystead", 8) == 0 && strlen(record->message.data) == record->message.len);
    told_of_a_keyring += of_acme && strstr(record->message.data, "made the keyring") != NULL;
    told_of_a_stand_in += of_acme && strstr(record->message.data, "stands in") != NULL;
}

static keystead_log *its_own_log = NULL;
static int its_own_log_has_ended = 0;

static void end_the_log(void *context, const keystead_log_record *record)
{
    keystead_log *log;
    CLAIM(context == NULL && record->message.len > 0);
    while ((log = __atomic_load_n(&its_own_log, __ATOMIC_SEQ_CST)) == NULL) {
        usleep(1000); /* who opened it has not told us yet */
    }
    keystead_log_free(log);
    CLAIM(__atomic_add_fetch(&its_own_log_has_ended, 1, __ATOMIC_SEQ_CST) == 1);
}

static void a_log_is_told_what_happens_until_it_ends(keystead_log *log, const char *directory)
{
    keystead_log *other = NULL;
    keystead_backend *managed = NULL;
    keystead_store *store;
    char settings[4200];
    int i;
    REFUSED(KEYSTEAD_LOG_TAKEN, keystead_log_open(KEYSTEAD_LOG_WARN, look_at_the_log, NULL, &other, &error));
    CLAIM(other == NULL && keystead_class_of(KEYSTEAD_LOG_TAKEN) == KEYSTEAD_CLASS_CONFLICT);
    keystead_log_free(log);
    CLAIM(told_of_a_keyring == 1 && told_of_a_stand_in >= 1);
    REFUSED(KEYSTEAD_INVALID_ARGUMENT, keystead_log_open(KEYSTEAD_LOG_WARN, NULL, NULL, &other, &error));
    REFUSED(KEYSTEAD_INVALID_ARGUMENT, keystead_log_open(0, look_at_the_log, NULL, &other, &error));

    /* Also by its own callback. */
    DO(keystead_log_open(KEYSTEAD_LOG_WARN, end_the_log, NULL, &other, &error));
    sprintf(settings, "{\"keyring\":\"%.4000s/new.keyring\"}", directory);
    DO(keystead_backend_managed(settings, Z, &managed, &error));
    store = store_in(directory, "log.keystead", managed, NULL);
    keystead_organization_free(organization_of(store, "acme"));
    __atomic_store_n(&its_own_log, other, __ATOMIC_SEQ_CST);
    for (i = 0; i < 600000 && __atomic_load_n(&its_own_log_has_ended, __ATOMIC_SEQ_CST) == 0; i++) {
        usleep(1000);
    }
    DO(keystead_log_open(KEYSTEAD_LOG_ERROR, look_at_the_log, NULL, &other, &error));
    keystead_log_free(other);
    CLAIM(__atomic_load_n(&its_own_log_has_ended, __ATOMIC_SEQ_CST) == 1);
    keystead_store_free(store);
    keystead_backend_free(managed);
}

static void the_child_of_a_fork_is_told_and_does_no_harm(const keystead_organization *acme, keystead_log *log)
{
    int pipes[2];
    int32_t code = KEYSTEAD_OK;
    keystead_log *other = NULL;
    pid_t child;
    CLAIM(pipe(pipes) == 0);
    child = fork();
    if (child == 0) {
        code = keystead_put(acme, "child", Z, BYTES("x"), NULL, NULL, NULL);
        keystead_organization_free((keystead_organization *)acme);
        keystead_log_free(log);
        if (keystead_log_open(KEYSTEAD_LOG_WARN, look_at_the_log, NULL, &other, NULL) != KEYSTEAD_FORKED) {
            code = KEYSTEAD_OK;
        }
        CLAIM(write(pipes[1], &code, sizeof code) == sizeof code);
        kill(getpid(), SIGKILL); /* a checker of leaks would count the parent's objects as the child's */
    }
    CLAIM(read(pipes[0], &code, sizeof code) == sizeof code && code == KEYSTEAD_FORKED);
    CLAIM(waitpid(child, NULL, 0) == child && close(pipes[0]) == 0 && close(pipes[1]) == 0);
    put(acme, "parent", "x");
}

static void everything_verifies(const keystead_store *store)
{
    keystead_verify_report *report = NULL;
    keystead_verify_counts counts;
    memset(&counts, 0, sizeof counts);
    counts.struct_size = sizeof counts;
    DO(keystead_verify(store, KEYSTEAD_VERIFY_OPEN_VALUES, NULL, NULL, &report, &error));
    DO(keystead_verify_report_counts(report, &counts, &error));
    CLAIM(counts.problems == 0 && counts.unopened == 0 && counts.values_opened > 5 && counts.organizations == 2);
    CLAIM(counts.complete == 1 && counts.blocks > 100 && counts.chunks > 1);
    CLAIM(counts.wraps > 1);
    /* A caller of the first version has room for the first counts alone. */
    memset(&counts, 0xff, sizeof counts);
    counts.struct_size = offsetof(keystead_verify_counts, blocks);
    DO(keystead_verify_report_counts(report, &counts, &error));
    CLAIM(counts.problems == 0 && counts.organizations == 2 && counts.blocks == ~(uint64_t)0);
    keystead_verify_report_free(report);
    REFUSED(KEYSTEAD_INVALID_ARGUMENT, keystead_verify(store, 2, NULL, NULL, &report, &error));
}

static void organizations_are_listed(const keystead_store *store)
{
    keystead_organization_list *list = NULL;
    keystead_organization_info info = { sizeof info, 0, { NULL, 0 }, 0, 0 };
    DO(keystead_organization_list_read(store, NULL, 0, 1, &list, &error));
    DO(keystead_organization_list_get(list, 0, &info, &error));
    CLAIM(strcmp(info.name.data, "acme") == 0 && info.secrets > 0);
    CLAIM(strcmp(keystead_organization_list_next(list), "acme") == 0);
    keystead_organization_list_free(list);
}

int main(int argc, char **argv)
{
    keystead_backend *managed, *own = NULL;
    keystead_store *store;
    keystead_organization *acme;
    keystead_log *log = NULL;
    CLAIM(argc == 2 && keystead_abi_version() == KEYSTEAD_ABI_VERSION);
    DO(keystead_log_open(KEYSTEAD_LOG_INFO, look_at_the_log, &told_of_a_keyring, &log, &error));
    managed = managed_in(argv[1]);
    DO(keystead_backend_from_table(&table, NULL, 0, NULL, 0, &own, &error));
    CLAIM(strcmp(keystead_backend_name(own), "own-kms") == 0);
    store = store_in(argv[1], "claims.keystead", managed, own);
    acme = organization_of(store, "acme");
    CLAIM(strcmp(keystead_organization_name(acme), "acme") == 0);

    a_value_comes_back_with_its_labels(acme);
    a_buffer_of_the_caller_is_filled_or_left_as_it_was(acme);
    a_version_is_deleted_undeleted_destroyed(acme);
    a_batch_is_there_together_and_lists_page(acme);
    a_large_value_goes_through_in_parts(acme);
    a_table_of_the_program_is_a_kms(store);
    a_table_that_breaks_the_rules_is_refused();
    a_setting_that_is_no_json_is_not_quoted();
    a_newer_caller_is_told_what_an_old_library_cannot_do(acme);
    handles_are_freed_in_any_order(argv[1]);
    a_second_key_serves_in_an_outage_of_the_first_and_does_not_get_around_its_revocation(argv[1]);
    a_store_that_was_rolled_back_is_refused_by_its_checkpoint(argv[1]);
    a_plugin_that_waits_for_its_first_use_is_refused_there(argv[1]);
    what_is_whole_in_a_damaged_file_is_salvaged_and_what_is_lost_is_named(argv[1]);
    a_keyring_is_made_rotated_disabled_and_resealed(argv[1]);
    the_child_of_a_fork_is_told_and_does_no_harm(acme, log);
    a_log_is_told_what_happens_until_it_ends(log, argv[1]);
    organizations_are_listed(store);
    everything_verifies(store);

    keystead_organization_free(acme);
    keystead_store_free(store);
    keystead_backend_free(own);
    keystead_backend_free(managed);
    puts("every claim holds");
    return 0;
}
