/* SPDX-License-Identifier: Apache-2.0
 *
 * y = table[x]: any function of one element, eight at a time. Source: docs/numerics.md, section 1.
 */
#include "tte_kernels.h"

void tte_table_int8(const tte_table_params *params, const int8_t *x, const int8_t *table,
                    int8_t *y)
{
    const int8_t *at_zero = table + 128;
    const int8_t *end = x + params->elems;
    const int8_t *whole_end = x + (params->elems & ~(uint32_t)7);
    while (x != whole_end) {
        y[0] = at_zero[x[0]];
        y[1] = at_zero[x[1]];
        y[2] = at_zero[x[2]];
        y[3] = at_zero[x[3]];
        y[4] = at_zero[x[4]];
        y[5] = at_zero[x[5]];
        y[6] = at_zero[x[6]];
        y[7] = at_zero[x[7]];
        x += 8;
        y += 8;
    }
    while (x != end) {
        *y++ = at_zero[*x++];
    }
}
