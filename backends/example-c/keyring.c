#define _POSIX_C_SOURCE 200809L

#include "keyring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX 65536

/* Reads the whole file, which must be its user's alone. How many bytes, or -1 and a code. */
static long read_file(const char *path, char *out, int32_t *code, char problem[KEYRING_PROBLEM_MAX]) {
    struct stat about;
    long filled = 0;
    /* Not to wait for a writer, should it be a pipe. */
    int file = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) {
        int reason = errno;
        /* A file that is not there is an outage, a disk that is not mounted, say. To take a key away, disable it. */
        *code = reason == EACCES  ? KEYSTEAD_BACKEND_ACCESS_DENIED
                : reason == ELOOP ? KEYSTEAD_BACKEND_INVALID_CONFIG
                                  : KEYSTEAD_BACKEND_UNAVAILABLE;
        snprintf(problem, KEYRING_PROBLEM_MAX, "the keyring %s cannot be opened: error %d of the system", path, reason);
        return -1;
    }
    if (fstat(file, &about) != 0 || !S_ISREG(about.st_mode) || about.st_uid != geteuid() || (about.st_mode & 077) != 0) {
        *code = KEYSTEAD_BACKEND_ACCESS_DENIED;
        snprintf(problem, KEYRING_PROBLEM_MAX,
                 "the keyring %s must be a regular file of this user's, closed to all others (chmod 600)", path);
        close(file);
        return -1;
    }
    while (filled < FILE_MAX) {
        ssize_t more = read(file, out + filled, (size_t)(FILE_MAX - filled));
        if (more < 0 && errno == EINTR) {
            continue;
        }
        if (more <= 0) {
            break;
        }
        filled += more;
    }
    close(file);
    if (filled == FILE_MAX) {
        *code = KEYSTEAD_BACKEND_INVALID_CONFIG;
        snprintf(problem, KEYRING_PROBLEM_MAX, "the keyring %s is larger than %d bytes", path, FILE_MAX - 1);
        return -1;
    }
    return filled;
}

static int digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The next word of a line; its length, and *at is behind it. */
static size_t word(const char **at, const char *end, const char **start) {
    while (*at < end && **at == ' ') {
        (*at)++;
    }
    *start = *at;
    while (*at < end && **at != ' ') {
        (*at)++;
    }
    return (size_t)(*at - *start);
}

/* Reads a line into key and is_enabled: 1; 0 when it is about another key; -1 when it is none. */
static int read_line(const char *at, const char *end, const char *name, keyring_key *key, int *is_enabled) {
    const char *start;
    size_t len, i;
    int is_ours;
    len = word(&at, end, &start);
    if (len == 0 || *start == '#') {
        return 0;
    }
    is_ours = len == strlen(name) && memcmp(start, name, len) == 0;
    len = word(&at, end, &start);
    key->version = 0;
    for (i = 0; i < len && i < 9; i++) {
        if (start[i] < '0' || start[i] > '9') {
            return -1;
        }
        key->version = key->version * 10 + (unsigned long)(start[i] - '0');
    }
    if (key->version == 0 || len > 9) {
        return -1;
    }
    len = word(&at, end, &start);
    *is_enabled = len == 7 && memcmp(start, "enabled", 7) == 0;
    if (!*is_enabled && !(len == 8 && memcmp(start, "disabled", 8) == 0)) {
        return -1;
    }
    len = word(&at, end, &start);
    if (len != 2 * KEY_BYTES || at != end) {
        return -1;
    }
    for (i = 0; i < KEY_BYTES; i++) {
        int high = digit(start[2 * i]), low = digit(start[2 * i + 1]);
        if (high < 0 || low < 0) {
            return -1;
        }
        key->bytes[i] = (uint8_t)(high * 16 + low);
    }
    return is_ours;
}

int32_t keyring_find(const char *path, const char *name, unsigned long version, const keystead_backend_host *host,
                     keyring_key *out, char problem[KEYRING_PROBLEM_MAX]) {
    char text[FILE_MAX];
    int32_t code = KEYSTEAD_BACKEND_KEY_NOT_FOUND;
    long len = read_file(path, text, &code, problem);
    const char *at = text, *end = text + len;
    keyring_key key;
    int line = 0;
    out->version = 0;
    if (len < 0) {
        host->zero(text, sizeof text);
        return code;
    }
    snprintf(problem, KEYRING_PROBLEM_MAX, "the keyring has no such key, or no such version of it");
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        int is_enabled = 0, is_ours;
        stop = stop == NULL ? end : stop;
        line++;
        is_ours = read_line(at, stop, name, &key, &is_enabled);
        if (is_ours < 0) {
            code = KEYSTEAD_BACKEND_INVALID_CONFIG;
            snprintf(problem, KEYRING_PROBLEM_MAX,
                     "line %d of the keyring is not `NAME VERSION enabled|disabled 64-HEXADECIMAL-DIGITS`", line);
            break;
        }
        if (is_ours && (version == 0 ? key.version > out->version : key.version == version)) {
            code = is_enabled ? KEYSTEAD_BACKEND_OK : KEYSTEAD_BACKEND_KEY_DISABLED;
            *out = key;
        }
        at = stop < end ? stop + 1 : end;
    }
    if (code == KEYSTEAD_BACKEND_KEY_DISABLED) {
        snprintf(problem, KEYRING_PROBLEM_MAX, "version %lu of the key is disabled in the keyring", out->version);
    }
    if (code != KEYSTEAD_BACKEND_OK) {
        host->zero(out->bytes, sizeof out->bytes);
    }
    host->zero(&key, sizeof key);
    host->zero(text, sizeof text);
    return code;
}
