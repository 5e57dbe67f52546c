/* SPDX-License-Identifier: Apache-2.0
 *
 * Go-back-N, the receiving side. Requests are numbered; only the one that is due is accepted, so
 * each is carried out once and in order, whatever the line loses, repeats, swaps or spoils. A
 * request that comes again gets its answer again; one that comes too early is answered by a GAP.
 */
#include "tte_link.h"
#include "tte_port.h"

enum { READ_BYTES = 128 };

static uint32_t key;     /* of the conversation; 0: none yet */
static uint16_t due;     /* the sequence of the next request */
static uint16_t gap;     /* the sequence that the last GAP asked for */
static uint8_t answered; /* the command that `answer` is for; 0: none */
static tte_answer answer;

static void to_port(void *context, const void *data, size_t bytes)
{
    (void)context;
    tte_port_write(data, bytes);
}

static void send_frame(uint8_t command, uint8_t status, uint16_t sequence, const uint8_t *data,
                       uint32_t bytes)
{
    const tte_frame_header header = {(uint8_t)(command | TTE_ANSWER), status, sequence, key};
    tte_frame_encoder encoder;
    tte_frame_begin(&encoder, to_port, NULL, header);
    tte_frame_put(&encoder, data, bytes);
    tte_frame_end(&encoder);
}

tte_answer *tte_link_answer(void)
{
    return &answer;
}

void tte_link_send(void)
{
    send_frame(answered, answer.status, (uint16_t)(due - 1),
               answer.data ? answer.data : answer.inlined, answer.bytes);
}

static void send_accepted(void)
{
    send_frame(TTE_ACCEPTED, TTE_OK, (uint16_t)(due - 1), NULL, 0);
}

/* A hello starts a conversation, unless it is the last one once more. */
static int hello(tte_frame_header header, const uint8_t *payload, uint32_t bytes)
{
    if (bytes != 4 || header.sequence != 0) {
        return 0;
    }
    const uint32_t new_key = tte_command_key(tte_get_word(payload));
    if (new_key == key && due > 1) {
        return 0;
    }
    key = new_key;
    due = gap = 0;
    return 1;
}

static void refuse(tte_frame_header header)
{
    send_frame(header.command, TTE_NO_CONVERSATION, header.sequence, NULL, 0);
}

/* 1 where the frame is the one that is due; others are answered as far as they need it. */
static int is_due(tte_frame_header header)
{
    const uint16_t ahead = (uint16_t)(header.sequence - due);
    const int wants_answer = header.command != TTE_WRITE || header.detail & TTE_WANTS_ANSWER;
    if (ahead == 0) {
        return 1;
    }
    if (ahead < 0x8000) {
        if (wants_answer || gap != due) {
            gap = due;
            send_frame(TTE_ACCEPTED, TTE_GAP, due, NULL, 0);
        }
    } else if (answered && header.sequence == (uint16_t)(due - 1)) {
        tte_link_send();
    } else if (wants_answer) {
        send_accepted();
    }
    return 0;
}

/* 1 where the frame is a request for the caller. */
static int accept(const uint8_t *frame, uint32_t payload_bytes, tte_request *request)
{
    const tte_frame_header header = tte_frame_parse(frame);
    const uint8_t *payload = frame + TTE_FRAME_HEADER_BYTES;
    if (header.command & TTE_ANSWER) {
        return 0; /* an echo */
    }
    if (header.command == TTE_HELLO) {
        if (!hello(header, payload, payload_bytes)) {
            return 0;
        }
    } else if (!key || header.key != key) {
        refuse(header);
        return 0;
    }
    if (!is_due(header)) {
        return 0;
    }
    due++;
    answered = 0;
    if (header.command == TTE_WRITE) {
        const uint8_t status = tte_command_write(payload, payload_bytes);
        if (status != TTE_OK) {
            send_frame(TTE_WRITE, status, header.sequence, NULL, 0);
        } else if (header.detail & TTE_WANTS_ANSWER) {
            send_accepted();
        }
        return 0;
    }
    answered = header.command;
    answer.status = TTE_OK;
    answer.bytes = 0;
    answer.data = NULL;
    if (payload_bytes > TTE_REQUEST_BYTES) {
        answer.status = TTE_BAD_ARGUMENT;
        tte_link_send();
        return 0;
    }
    request->command = header.command;
    request->bytes = (uint8_t)payload_bytes;
    for (uint32_t i = 0; i < payload_bytes; ++i) {
        request->arguments[i] = payload[i];
    }
    return 1;
}

int tte_link_receive(tte_request *request, int wait)
{
    uint8_t frame[TTE_FRAME_HEADER_BYTES + TTE_LINK_PAYLOAD_BYTES + TTE_FRAME_CRC_BYTES];
    uint8_t line[READ_BYTES];
    tte_frame_decoder decoder;
    tte_frame_start(&decoder, frame, sizeof frame);
    for (;;) {
        const size_t count = tte_port_read(line, sizeof line, wait);
        if (count == 0) {
            return 0;
        }
        for (size_t i = 0; i < count; ++i) {
            uint32_t payload_bytes;
            if (tte_frame_take(&decoder, line[i], &payload_bytes) &&
                accept(frame, payload_bytes, request)) {
                return 1; /* nothing follows a request before its answer */
            }
        }
    }
}
