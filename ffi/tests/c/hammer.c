/* Many threads on the same handles at once, opening and closing others meanwhile, while everything is re-wrapped again and
 * again: hammer DIRECTORY. With PLANTED_RACE the program breaks the rules in one place, which ThreadSanitizer must notice. */
#include "claims.h"
#include "table.h"

#include <pthread.h>

#define THREADS 8
#define ROUNDS 40

static const keystead_store *store = NULL;
static const keystead_organization *acme = NULL;
static keystead_batch *batch = NULL;
#ifdef PLANTED_RACE
static uint8_t of_all[64]; /* one buffer for all threads: the library writes to it for each of them */
#endif

/* What is put is got, by a handle that only this thread has, and by the one that all have. */
static void puts_and_gets(const char *path, const char *value)
{
    keystead_organization *own = NULL;
    keystead_secret *secret = NULL;
    uint8_t buffer[64];
    size_t len = 0;
    DO(keystead_organization_open(store, "acme", Z, &own, &error));
    DO(keystead_put(own, path, Z, BYTES(value), NULL, NULL, &error));
    DO(keystead_get(acme, path, Z, 0, &secret, &error));
    CLAIM(keystead_secret_len(secret) == strlen(value));
    CLAIM(memcmp(keystead_secret_data(secret), value, strlen(value)) == 0);
    DO(keystead_get_into(own, path, Z, 0, buffer, sizeof buffer, &len, &error));
    CLAIM(len == strlen(value) && memcmp(buffer, value, len) == 0);
    keystead_organization_free(own);
    keystead_secret_free(secret); /* needs its organization no longer */
    DO(keystead_put(acme, "shared", Z, BYTES(value), NULL, NULL, &error));
#ifdef PLANTED_RACE
    DO(keystead_get_into(acme, "shared", Z, 0, of_all, sizeof of_all, &len, &error));
#endif
}

static void streams(const char *path, const char *value)
{
    keystead_writer *writer = NULL;
    keystead_reader *reader = NULL;
    uint8_t part[64];
    size_t len = 0;
    DO(keystead_writer_open(acme, path, Z, NULL, &writer, &error));
    DO(keystead_writer_write(writer, BYTES(value), &error));
    DO(keystead_writer_finish(writer, NULL, &error));
    keystead_writer_free(writer);
    DO(keystead_reader_open(acme, path, Z, 0, &reader, &error));
    DO(keystead_reader_read(reader, part, sizeof part, &len, &error));
    CLAIM(len == strlen(value) && memcmp(part, value, len) == 0);
    keystead_reader_free(reader);
}

/* One batch for all: what one thread puts, another one may commit. */
static void batches(const char *path, const char *value)
{
    keystead_error *error = NULL;
    int32_t code;
    DO(keystead_batch_put(batch, path, Z, BYTES(value), NULL, &error));
    code = keystead_batch_commit(acme, batch, NULL, 0, &error);
    CLAIM(code == KEYSTEAD_OK || code == KEYSTEAD_INVALID_ARGUMENT);
    keystead_error_free(error);
}

static void looks(void)
{
    keystead_secret_list *secrets = NULL;
    keystead_key_list *keys = NULL;
    keystead_epoch_list *epochs = NULL;
    keystead_audit_list *audit = NULL;
    keystead_rewrap_status *status = NULL;
    keystead_secret_info info;
    size_t i;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    DO(keystead_list(acme, NULL, 0, NULL, 0, 100, &secrets, &error));
    CLAIM(keystead_secret_list_len(secrets) > 0);
    for (i = 0; i < keystead_secret_list_len(secrets); i++) {
        DO(keystead_secret_list_get(secrets, i, &info, &error));
        CLAIM(info.latest > 0);
    }
    DO(keystead_key_list_read(acme, &keys, &error));
    DO(keystead_epoch_list_read(acme, &epochs, &error));
    CLAIM(keystead_epoch_list_len(epochs) >= keystead_key_list_len(keys));
    DO(keystead_audit_list_read(acme, 0, 100, &audit, &error));
    CLAIM(keystead_audit_list_len(audit) > 0);
    DO(keystead_rewrap_status_read(acme, &status, &error));
    keystead_rewrap_status_free(status);
    keystead_audit_list_free(audit);
    keystead_epoch_list_free(epochs);
    keystead_key_list_free(keys);
    keystead_secret_list_free(secrets);
}

static void *lives(void *given)
{
    const int number = *(const int *)given;
    char path[32], value[32];
    int i;
    for (i = 0; i < ROUNDS; i++) {
        sprintf(value, "value %d", i);
        sprintf(path, "own/%d", number);
        puts_and_gets(path, value);
        sprintf(path, "streamed/%d", number);
        streams(path, value);
        sprintf(path, "batch/%d", number);
        batches(path, value);
        looks();
        if (i % 8 == number) {
            DO(keystead_store_forget_epoch_keys(store, &error));
        }
    }
    return NULL;
}

static int over = 0;

static void count(void *context, const keystead_log_record *record)
{
    CLAIM(record->message.len > 0);
    ++*(int *)context; /* one record at a time, and none after the end */
}

static void *logs_come_and_go(void *given)
{
    (void)given;
    do {
        keystead_log *log = NULL;
        int told = 0;
        DO(keystead_log_open(KEYSTEAD_LOG_DEBUG, count, &told, &log, &error));
        keystead_log_free(log);
        CLAIM(told >= 0);
    } while (!__atomic_load_n(&over, __ATOMIC_RELAXED));
    return NULL;
}

int main(int argc, char **argv)
{
    keystead_backend *managed, *own = NULL;
    keystead_store *opened;
    keystead_organization *organization = NULL;
    keystead_rewrap_job *job = NULL;
    keystead_version_list *versions = NULL;
    keystead_verify_report *report = NULL;
    keystead_verify_counts counts;
    pthread_t threads[THREADS], logs;
    int numbers[THREADS], i;
    CLAIM(argc == 2);
    CLAIM(pthread_create(&logs, NULL, logs_come_and_go, NULL) == 0);
    managed = managed_in(argv[1]);
    DO(keystead_backend_from_table(&table, NULL, 0, NULL, 0, &own, &error));
    opened = store_in(argv[1], "hammer.keystead", managed, own);
    store = opened;
    DO(keystead_organization_create(store, "acme", Z, &organization, &error));
    acme = organization;
    DO(keystead_batch_new(&batch, &error));
    for (i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CLAIM(pthread_create(&threads[i], NULL, lives, &numbers[i]) == 0);
    }
    DO(keystead_key_add(acme, "cmk", Z, "own-kms", Z, NULL, 0, &job, &error));
    for (i = 0; i < 10; i++) {
        DO(keystead_rewrap_wait(job, 600000, NULL, NULL, NULL, &error));
        keystead_rewrap_job_free(job);
        DO(keystead_key_rotate(acme, "cmk", Z, &job, &error));
    }
    for (i = 0; i < THREADS; i++) {
        CLAIM(pthread_join(threads[i], NULL) == 0);
    }
    DO(keystead_rewrap_wait(job, 600000, NULL, NULL, NULL, &error));
    keystead_rewrap_job_free(job);
    DO(keystead_history(acme, "shared", Z, 0, 10000, &versions, &error));
    CLAIM(keystead_version_list_len(versions) == THREADS * ROUNDS);
    keystead_version_list_free(versions);
    memset(&counts, 0, sizeof counts);
    counts.struct_size = sizeof counts;
    DO(keystead_verify(store, KEYSTEAD_VERIFY_OPEN_VALUES, NULL, NULL, &report, &error));
    DO(keystead_verify_report_counts(report, &counts, &error));
    CLAIM(counts.problems == 0 && counts.unopened == 0 && counts.values_opened > THREADS * ROUNDS);
    keystead_verify_report_free(report);
    __atomic_store_n(&over, 1, __ATOMIC_RELAXED);
    CLAIM(pthread_join(logs, NULL) == 0);
    keystead_batch_free(batch);
    keystead_store_free(opened);
    keystead_organization_free(organization);
    keystead_backend_free(own);
    keystead_backend_free(managed);
    puts("every thread saw its own values");
    return 0;
}
