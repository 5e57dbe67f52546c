/* SPDX-License-Identifier: Apache-2.0
 *
 * runtime_c/src/armv7em/tte_tile.S in C, so that the kernels around it run under sanitizers.
 */
#include "../../runtime_c/src/armv7em/tte_tile.h"

void tte_tile_2x4(const uint32_t *x, const uint32_t *weight, const uint32_t *weight_end,
                  int32_t *sums, int32_t *sums_end)
{
    for (; sums != sums_end; sums += 8) {
        memcpy(sums, weight, 8 * sizeof *sums);
        for (const uint32_t *pair = weight + 8; pair != weight_end; pair += 2, x += 4) {
            for (int32_t i = 0; i < 4; i++) {
                sums[i] = tte_smlad(pair[0], x[i], sums[i]);
                sums[4 + i] = tte_smlad(pair[1], x[i], sums[4 + i]);
            }
        }
    }
}
