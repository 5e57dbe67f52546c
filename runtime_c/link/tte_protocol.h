/* SPDX-License-Identifier: Apache-2.0
 *
 * The numbers of the protocol, for both ends of the line; docs/protocol.md says what they mean.
 */
#ifndef TTE_PROTOCOL_H
#define TTE_PROTOCOL_H

enum { TTE_PROTOCOL_VERSION = 2, TTE_ANSWER = 0x80, TTE_WANTS_ANSWER = 1 };

/* The longest payload of an answer. */
enum { TTE_ANSWER_BYTES = 2048 };

/* Requests; an answer has the same number with TTE_ANSWER. */
enum {
    TTE_ACCEPTED = 0, /* in answers only: everything up to `sequence` was accepted */
    TTE_HELLO = 1,    /* nonce (4)                    -> struct of TTE_HELLO_BYTES */
    TTE_WRITE = 2,    /* region (1), offset (4), data -> nothing */
    TTE_READ = 3,     /* region (1), offset (4), bytes (2) -> data, maybe less */
    TTE_INFER = 4,    /* nothing                      -> output, as far as it goes into an answer */
    TTE_TRAIN = 5,    /* step (4)                     -> loss (4), steps (4) */
    TTE_METRICS = 6,  /* nothing                      -> struct of TTE_METRICS_BYTES */
    TTE_SAVE = 7,     /* nothing                      -> checkpoint (4) */
    TTE_RESTART = 8,  /* forget (1)                   -> nothing, then it starts again */
    TTE_STORE = 9,    /* nothing                      -> stored samples (4) */
    TTE_CLEAR = 10,   /* nothing                      -> nothing */
    TTE_RUN = 11      /* steps (4)                    -> nothing; trains on stored samples */
};

/* What TTE_WRITE and TTE_READ reach. */
enum {
    TTE_REGION_INPUT = 1,      /* write, from the front */
    TTE_REGION_TARGET = 2,     /* write, whole */
    TTE_REGION_SETTINGS = 3,   /* write, whole: tte_schedule */
    TTE_REGION_STATE = 4,      /* write and read */
    TTE_REGION_OUTPUT = 5,     /* read, after INFER */
    TTE_REGION_SATURATIONS = 6 /* read: 4 bytes for each gradient tensor */
};

/* `detail` of answers. */
enum {
    TTE_OK = 0,
    TTE_GAP = 1,          /* frames are missing; `sequence` is the one that is due */
    TTE_NO_CONVERSATION = 2, /* wrong key: another model, or a restart; say hello */
    TTE_BAD_COMMAND = 3,
    TTE_BAD_ARGUMENT = 4, /* a region, offset, length, target or setting that is not */
    TTE_BAD_STATE = 5,    /* no whole sample, or not the step that is due */
    TTE_BUSY = 6,         /* it trains on stored samples */
    TTE_NO_STORAGE = 7,   /* this board, or this model on it, has none */
    TTE_FULL = 8,
    TTE_FLASH_FAILED = 9
};

enum { TTE_MODEL_ID_BYTES = 16, TTE_HELLO_BYTES = 64, TTE_METRICS_BYTES = 28 };

#endif
