#include "json.h"

#include <stdio.h>
#include <string.h>

typedef struct reader {
    const uint8_t *at;
    const uint8_t *end;
} reader;

static void skip_blanks(reader *in) {
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\t' || *in->at == '\n' || *in->at == '\r')) {
        in->at++;
    }
}

/* Takes this character if it is next. */
static int take(reader *in, char wanted) {
    skip_blanks(in);
    if (in->at < in->end && *in->at == (uint8_t)wanted) {
        in->at++;
        return 1;
    }
    return 0;
}

/* The four digits of an escape \uXXXX; -1 if they are none. */
static long take_unit(reader *in) {
    long unit = 0;
    int i;
    if (in->end - in->at < 4) {
        return -1;
    }
    for (i = 0; i < 4; i++) {
        uint8_t digit = *in->at++;
        if (digit >= '0' && digit <= '9') {
            unit = unit * 16 + (digit - '0');
        } else if ((digit | 0x20) >= 'a' && (digit | 0x20) <= 'f') {
            unit = unit * 16 + ((digit | 0x20) - 'a' + 10);
        } else {
            return -1;
        }
    }
    return unit;
}

/* Writes a character as UTF-8; how many bytes, at most 4. */
static size_t put_utf8(unsigned long c, uint8_t *out) {
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xc0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xe0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (c & 0x3f));
    return 4;
}

/* The character that an escape stands for, the backslash being taken. 0 if it is none, or one that no name or path has:
 * control characters are refused here too. */
static unsigned long take_escape(reader *in) {
    long unit, low;
    uint8_t kind = in->at < in->end ? *in->at++ : 0;
    if (kind == '"' || kind == '\\' || kind == '/') {
        return kind;
    }
    unit = kind == 'u' ? take_unit(in) : -1;
    if (unit >= 0xd800 && unit < 0xdc00) {
        if (in->end - in->at < 2 || in->at[0] != '\\' || in->at[1] != 'u') {
            return 0;
        }
        in->at += 2;
        low = take_unit(in);
        return low >= 0xdc00 && low < 0xe000 ? 0x10000 + (((unsigned long)unit - 0xd800) << 10) + ((unsigned long)low - 0xdc00)
                                             : 0;
    }
    return unit >= 0x20 && !(unit >= 0xdc00 && unit < 0xe000) ? (unsigned long)unit : 0;
}

/* A string of 1 to max bytes, without control characters. */
static int take_string(reader *in, char *out, size_t max) {
    size_t len = 0;
    if (!take(in, '"')) {
        return 0;
    }
    while (in->at < in->end && *in->at != '"') {
        uint8_t bytes[4];
        size_t more = 1;
        if (*in->at == '\\') {
            unsigned long c;
            in->at++;
            c = take_escape(in);
            if (c == 0) {
                return 0;
            }
            more = put_utf8(c, bytes);
        } else {
            bytes[0] = *in->at++;
        }
        if (bytes[0] < 0x20 || bytes[0] == 0x7f || len + more > max) {
            return 0;
        }
        memcpy(out + len, bytes, more);
        len += more;
    }
    out[len] = 0;
    return len > 0 && take(in, '"');
}

int json_read(const uint8_t *text, uint64_t len, json_field *fields, size_t count, char problem[JSON_PROBLEM_MAX]) {
    reader in;
    size_t i;
    in.at = text;
    in.end = text + len;
    if (!take(&in, '{')) {
        snprintf(problem, JSON_PROBLEM_MAX, "it is not a JSON object");
        return 0;
    }
    if (!take(&in, '}')) {
        do {
            char name[65];
            json_field *field = NULL;
            skip_blanks(&in);
            if (!take_string(&in, name, sizeof name - 1) || !take(&in, ':')) {
                snprintf(problem, JSON_PROBLEM_MAX, "it is not an object of fields with names of at most 64 bytes");
                return 0;
            }
            for (i = 0; i < count; i++) {
                if (strcmp(fields[i].name, name) == 0) {
                    field = &fields[i];
                }
            }
            if (field == NULL) {
                snprintf(problem, JSON_PROBLEM_MAX, "unknown field `%s`", name);
                return 0;
            }
            if (field->is_given) {
                snprintf(problem, JSON_PROBLEM_MAX, "the field `%s` is there twice", name);
                return 0;
            }
            skip_blanks(&in);
            if (!take_string(&in, field->value, field->value_max)) {
                snprintf(problem, JSON_PROBLEM_MAX, "`%s` must be a string of 1 to %lu bytes without control characters",
                         name, (unsigned long)field->value_max);
                return 0;
            }
            field->is_given = 1;
        } while (take(&in, ','));
        if (!take(&in, '}')) {
            snprintf(problem, JSON_PROBLEM_MAX, "it does not end as a JSON object does");
            return 0;
        }
    }
    skip_blanks(&in);
    if (in.at != in.end) {
        snprintf(problem, JSON_PROBLEM_MAX, "something follows the JSON object");
        return 0;
    }
    for (i = 0; i < count; i++) {
        if (!fields[i].is_given) {
            snprintf(problem, JSON_PROBLEM_MAX, "`%s` is missing", fields[i].name);
            return 0;
        }
    }
    return 1;
}
