/* SPDX-License-Identifier: Apache-2.0
 *
 * Hostile bytes for the whole firmware: the frame parser, the link and every command. The first
 * byte of an input chooses: odd, the rest goes to the line as it is; even, it becomes the content
 * of sound frames of the right conversation, so that the commands get their share. Of each frame
 * it has command, flags, length and payload; flags: 1 the detail, 2 a sequence too far, 4 one too
 * near, 8 the step that is due for a payload, 16 a wrong key.
 *
 * With libFuzzer this is its target; with -DSTANDALONE it feeds `argv[1]` bytes of a fixed pseudo-
 * random sequence, mixed from both kinds and from damaged frames, after the files in argv[2..].
 */
#include "model.h"
#include "sim.h"
#include "tte_commands.h"
#include "tte_frame.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 1 << 16, ANSWER_BYTES = 1 << 20, NONCE = 0x12345678 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static uint8_t line[LINE_BYTES], answer[ANSWER_BYTES];
static uint32_t line_bytes, due, steps, requests_done;
static uint64_t fed_bytes;

static void to_line(void *context, const void *data, size_t bytes)
{
    (void)context;
    if (bytes <= sizeof line - line_bytes) {
        memcpy(line + line_bytes, data, bytes);
        line_bytes += (uint32_t)bytes;
    }
}

enum { DETAIL = 1, TOO_FAR = 2, TOO_NEAR = 4, STEP = 8, WRONG_KEY = 16 };

static void put_frame(uint8_t command, uint8_t flags, const uint8_t *payload, size_t bytes)
{
    const uint32_t key = command == TTE_HELLO ? 0 : tte_command_key(NONCE);
    const tte_frame_header header = {
        command, flags & DETAIL, (uint16_t)(due + !!(flags & TOO_FAR) - !!(flags & TOO_NEAR)),
        flags & WRONG_KEY ? key ^ 0x80 : key};
    uint8_t step[4];
    if (flags & STEP) {
        tte_put_word(step, steps);
        payload = step;
        bytes = sizeof step;
    }
    tte_frame_encoder encoder;
    tte_frame_begin(&encoder, to_line, NULL, header);
    tte_frame_put(&encoder, payload, bytes);
    tte_frame_end(&encoder);
}

/* Answers tell which request is due next. */
static void read_answers(uint32_t bytes)
{
    static uint8_t frame[ANSWER_BYTES];
    tte_frame_decoder decoder;
    uint32_t payload_bytes;
    tte_frame_start(&decoder, frame, sizeof frame);
    for (uint32_t i = 0; i < bytes; ++i) {
        if (tte_frame_take(&decoder, answer[i], &payload_bytes)) {
            const tte_frame_header header = tte_frame_parse(frame);
            if (payload_bytes > TTE_ANSWER_BYTES) {
                abort();
            }
            if (header.detail == TTE_NO_CONVERSATION) {
                due = 0;
            } else {
                due = (uint16_t)(header.sequence + (header.detail != TTE_GAP));
                requests_done += header.detail == TTE_OK;
                if (header.command == (TTE_HELLO | TTE_ANSWER)) {
                    steps = tte_get_word(frame + TTE_FRAME_HEADER_BYTES + 44);
                }
                if (header.command == (TTE_TRAIN | TTE_ANSWER) && payload_bytes == 8) {
                    steps = tte_get_word(frame + TTE_FRAME_HEADER_BYTES + 4);
                }
                if (header.command == (TTE_METRICS | TTE_ANSWER)) {
                    steps = tte_get_word(frame + TTE_FRAME_HEADER_BYTES + 4);
                }
            }
        }
    }
}

static void serve(const uint8_t *data, uint32_t bytes)
{
    uint32_t answered = 0;
    const int ended = sim_serve(data, bytes, answer, sizeof answer, &answered);
    if (ended == SIM_MISUSE) {
        abort();
    }
    if (ended == SIM_RESTART) {
        tte_command_init();
    }
    read_answers(answered);
}

static void greet(void)
{
    uint8_t nonce[4];
    tte_put_word(nonce, NONCE);
    line_bytes = due = 0;
    put_frame(TTE_HELLO, 0, nonce, sizeof nonce);
    serve(line, line_bytes);
    due = 1;
}

static void serve_frames(const uint8_t *data, size_t bytes)
{
    greet();
    while (bytes >= 3) {
        const uint8_t *payload = data + 3;
        const size_t left = bytes - 3, size = data[2] < left ? data[2] : left;
        line_bytes = 0;
        put_frame(data[0], data[1], payload, size);
        serve(line, line_bytes);
        data = payload + size;
        bytes = left - size;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0 || bytes > LINE_BYTES) {
        return 0;
    }
    fed_bytes += bytes;
    if (data[0] & 1) {
        serve(data + 1, (uint32_t)(bytes - 1));
    } else {
        serve_frames(data + 1, bytes - 1);
    }
    return 0;
}

__attribute__((destructor)) static void report(void)
{
    fprintf(stderr, "%llu bytes were fed\n", (unsigned long long)fed_bytes);
}

#ifdef STANDALONE
static uint32_t noise = 1;

static uint32_t random_below(uint32_t limit)
{
    noise ^= noise << 13;
    noise ^= noise >> 17;
    noise ^= noise << 5;
    return noise % limit;
}

static uint8_t *put_record(uint8_t *data, uint32_t command, uint32_t flags, const uint8_t *payload,
                           uint32_t bytes)
{
    *data++ = (uint8_t)command;
    *data++ = (uint8_t)flags;
    *data++ = (uint8_t)bytes;
    for (uint32_t i = 0; i < bytes; ++i) {
        *data++ = payload[i];
    }
    return data;
}

/* A WRITE that is right. */
static uint8_t *put_write(uint8_t *data, uint8_t region, const uint8_t *content, uint32_t bytes)
{
    uint8_t payload[64] = {region};
    memcpy(payload + 5, content, bytes);
    return put_record(data, TTE_WRITE, DETAIL, payload, bytes + 5);
}

/* A whole sample, and what to do with it; now and then other settings. */
static uint8_t *put_sample(uint8_t *data)
{
    static const uint8_t commands[] = {TTE_TRAIN, TTE_INFER, TTE_STORE};
    const uint32_t command = commands[random_below(3)];
    uint8_t target[4] = {(uint8_t)random_below(random_below(8) ? 3 : 256)}, input[8], settings[20];
    for (uint32_t i = 0; i < sizeof input; ++i) {
        input[i] = (uint8_t)random_below(256);
    }
    if (random_below(4) == 0) {
        tte_put_word(settings, random_below(4) ? 1u << 30 : noise);
        tte_put_word(settings + 4, random_below(140));
        tte_put_word(settings + 8, random_below(4));
        tte_put_word(settings + 12, random_below(2) ? random_below(40) : noise);
        tte_put_word(settings + 16, random_below(2) ? random_below(40) : noise);
        data = put_write(data, TTE_REGION_SETTINGS, settings, sizeof settings);
    }
    data = put_write(data, TTE_REGION_TARGET, target, sizeof target);
    data = put_write(data, TTE_REGION_INPUT, input, sizeof input);
    return put_record(data, command, command == TTE_TRAIN ? STEP : 0, NULL, 0);
}

/* Any request, with offsets and lengths around their limits. */
static uint8_t *put_any(uint8_t *data)
{
    static const uint32_t edges[] = {0,  1,  4,  5,          7,          8,         12,
                                     24, 35, 36, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF8};
    const uint32_t lengths[] = {0, 1, 4, 7, random_below(24), random_below(256)};
    const uint32_t bytes = lengths[random_below(6)];
    uint8_t payload[256] = {(uint8_t)random_below(8)};
    for (uint32_t i = 1; i < bytes; ++i) {
        payload[i] = (uint8_t)random_below(256);
    }
    if (random_below(2)) {
        tte_put_word(payload + (random_below(8) != 0), edges[random_below(14)]);
    }
    return put_record(data, random_below(16) ? random_below(12) : random_below(256),
                      random_below(8) ? DETAIL : random_below(32), payload, bytes);
}

static size_t make_frames(uint8_t *data)
{
    uint8_t *end = data;
    *end++ = 0;
    for (uint32_t i = random_below(12) + 1; i; --i) {
        end = random_below(2) ? put_sample(end) : put_any(end);
    }
    return (size_t)(end - data);
}

/* Sound frames with a few bytes changed, cut out or repeated, and plain rubbish. */
static size_t make_line(uint8_t *data)
{
    line_bytes = 0;
    for (uint32_t i = random_below(6); i; --i) {
        uint8_t payload[600];
        const uint32_t size = random_below(sizeof payload);
        for (uint32_t j = 0; j < size; ++j) {
            payload[j] = (uint8_t)(random_below(3) ? random_below(256) : 0);
        }
        put_frame((uint8_t)random_below(12), (uint8_t)random_below(4), payload, size);
    }
    data[0] = 1;
    memcpy(data + 1, line, line_bytes);
    size_t bytes = line_bytes + 1;
    for (uint32_t i = random_below(4); i && bytes > 1; --i) {
        data[1 + random_below((uint32_t)bytes - 1)] = (uint8_t)random_below(256);
    }
    for (uint32_t i = random_below(3) * random_below(2000); i; --i) {
        data[bytes++] = (uint8_t)(random_below(4) ? random_below(256) : random_below(3));
    }
    return bytes;
}

static void run_file(const char *name)
{
    static uint8_t data[LINE_BYTES];
    FILE *file = fopen(name, "rb");
    if (!file) {
        exit(2);
    }
    const size_t bytes = fread(data, 1, sizeof data, file);
    fclose(file);
    LLVMFuzzerTestOneInput(data, bytes);
}

int main(int argc, char **argv)
{
    static uint8_t data[LINE_BYTES];
    sim_blank_flash();
    tte_command_init();
    for (int i = 2; i < argc; ++i) {
        run_file(argv[i]);
    }
    uint64_t left = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    while (left) {
        const size_t bytes = random_below(2) ? make_frames(data) : make_line(data);
        LLVMFuzzerTestOneInput(data, bytes);
        left -= bytes < left ? bytes : left;
    }
    greet();
    line_bytes = 0;
    requests_done = 0;
    put_frame(TTE_METRICS, 0, NULL, 0);
    serve(line, line_bytes);
    return requests_done == 1 ? 0 : 3; /* it still serves */
}
#endif
