/*
 * A PKCS#11 library that stands between a test and the library of a token, for the tests.
 *
 * It tells the token's library where its configuration is, which a test cannot do in its own environment; it writes the
 * name of each function that is called to a file; and it answers in the place of the token what another file asks for, one
 * request on a line:
 *
 *     C_Login 0xa0 1           the next call of C_Login fails with this code (1: once)
 *     C_Decrypt sleep:500 1    the next call of C_Decrypt takes half a second longer
 *     C_FindObjectsInit logout 1   before the next call somebody else in the process logs the user out
 *     without 0x1087           the token does not offer this mechanism
 *     iv written               the token takes zeroes for AES-GCM's vector and writes its own in their place
 *     iv appended              the token makes its own and puts it behind the tag
 *     gone                     the token is pulled out: every function fails as CKR_DEVICE_REMOVED
 *     paused                   no call returns until this is asked for no more
 *
 *     cc -shared -fPIC -DTOKEN_LIBRARY='"..."' -DTOKEN_CONFIGURATION='"..."' -DREQUESTS='"..."' -DCALLS='"..."' -ldl
 *
 * For machines whose functions take words: all 64-bit Unixes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

typedef unsigned long word;
typedef word (*function)(void);

/* CK_FUNCTION_LIST of PKCS#11 2.40: a version and 68 functions. */
#define FUNCTIONS 68
typedef struct {
    unsigned char major, minor;
    function functions[FUNCTIONS];
} function_list;

typedef struct {
    word mechanism;
    void *parameter;
    word parameter_len;
} mechanism;

typedef struct {
    unsigned char *iv;
    word iv_len, iv_bits;
    unsigned char *associated;
    word associated_len, tag_bits;
} gcm_parameters;

#define AES_GCM 0x1087
#define MECHANISM_PARAM_INVALID 0x71
#define GENERAL_ERROR 0x5
#define DEVICE_REMOVED 0x32
#define APPENDED_BYTES 16

static function_list token, ours;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread unsigned char appended[APPENDED_BYTES];
static __thread int is_appended;
static __thread int is_logged_out;

/* True when a request begins so. */
static int is_requested(const char *wanted) {
    char line[256];
    int found = 0;
    FILE *requests = fopen(REQUESTS, "r");
    while (requests != NULL && !found && fgets(line, sizeof line, requests) != NULL) {
        found = strncmp(line, wanted, strlen(wanted)) == 0;
    }
    if (requests != NULL) {
        fclose(requests);
    }
    return found;
}

/* Notes the call; what is asked for it is done and counted down. The code to answer, or 0. */
static word enter(const char *name) {
    char text[4096] = "", out[4096] = "", *line, *rest = text;
    word code = 0;
    unsigned sleep_ms = 0;
    int calls;
    FILE *requests;
    is_logged_out = 0;
    pthread_mutex_lock(&lock);
    calls = open(CALLS, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (calls >= 0) {
        char said[64];
        int len = snprintf(said, sizeof said, "%s\n", name);
        if (write(calls, said, (size_t)len) != len) {
            abort();
        }
        close(calls);
    }
    requests = fopen(REQUESTS, "r");
    if (requests != NULL) {
        text[fread(text, 1, sizeof text - 1, requests)] = 0;
        fclose(requests);
        while ((line = strsep(&rest, "\n")) != NULL) {
            char wanted[64], what[64];
            unsigned count;
            if (code == 0 && sleep_ms == 0 && !is_logged_out && sscanf(line, "%63s %63s %u", wanted, what, &count) == 3 &&
                strcmp(wanted, name) == 0 && count > 0) {
                if (strncmp(what, "sleep:", 6) == 0) {
                    sleep_ms = (unsigned)strtoul(what + 6, NULL, 10);
                } else if (strcmp(what, "logout") == 0) {
                    is_logged_out = 1;
                } else {
                    code = strtoul(what, NULL, 0);
                }
                snprintf(out + strlen(out), sizeof out - strlen(out), "%s %s %u\n", wanted, what, count - 1);
            } else if (*line != 0) {
                snprintf(out + strlen(out), sizeof out - strlen(out), "%s\n", line);
            }
        }
        if (code != 0 || sleep_ms != 0 || is_logged_out) {
            requests = fopen(REQUESTS, "w");
            if (requests == NULL || fputs(out, requests) < 0 || fclose(requests) != 0) {
                abort();
            }
        }
    }
    pthread_mutex_unlock(&lock);
    if (sleep_ms != 0) {
        usleep(sleep_ms * 1000);
    }
    while (is_requested("paused\n")) {
        usleep(10 * 1000);
    }
    return code == 0 && is_requested("gone\n") ? DEVICE_REMOVED : code;
}

#define ENTER(name)                                                                                                    \
    do {                                                                                                               \
        word code = enter(#name);                                                                                      \
        if (code != 0) {                                                                                               \
            return code;                                                                                               \
        }                                                                                                              \
    } while (0)

/* A function that only passes on. Every argument is a word or a pointer, which is one. */
#define PASS_1(number, name)                                                                                           \
    static word name(word a) {                                                                                         \
        ENTER(name);                                                                                                   \
        return ((word(*)(word))token.functions[number])(a);                                                            \
    }
#define PASS_2(number, name)                                                                                           \
    static word name(word a, word b) {                                                                                 \
        ENTER(name);                                                                                                   \
        return ((word(*)(word, word))token.functions[number])(a, b);                                                   \
    }
#define PASS_3(number, name)                                                                                           \
    static word name(word a, word b, word c) {                                                                         \
        ENTER(name);                                                                                                   \
        return ((word(*)(word, word, word))token.functions[number])(a, b, c);                                          \
    }
#define PASS_4(number, name)                                                                                           \
    static word name(word a, word b, word c, word d) {                                                                 \
        ENTER(name);                                                                                                   \
        return ((word(*)(word, word, word, word))token.functions[number])(a, b, c, d);                                 \
    }
#define PASS_5(number, name)                                                                                           \
    static word name(word a, word b, word c, word d, word e) {                                                         \
        ENTER(name);                                                                                                   \
        return ((word(*)(word, word, word, word, word))token.functions[number])(a, b, c, d, e);                        \
    }
#define PASS_6(number, name)                                                                                           \
    static word name(word a, word b, word c, word d, word e, word f) {                                                 \
        ENTER(name);                                                                                                   \
        return ((word(*)(word, word, word, word, word, word))token.functions[number])(a, b, c, d, e, f);               \
    }
#define PASS_8(number, name)                                                                                           \
    static word name(word a, word b, word c, word d, word e, word f, word g, word h) {                                 \
        ENTER(name);                                                                                                   \
        return ((word(*)(word, word, word, word, word, word, word, word))token.functions[number])(a, b, c, d, e, f, g, \
                                                                                                  h);                  \
    }

PASS_3(4, C_GetSlotList)
PASS_2(6, C_GetTokenInfo)
PASS_5(12, C_OpenSession)
PASS_1(13, C_CloseSession)
PASS_2(15, C_GetSessionInfo)
PASS_4(18, C_Login)
PASS_4(20, C_CreateObject)
PASS_2(22, C_DestroyObject)
PASS_4(24, C_GetAttributeValue)
PASS_3(33, C_DecryptInit)
PASS_5(34, C_Decrypt)
PASS_6(60, C_WrapKey)
PASS_8(61, C_UnwrapKey)

static word C_Initialize(word arguments) {
    word code;
    int turn;
    ENTER(C_Initialize);
    /* The token's library looks for its configuration here, in an environment that it shares with every other copy of it. */
    turn = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    flock(turn, LOCK_EX);
    setenv("SOFTHSM2_CONF", TOKEN_CONFIGURATION, 1);
    code = ((word(*)(word))token.functions[0])(arguments);
    close(turn);
    return code;
}

static word C_FindObjectsInit(word session, word template, word count) {
    ENTER(C_FindObjectsInit);
    if (is_logged_out) {
        ((word(*)(word))token.functions[19])(session);
    }
    return ((word(*)(word, word, word))token.functions[26])(session, template, count);
}

static word C_GetMechanismList(word slot, word *list, word *count) {
    word code;
    ENTER(C_GetMechanismList);
    code = ((word(*)(word, word *, word *))token.functions[7])(slot, list, count);
    if (code == 0 && list != NULL) {
        word in, kept = 0;
        for (in = 0; in < *count; in++) {
            char wanted[32];
            snprintf(wanted, sizeof wanted, "without 0x%lx\n", list[in]);
            if (!is_requested(wanted)) {
                list[kept++] = list[in];
            }
        }
        *count = kept;
    }
    return code;
}

static int draw(unsigned char *out, size_t len) {
    FILE *random = fopen("/dev/urandom", "r");
    int is_drawn = random != NULL && fread(out, 1, len, random) == len;
    if (random != NULL) {
        fclose(random);
    }
    return is_drawn;
}

static word C_EncryptInit(word session, mechanism *how, word key) {
    word (*real)(word, mechanism *, word) = (word(*)(word, mechanism *, word))token.functions[29];
    ENTER(C_EncryptInit);
    is_appended = 0;
    if (how->mechanism == AES_GCM && is_requested("iv ")) {
        gcm_parameters *given = how->parameter;
        word i;
        for (i = 0; i < given->iv_len; i++) {
            if (given->iv[i] != 0) {
                return MECHANISM_PARAM_INVALID;
            }
        }
        if (is_requested("iv written\n")) {
            if (!draw(given->iv, given->iv_len)) {
                return GENERAL_ERROR;
            }
        } else if (is_requested("iv appended\n")) {
            gcm_parameters own = *given;
            mechanism changed = *how;
            if (!draw(appended, sizeof appended)) {
                return GENERAL_ERROR;
            }
            own.iv = appended;
            own.iv_len = sizeof appended;
            own.iv_bits = 8 * sizeof appended;
            changed.parameter = &own;
            is_appended = 1;
            return real(session, &changed, key);
        }
    }
    return real(session, how, key);
}

static word C_Encrypt(word session, unsigned char *data, word data_len, unsigned char *out, word *out_len) {
    word code;
    ENTER(C_Encrypt);
    code = ((word(*)(word, unsigned char *, word, unsigned char *, word *))token.functions[30])(session, data, data_len,
                                                                                                out, out_len);
    if (code == 0 && is_appended) {
        if (out != NULL) {
            memcpy(out + *out_len, appended, sizeof appended);
        }
        *out_len += sizeof appended;
    }
    return code;
}

/* The one symbol that is looked for. */
word C_GetFunctionList(function_list **out);
word C_GetFunctionList(function_list **out) {
    pthread_mutex_lock(&lock);
    if (token.functions[0] == NULL) {
        void *library, *symbol;
        word (*get)(function_list **);
        function_list *list;
        library = dlopen(TOKEN_LIBRARY, RTLD_NOW | RTLD_LOCAL);
        symbol = library == NULL ? NULL : dlsym(library, "C_GetFunctionList");
        if (symbol == NULL) {
            fprintf(stderr, "%s\n", dlerror());
            pthread_mutex_unlock(&lock);
            return GENERAL_ERROR;
        }
        memcpy(&get, &symbol, sizeof get);
        if (get(&list) != 0) {
            pthread_mutex_unlock(&lock);
            return GENERAL_ERROR;
        }
        token = *list;
        ours = token;
        ours.functions[0] = (function)C_Initialize;
        ours.functions[4] = (function)C_GetSlotList;
        ours.functions[6] = (function)C_GetTokenInfo;
        ours.functions[7] = (function)C_GetMechanismList;
        ours.functions[12] = (function)C_OpenSession;
        ours.functions[13] = (function)C_CloseSession;
        ours.functions[15] = (function)C_GetSessionInfo;
        ours.functions[18] = (function)C_Login;
        ours.functions[20] = (function)C_CreateObject;
        ours.functions[22] = (function)C_DestroyObject;
        ours.functions[24] = (function)C_GetAttributeValue;
        ours.functions[26] = (function)C_FindObjectsInit;
        ours.functions[29] = (function)C_EncryptInit;
        ours.functions[30] = (function)C_Encrypt;
        ours.functions[33] = (function)C_DecryptInit;
        ours.functions[34] = (function)C_Decrypt;
        ours.functions[60] = (function)C_WrapKey;
        ours.functions[61] = (function)C_UnwrapKey;
    }
    pthread_mutex_unlock(&lock);
    *out = &ours;
    return 0;
}
