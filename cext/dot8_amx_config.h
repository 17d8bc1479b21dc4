/* Tile registers of the int8 engine: every one holds 16 rows of 64 bytes. */
#ifndef MINILP_DOT8_AMX_CONFIG_H
#define MINILP_DOT8_AMX_CONFIG_H
#include <immintrin.h>
#include "minilp_core.h"

#define MLP_AMX_ATTRIBUTE \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512vnni,amx-tile,amx-int8")))

MLP_INLINE MLP_AMX_ATTRIBUTE void mlp_dot8_tiles_on(void)
{
    struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } config = {.palette = 1};
    for (int i = 0; i < 8; i++)
        config.bytes[i] = 64, config.rows[i] = 16;
    __asm__ volatile("" ::: "memory"); /* the load below does not tell the compiler that it reads memory */
    _tile_loadconfig(&config);
}

#endif
