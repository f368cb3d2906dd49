/* Many threads on the same handles at once, while everything is re-wrapped again and again: hammer DIRECTORY */
#include "claims.h"
#include "table.h"

#include <pthread.h>

#define THREADS 8
#define ROUNDS 40

static keystead_organization *acme = NULL;

static void *reads_and_writes(void *given)
{
    char path[32], value[32];
    int i;
    for (i = 0; i < ROUNDS; i++) {
        keystead_secret *secret = NULL;
        keystead_secret_list *list = NULL;
        sprintf(path, "own/%d", *(int *)given);
        sprintf(value, "value %d", i);
        DO(keystead_put(acme, path, Z, BYTES(value), NULL, NULL, &error));
        DO(keystead_get(acme, path, Z, 0, &secret, &error));
        CLAIM(keystead_secret_len(secret) == strlen(value));
        CLAIM(memcmp(keystead_secret_data(secret), value, strlen(value)) == 0);
        keystead_secret_free(secret);
        DO(keystead_put(acme, "shared", Z, BYTES(value), NULL, NULL, &error));
        DO(keystead_list(acme, NULL, 0, NULL, 0, 100, &list, &error));
        CLAIM(keystead_secret_list_len(list) > 0);
        keystead_secret_list_free(list);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    keystead_backend *managed, *own = NULL;
    keystead_store *store;
    keystead_rewrap_job *job = NULL;
    keystead_version_list *versions = NULL;
    pthread_t threads[THREADS];
    int numbers[THREADS], i;
    CLAIM(argc == 2);
    managed = managed_in(argv[1]);
    DO(keystead_backend_from_table(&table, NULL, 0, NULL, 0, &own, &error));
    store = store_in(argv[1], "hammer.keystead", managed, own);
    DO(keystead_organization_create(store, "acme", Z, &acme, &error));
    for (i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CLAIM(pthread_create(&threads[i], NULL, reads_and_writes, &numbers[i]) == 0);
    }
    DO(keystead_key_add(acme, "cmk", Z, "own-kms", Z, NULL, 0, &job, &error));
    for (i = 0; i < 5; i++) {
        DO(keystead_rewrap_wait(job, 60000, NULL, NULL, NULL, &error));
        keystead_rewrap_job_free(job);
        DO(keystead_key_rotate(acme, "cmk", Z, &job, &error));
    }
    for (i = 0; i < THREADS; i++) {
        CLAIM(pthread_join(threads[i], NULL) == 0);
    }
    DO(keystead_rewrap_wait(job, 60000, NULL, NULL, NULL, &error));
    keystead_rewrap_job_free(job);
    DO(keystead_history(acme, "shared", Z, 0, 10000, &versions, &error));
    CLAIM(keystead_version_list_len(versions) == THREADS * ROUNDS);
    keystead_version_list_free(versions);
    keystead_organization_free(acme);
    keystead_store_free(store);
    keystead_backend_free(own);
    keystead_backend_free(managed);
    puts("every thread saw its own values");
    return 0;
}
