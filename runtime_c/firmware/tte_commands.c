/* SPDX-License-Identifier: Apache-2.0
 *
 * The commands of the protocol. Everything in a request may be wrong on purpose: a command checks
 * each number before it is used, and what it refuses has changed nothing.
 */
#include "tte_commands.h"

#include "model.h"
#include "tte_checkpoint.h"
#include "tte_port.h"
#include "tte_samples.h"
#include "tte_schedule.h"

#include <string.h>

enum { WRITE_HEADER_BYTES = 5, LARGEST_EXPONENT = 126 };

static const uint8_t model_id[TTE_MODEL_ID_BYTES] = TTE_MODEL_ID;

static uint32_t input_bytes;  /* of the sample, from its front; all of it: it can be used, once */
static uint32_t target_bytes; /* the same of its target */
static uint32_t steps;        /* trained since the network's first state */
static uint32_t checkpoint;   /* the number of the last one; 0: none */
static uint32_t run_steps;    /* on stored samples, still to come */
static uint32_t last_instructions;

void tte_command_init(void)
{
    tte_running_schedule.learning_rate = tte_settings.learning_rate;
    checkpoint = tte_checkpoint_load(&steps);
    tte_samples_init();
}

uint32_t tte_command_key(uint32_t nonce)
{
    uint8_t bytes[4];
    tte_put_word(bytes, nonce);
    const uint32_t key = tte_crc32(tte_crc32(0, bytes, sizeof bytes), model_id, sizeof model_id);
    return key ? key : 1;
}

/* ---- writing ------------------------------------------------------------------------------ */

/* A sample comes from its front to its end; its first byte begins another one. */
static uint8_t write_input(uint32_t offset, const uint8_t *data, uint32_t bytes)
{
    if (offset == 0) {
        input_bytes = 0;
    }
    if (offset != input_bytes || bytes > TTE_INPUT_BYTES - offset) {
        return TTE_BAD_ARGUMENT;
    }
    memcpy(tte_input() + offset, data, bytes);
    input_bytes += bytes;
    return TTE_OK;
}

static uint8_t write_target(uint32_t offset, const uint8_t *data, uint32_t bytes)
{
    if (offset == 0) {
        target_bytes = 0;
    }
    if (offset != target_bytes || bytes > TTE_TARGET_BYTES - offset) {
        return TTE_BAD_ARGUMENT;
    }
    memcpy((uint8_t *)tte_target() + offset, data, bytes);
    target_bytes += bytes;
    return TTE_OK;
}

static int is_factor(tte_factor factor)
{
    const int is_zero = factor.mantissa == 0 && factor.exponent == 0;
    return is_zero || (factor.mantissa >= 1 << 30 && factor.exponent >= 0 &&
                       factor.exponent <= LARGEST_EXPONENT);
}

static uint8_t write_settings(uint32_t offset, const uint8_t *data, uint32_t bytes)
{
    tte_schedule settings;
    if (offset != 0 || bytes != sizeof settings) {
        return TTE_BAD_ARGUMENT;
    }
    memcpy(&settings, data, sizeof settings);
    if (!is_factor(settings.learning_rate) || settings.shape > TTE_COSINE) {
        return TTE_BAD_ARGUMENT;
    }
    tte_running_schedule = settings;
    return TTE_OK;
}

static uint8_t write_state(uint32_t offset, const uint8_t *data, uint32_t bytes)
{
    if (offset > TTE_STATE_BYTES || bytes > TTE_STATE_BYTES - offset) {
        return TTE_BAD_ARGUMENT;
    }
    for (uint32_t i = 0; i < TTE_STATE_COUNT && bytes; ++i) {
        const uint32_t size = tte_state[i].bytes;
        if (offset < size) {
            const uint32_t part = bytes < size - offset ? bytes : size - offset;
            memcpy((uint8_t *)tte_state[i].data + offset, data, part);
            data += part;
            bytes -= part;
            offset = 0;
        } else {
            offset -= size;
        }
    }
    return TTE_OK;
}

uint8_t tte_command_write(const uint8_t *payload, uint32_t bytes)
{
    if (bytes < WRITE_HEADER_BYTES) {
        return TTE_BAD_ARGUMENT;
    }
    if (run_steps) {
        return TTE_BUSY;
    }
    const uint32_t offset = tte_get_word(payload + 1);
    const uint8_t *data = payload + WRITE_HEADER_BYTES;
    bytes -= WRITE_HEADER_BYTES;
    switch (payload[0]) {
    case TTE_REGION_INPUT:
        return write_input(offset, data, bytes);
    case TTE_REGION_TARGET:
        return write_target(offset, data, bytes);
    case TTE_REGION_SETTINGS:
        return write_settings(offset, data, bytes);
    case TTE_REGION_STATE:
        return write_state(offset, data, bytes);
    default:
        return TTE_BAD_ARGUMENT;
    }
}

/* ---- answering ---------------------------------------------------------------------------- */

static void put_words(tte_answer *answer, uint32_t count, const uint32_t *words)
{
    for (uint32_t i = 0; i < count; ++i) {
        tte_put_word(answer->inlined + answer->bytes, words[i]);
        answer->bytes += 4;
    }
}

static void put_data(tte_answer *answer, const void *data, uint32_t bytes, uint32_t offset,
                     uint32_t at_most)
{
    const uint32_t left = offset < bytes ? bytes - offset : 0;
    answer->data = (const uint8_t *)data + (bytes - left);
    answer->bytes = left < at_most ? left : at_most;
    if (answer->bytes > TTE_ANSWER_BYTES) {
        answer->bytes = TTE_ANSWER_BYTES;
    }
}

static void hello(tte_answer *answer)
{
    const uint32_t words[] = {TTE_INPUT_BYTES,
                              TTE_TARGET_BYTES,
                              TTE_OUTPUT_BYTES,
                              sizeof tte_running_schedule,
                              TTE_STATE_BYTES,
                              TTE_SATURATION_COUNT,
                              steps,
                              tte_checkpoint_slots(),
                              checkpoint,
                              tte_samples_capacity(),
                              tte_samples_count()};
    answer->inlined[0] = TTE_PROTOCOL_VERSION;
    answer->inlined[1] = 0;
    answer->inlined[2] = (uint8_t)TTE_LINK_PAYLOAD_BYTES;
    answer->inlined[3] = (uint8_t)(TTE_LINK_PAYLOAD_BYTES >> 8);
    memcpy(answer->inlined + 4, model_id, sizeof model_id);
    answer->bytes = 4 + sizeof model_id;
    put_words(answer, sizeof words / sizeof words[0], words);
}

static void metrics(tte_answer *answer)
{
    const uint32_t words[] = {(uint32_t)tte_loss,
                              steps,
                              last_instructions,
                              tte_port_stack_bytes(),
                              checkpoint,
                              tte_samples_count(),
                              run_steps};
    put_words(answer, sizeof words / sizeof words[0], words);
}

/* A read ends where an array of the state ends, so it may give less than was asked for. */
static uint8_t read_state(tte_answer *answer, uint32_t offset, uint32_t at_most)
{
    for (uint32_t i = 0; i < TTE_STATE_COUNT; ++i) {
        if (offset < tte_state[i].bytes) {
            put_data(answer, tte_state[i].data, tte_state[i].bytes, offset, at_most);
            return TTE_OK;
        }
        offset -= tte_state[i].bytes;
    }
    return offset == 0 ? TTE_OK : TTE_BAD_ARGUMENT;
}

static uint8_t read_region(const tte_request *request, tte_answer *answer)
{
    if (request->bytes != 7) {
        return TTE_BAD_ARGUMENT;
    }
    const uint32_t offset = tte_get_word(request->arguments + 1);
    const uint32_t at_most = request->arguments[5] | (uint32_t)request->arguments[6] << 8;
    switch (request->arguments[0]) {
    case TTE_REGION_STATE:
        return read_state(answer, offset, at_most);
    case TTE_REGION_OUTPUT:
        put_data(answer, tte_output(), TTE_OUTPUT_BYTES, offset, at_most);
        return TTE_OK;
    case TTE_REGION_SATURATIONS:
        put_data(answer, tte_saturations, TTE_SATURATION_COUNT * sizeof(uint32_t), offset,
                 at_most);
        return TTE_OK;
    default:
        return TTE_BAD_ARGUMENT;
    }
}

/* ---- running ------------------------------------------------------------------------------ */

/* Not inlined: both readings of the counter are then the same distance from `run` everywhere. */
__attribute__((noinline)) static void run_counted(void (*run)(void))
{
    const uint32_t start = tte_port_instructions();
    run();
    last_instructions = tte_port_instructions() - start;
}

static void train(void)
{
    tte_settings.learning_rate = tte_schedule_rate(&tte_running_schedule, steps);
    run_counted(tte_train_step);
    steps++;
}

static uint8_t infer_command(tte_answer *answer)
{
    if (input_bytes != TTE_INPUT_BYTES) {
        return TTE_BAD_STATE;
    }
    input_bytes = 0;
    run_counted(tte_infer);
    put_data(answer, tte_output(), TTE_OUTPUT_BYTES, 0, TTE_ANSWER_BYTES);
    return TTE_OK;
}

static uint8_t train_command(const tte_request *request, tte_answer *answer)
{
    if (request->bytes != 4) {
        return TTE_BAD_ARGUMENT;
    }
    if (input_bytes != TTE_INPUT_BYTES || target_bytes != TTE_TARGET_BYTES ||
        tte_get_word(request->arguments) != steps) {
        return TTE_BAD_STATE;
    }
    if (!tte_target_is_valid()) {
        return TTE_BAD_ARGUMENT;
    }
    input_bytes = target_bytes = 0;
    train();
    const uint32_t words[] = {(uint32_t)tte_loss, steps};
    put_words(answer, 2, words);
    return TTE_OK;
}

static uint8_t save_command(tte_answer *answer)
{
    if (tte_checkpoint_slots() == 0) {
        return TTE_NO_STORAGE;
    }
    const uint32_t number = tte_checkpoint_save(steps);
    if (number == 0) {
        return TTE_FLASH_FAILED;
    }
    checkpoint = number;
    put_words(answer, 1, &checkpoint);
    return TTE_OK;
}

static uint8_t store_command(tte_answer *answer)
{
    if (input_bytes != TTE_INPUT_BYTES || target_bytes != TTE_TARGET_BYTES) {
        return TTE_BAD_STATE;
    }
    if (!tte_target_is_valid()) {
        return TTE_BAD_ARGUMENT;
    }
    const uint8_t status = tte_samples_store();
    const uint32_t count = tte_samples_count();
    input_bytes = target_bytes = 0;
    put_words(answer, 1, &count);
    return status;
}

static uint8_t run_command(const tte_request *request)
{
    if (request->bytes != 4) {
        return TTE_BAD_ARGUMENT;
    }
    if (tte_samples_count() == 0) {
        return TTE_BAD_STATE;
    }
    run_steps = tte_get_word(request->arguments);
    input_bytes = target_bytes = 0;
    return TTE_OK;
}

static uint8_t restart_command(const tte_request *request)
{
    if (request->bytes != 1 || request->arguments[0] > 1) {
        return TTE_BAD_ARGUMENT;
    }
    if (request->arguments[0] && tte_checkpoint_forget()) {
        return TTE_FLASH_FAILED;
    }
    tte_link_send();
    tte_port_exit(TTE_PORT_RESTART);
    return TTE_OK;
}

/* What would disturb training on stored samples. */
static int needs_rest(uint8_t command)
{
    return command == TTE_INFER || command == TTE_TRAIN || command == TTE_STORE ||
           command == TTE_CLEAR;
}

static uint8_t execute(const tte_request *request, tte_answer *answer)
{
    if (run_steps && needs_rest(request->command)) {
        return TTE_BUSY;
    }
    switch (request->command) {
    case TTE_HELLO:
        hello(answer);
        return TTE_OK;
    case TTE_READ:
        return read_region(request, answer);
    case TTE_INFER:
        return infer_command(answer);
    case TTE_TRAIN:
        return train_command(request, answer);
    case TTE_METRICS:
        metrics(answer);
        return TTE_OK;
    case TTE_SAVE:
        return save_command(answer);
    case TTE_RESTART:
        return restart_command(request);
    case TTE_STORE:
        return store_command(answer);
    case TTE_CLEAR:
        return tte_samples_clear();
    case TTE_RUN:
        return run_command(request);
    default:
        return TTE_BAD_COMMAND;
    }
}

void tte_command_execute(const tte_request *request)
{
    tte_answer *answer = tte_link_answer();
    answer->status = execute(request, answer);
    tte_link_send();
}

int tte_command_runs(void)
{
    return run_steps != 0;
}

void tte_command_run_step(void)
{
    if (run_steps && tte_samples_next() && tte_target_is_valid()) {
        train();
        run_steps--;
    } else {
        run_steps = 0;
    }
}
