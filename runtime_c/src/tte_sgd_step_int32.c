/* SPDX-License-Identifier: Apache-2.0
 *
 * count[0] samples of the batch, count[1] batches before it. The rounding is the next multiple of
 * 2^32 / golden ratio, modulo 2^32, as Q31: of all sequences the one that fills [0, 1) most evenly.
 * Source: docs/numerics.md, section 5.
 */
#include "tte_loss.h"

void tte_sgd_step_int32(const tte_sgd_step_params *params, const tte_factor *learning_rate,
                        int32_t *count, tte_sgd_step *step)
{
    const uint32_t samples = (uint32_t)count[0], batches = (uint32_t)count[1];
    const int ready = samples >= params->batch - 1;

    step->ready = ready;
    step->rounding = (batches * 0x9E3779B9u) >> 1;
    step->learning_rate = *learning_rate;
    step->decay = tte_factor_product(*learning_rate, params->weight_decay);
    count[0] = ready ? 0 : (int32_t)(samples + 1);
    count[1] = (int32_t)(batches + (uint32_t)ready);
}
