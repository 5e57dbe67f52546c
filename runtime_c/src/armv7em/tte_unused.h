/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernels of tte_windows.h and tte_taps.h that a program never calls, as NULL, so that they are
 * not linked: the compiler adds them for each program, in the runtime's own copy there are none.
 */
