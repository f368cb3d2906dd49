/* Settings and config, read strictly: one JSON object whose values are all strings. */
#ifndef EXAMPLE_JSON_H
#define EXAMPLE_JSON_H

#include <stddef.h>
#include <stdint.h>

#define JSON_VALUE_MAX 1024
#define JSON_PROBLEM_MAX 256

typedef struct json_field {
    const char *name;
    size_t value_max;                 /* bytes, below JSON_VALUE_MAX */
    char value[JSON_VALUE_MAX];       /* ended by a zero byte */
    int is_given;
} json_field;

/* Reads an object into these fields, each of which must be there. Returns 1; or 0, and problem says what is wrong: the
 * field by its name, and never a value, which may be a secret in the wrong place. */
int json_read(const uint8_t *text, uint64_t len, json_field *fields, size_t count, char problem[JSON_PROBLEM_MAX]);

#endif
