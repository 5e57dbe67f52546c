/* SPDX-License-Identifier: Apache-2.0
 *
 * The device's end of the line: frames arrive whole, in order and once, or not at all.
 */
#ifndef TTE_LINK_H
#define TTE_LINK_H

#include "tte_frame.h"
#include "tte_protocol.h"

/* The longest payload of a request. Its buffer lies on the stack, where nothing else is while the
 * firmware waits, so it costs SRAM only where it is deeper than the network's calls. */
#ifndef TTE_LINK_PAYLOAD_BYTES
#if UINTPTR_MAX > 0xFFFFFFFFu
#define TTE_LINK_PAYLOAD_BYTES 8192 /* no microcontroller */
#else
#define TTE_LINK_PAYLOAD_BYTES 512
#endif
#endif

enum { TTE_REQUEST_BYTES = 8, TTE_INLINE_BYTES = TTE_HELLO_BYTES };

/* A request that is due: any but WRITE, which is handled where it arrives. */
typedef struct {
    uint8_t command;
    uint8_t bytes; /* of arguments; a longer one is no request */
    uint8_t arguments[TTE_REQUEST_BYTES];
} tte_request;

/* What it comes to: a status, and `bytes` bytes of payload in `data`, or in `inlined` where data
 * is NULL. The data stay as they are until the next request. */
typedef struct {
    uint8_t status;
    uint32_t bytes;
    const uint8_t *data;
    uint8_t inlined[TTE_INLINE_BYTES];
} tte_answer;

/* Reads the line until a request is due; 1. Without `wait`, only until nothing more has come: 0. */
int tte_link_receive(tte_request *request, int wait);

/* Answers the request; the answer is kept and sent again when the request comes again. */
tte_answer *tte_link_answer(void);
void tte_link_send(void);

/* ---- what the link asks of the commands --------------------------------------------------- */

/* A WRITE: payload of a frame, as it came; a status. */
uint8_t tte_command_write(const uint8_t *payload, uint32_t bytes);

/* The key of a conversation that starts with this nonce. */
uint32_t tte_command_key(uint32_t nonce);

#endif
