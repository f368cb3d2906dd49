/* The structs of the header have the sizes and offsets of abi/layout.h, which the library's own are compared with: else this
 * does not compile. */
#include <keystead.h>

#define HOLDS(name, condition) typedef char name[(condition) ? 1 : -1]
#define SIZE(T, size) HOLDS(size_of_##T, sizeof(T) == (size));
#define OFFSET(T, field, at) HOLDS(offset_of_##T##_##field, offsetof(T, field) == (at));

#include "../../abi/layout.h"

int main(void)
{
    return 0;
}
