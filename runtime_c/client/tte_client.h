/* SPDX-License-Identifier: Apache-2.0
 *
 * A host for devices, in C99 and without a heap: it streams samples, lets the device train, reads
 * and writes its trained state (docs/protocol.md). It needs tte_frame.c and three functions that
 * move bytes; example.c has them for POSIX serial ports.
 */
#ifndef TTE_CLIENT_H
#define TTE_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "tte_frame.h"
#include "tte_protocol.h"

/* Results: 0 or a status of tte_protocol.h, what the device says, or one of these, after which only
 * a hello may follow. */
enum {
    TTE_CLIENT_SILENT = -1,   /* no answer within the limit */
    TTE_CLIENT_LOST = -2,     /* the device was restarted, or another host talks to it: say hello */
    TTE_CLIENT_BROKEN = -3,   /* the line failed */
    TTE_CLIENT_MISMATCH = -4, /* another model's firmware, or another version of the protocol */
    TTE_CLIENT_NONSENSE = -5  /* an answer of a wrong size */
};

/* The line. `write` takes all bytes; not 0: it failed. `read` waits up to timeout_ms for a byte and
 * gives what has come, at most `bytes` bytes; 0 where nothing came, negative where it failed. */
typedef struct {
    int (*write)(void *context, const void *data, size_t bytes);
    int (*read)(void *context, void *data, size_t bytes, uint32_t timeout_ms);
    void *context;
} tte_client_line;

/* What a device says about itself. */
typedef struct {
    uint8_t model_id[TTE_MODEL_ID_BYTES]; /* "id" of program.json */
    uint32_t input_bytes, target_bytes, output_bytes, settings_bytes, state_bytes;
    uint32_t saturation_count;
    uint32_t steps; /* trained since the network's first state */
    uint32_t checkpoint_slots, checkpoint;
    uint32_t sample_capacity, samples;
} tte_client_hello_info;

typedef struct {
    int32_t loss; /* in units of "loss.scale" of program.json */
    uint32_t steps, instructions, stack_bytes, checkpoint, samples, run_steps;
} tte_client_metrics_info;

/* What follows `frames_again` belongs to the functions below; what is before it may be changed after
 * tte_client_init(). */
typedef struct {
    uint32_t baud;          /* 0: unknown; without it a slow line sees needless repeats */
    uint32_t window_frames; /* that may be on their way: more than the line carries meanwhile */
    uint32_t retry_ms, limit_ms;
    tte_client_hello_info device; /* since the last hello; counters are kept up to date */
    uint32_t frames_again;        /* how many were sent again */
    tte_client_line line;
    int broken;
    uint32_t key;
    uint16_t sequence; /* of the next request */
    uint32_t chunk_bytes;
    uint32_t answer_bytes;
    uint8_t frame[TTE_FRAME_HEADER_BYTES + TTE_ANSWER_BYTES + TTE_FRAME_CRC_BYTES];
    tte_frame_decoder decoder;
} tte_client;

void tte_client_init(tte_client *client, tte_client_line line);

/* Starts a conversation; `nonce` is any number that was not used before. `model_id`: what the device
 * has to be, or NULL. */
int tte_client_hello(tte_client *client, uint32_t nonce, const uint8_t *model_id);

/* Holds for all steps to come. */
int tte_client_set_learning_rate(tte_client *client, double learning_rate);

/* The output of a sample, device.output_bytes bytes. */
int tte_client_infer(tte_client *client, const void *sample, void *output);

/* One step; its loss, in units of "loss.scale". The target has device.target_bytes bytes: a label
 * has four, lowest first (tte_put_word). */
int tte_client_train(tte_client *client, const void *sample, const void *target, int32_t *loss);

/* Trained state, device.state_bytes bytes. */
int tte_client_read_state(tte_client *client, void *state);
int tte_client_write_state(tte_client *client, const void *state);

int tte_client_metrics(tte_client *client, tte_client_metrics_info *metrics);

/* A checkpoint in the device's flash. */
int tte_client_save(tte_client *client);

/* Starts the firmware again, from its last checkpoint or, with `forget`, from its first state. Hello
 * comes next. */
int tte_client_restart(tte_client *client, int forget);

/* Samples that the device keeps, and training on them with nobody connected (0 steps: stop). */
int tte_client_store(tte_client *client, const void *sample, const void *target);
int tte_client_clear(tte_client *client);
int tte_client_run(tte_client *client, uint32_t steps);

#ifdef __cplusplus
}
#endif

#endif
