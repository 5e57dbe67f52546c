/* SPDX-License-Identifier: Apache-2.0
 *
 * y = x - zero point: the logits of a network that does not end in a linear layer, in the form
 * in which the loss takes them. Exact.
 */
#include "tte_kernels.h"

void tte_widen_int32(const tte_widen_params *params, const int8_t *x, int32_t *y)
{
    const tte_widen_params p = *params;
    for (uint32_t i = 0; i < p.elems; i++) {
        y[i] = x[i] - p.input_zero_point;
    }
}
