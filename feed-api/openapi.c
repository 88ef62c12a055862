/* The assembler copies the file in (the Makefile has it as a dependency). A generated C array would need a
 * generator, and an installed file could be of another version. */
#include "feed-api/openapi.h"

__asm__(".section .rodata\n"
        ".global openapi_yaml\n"
        ".global openapi_yaml_end\n"
        "openapi_yaml:\n"
        ".incbin \"openapi.yaml\"\n"
        "openapi_yaml_end:\n"
        ".byte 0\n"
        ".previous\n");

extern const char openapi_yaml_end[];

size_t openapi_yaml_len(void)
{
    return (size_t)(openapi_yaml_end - openapi_yaml);
}
