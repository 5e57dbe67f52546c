/* SPDX-License-Identifier: Apache-2.0
 *
 * Go-back-N, the sending side: a request and the data that go before it are frames 0 .. count - 1.
 * Any of them can be made again from the caller's memory, so none is kept.
 */
#include "tte_client.h"

#include <string.h>

enum { WRITE_HEADER_BYTES = 5, READ_BYTES = 256, LONGEST_PAUSE_MS = 4000, MOST_PAUSES = 500 };

/* Data for a region. */
typedef struct {
    uint8_t region;
    const uint8_t *data;
    uint32_t bytes;
} part;

typedef struct {
    const part *parts;
    uint32_t part_count;
    uint8_t command;
    const uint8_t *arguments;
    uint32_t argument_bytes;
    uint32_t count;    /* frames in all; the last one is the command */
    uint32_t sent;     /* frames before the next one to send; accepted <= sent <= count */
    uint32_t accepted; /* frames of which the device has said so */
    uint32_t gap;      /* the frame that was last sent again for a gap; count: none */
    int status;
    int is_answered;
} exchange;

static void to_line(void *context, const void *data, size_t bytes)
{
    tte_client *client = context;
    if (!client->broken) {
        client->broken = client->line.write(client->line.context, data, bytes);
    }
}

static uint32_t frames_of(const tte_client *client, const part *one)
{
    return (one->bytes + client->chunk_bytes - 1) / client->chunk_bytes;
}

/* Sends frame `index`; `asks`: also data are to be answered. */
static int send(tte_client *client, const exchange *call, uint32_t index, int asks)
{
    tte_frame_encoder encoder;
    tte_frame_header header = {call->command, 0, (uint16_t)(client->sequence + index),
                               client->key};
    uint32_t first = 0;
    client->broken = 0;
    for (uint32_t i = 0; i < call->part_count; ++i) {
        const part *one = &call->parts[i];
        const uint32_t frames = frames_of(client, one);
        if (index < first + frames) {
            const uint32_t offset = (index - first) * client->chunk_bytes;
            const uint32_t left = one->bytes - offset;
            uint8_t start[WRITE_HEADER_BYTES] = {one->region};
            tte_put_word(start + 1, offset);
            header.command = TTE_WRITE;
            /* Often enough that the window never fills up before an answer is back. */
            if (asks || client->window_frames < 4 || index % (client->window_frames / 4) == 0) {
                header.detail = TTE_WANTS_ANSWER;
            }
            tte_frame_begin(&encoder, to_line, client, header);
            tte_frame_put(&encoder, start, sizeof start);
            tte_frame_put(&encoder, one->data + offset,
                          left < client->chunk_bytes ? left : client->chunk_bytes);
            tte_frame_end(&encoder);
            break;
        }
        first += frames;
    }
    if (index == call->count - 1) {
        tte_frame_begin(&encoder, to_line, client, header);
        tte_frame_put(&encoder, call->arguments, call->argument_bytes);
        tte_frame_end(&encoder);
    }
    return client->broken ? TTE_CLIENT_BROKEN : 0;
}

static uint32_t key_of(uint32_t nonce, const uint8_t *model_id)
{
    uint8_t bytes[4];
    tte_put_word(bytes, nonce);
    const uint32_t key =
        tte_crc32(tte_crc32(0, bytes, sizeof bytes), model_id, TTE_MODEL_ID_BYTES);
    return key ? key : 1;
}

/* Whether an answer to a hello is one to this nonce. */
static int is_hello(const exchange *call, const uint8_t *payload, uint32_t bytes, uint32_t key)
{
    return call->command == TTE_HELLO && bytes >= 4 + TTE_MODEL_ID_BYTES &&
           key == key_of(tte_get_word(call->arguments), payload + 4);
}

/* What the device has accepted, up to frame `due`; a gap is sent again from there. Older news, which
 * came late, is none. */
static void take_accepted(exchange *call, tte_client *client, uint32_t due, int is_gap)
{
    if (due > call->count || due < call->accepted) {
        return;
    }
    call->accepted = due;
    if (call->sent < due) {
        call->sent = due;
    }
    if (is_gap && call->gap != due) {
        call->gap = due;
        client->frames_again += call->sent - due;
        call->sent = due;
    }
}

/* A sound frame from the device; 1 where it has to do with this exchange. */
static int take(tte_client *client, exchange *call, uint32_t bytes)
{
    const tte_frame_header header = tte_frame_parse(client->frame);
    const uint8_t *payload = client->frame + TTE_FRAME_HEADER_BYTES;
    const uint8_t command = (uint8_t)(header.command ^ TTE_ANSWER);
    const uint16_t index = (uint16_t)(header.sequence - client->sequence);
    if (!(header.command & TTE_ANSWER)) {
        return 0;
    }
    if (command == TTE_HELLO || call->command == TTE_HELLO) {
        if (command == TTE_HELLO && is_hello(call, payload, bytes, header.key)) {
            call->is_answered = 1;
            call->status = header.detail;
            client->answer_bytes = bytes;
            client->key = header.key;
        }
        return call->is_answered;
    }
    if (header.detail == TTE_NO_CONVERSATION) {
        call->is_answered = 1;
        call->status = TTE_CLIENT_LOST;
    } else if (header.key != client->key) {
        return 0;
    } else if (command == TTE_ACCEPTED) {
        const int is_gap = header.detail == TTE_GAP;
        /* The sequence before ours may be what was accepted last. */
        take_accepted(call, client, (uint16_t)(index + !is_gap), is_gap);
    } else if (command == TTE_WRITE && index < call->sent) {
        call->status = call->status ? call->status : header.detail; /* the answer follows */
        take_accepted(call, client, index + 1u, 0);
    } else if (command == call->command && index == call->count - 1) {
        call->is_answered = 1;
        call->status = call->status ? call->status : header.detail;
        client->answer_bytes = bytes;
    }
    return 1;
}

/* Sends the parts, then the command, and waits for its answer, whose payload stays in
 * client->frame. */
static int run(tte_client *client, exchange *call)
{
    uint32_t silent_ms = 0, pause_ms = client->retry_ms, pauses = 0;
    call->count = 1;
    for (uint32_t i = 0; i < call->part_count; ++i) {
        call->count += frames_of(client, &call->parts[i]);
    }
    call->gap = call->count;
    while (!call->is_answered) {
        uint8_t line[READ_BYTES];
        int sound = 0;
        if (call->sent < call->count && call->sent - call->accepted < client->window_frames) {
            if (send(client, call, call->sent++, 0)) {
                return TTE_CLIENT_BROKEN;
            }
            pause_ms = 0; /* only looks */
        }
        const int count = client->line.read(client->line.context, line, sizeof line, pause_ms);
        if (count < 0) {
            return TTE_CLIENT_BROKEN;
        }
        for (int i = 0; i < count && !call->is_answered; ++i) {
            uint32_t bytes;
            if (tte_frame_take(&client->decoder, line[i], &bytes)) {
                sound |= take(client, call, bytes);
            }
        }
        if (sound) {
            silent_ms = pauses = 0;
        } else if (count == 0 && pause_ms) {
            /* The newest frame once more: its answer tells what is missing. */
            silent_ms += pause_ms;
            call->gap = call->count;
            if (silent_ms > client->limit_ms || ++pauses > MOST_PAUSES) {
                return TTE_CLIENT_SILENT;
            }
            client->frames_again++;
            if (send(client, call, call->sent - 1, 1)) {
                return TTE_CLIENT_BROKEN;
            }
        }
        pause_ms = client->retry_ms << (pauses < 4 ? pauses : 4);
        pause_ms = pause_ms < LONGEST_PAUSE_MS ? pause_ms : LONGEST_PAUSE_MS;
        if (client->baud) { /* what is still on the line */
            pause_ms += 10000 * (call->sent - call->accepted) * client->chunk_bytes / client->baud;
        }
    }
    if (call->status != TTE_CLIENT_LOST) {
        client->sequence = (uint16_t)(client->sequence + call->count);
    }
    return call->status;
}

static int command(tte_client *client, uint8_t number, const uint8_t *arguments, uint32_t bytes)
{
    exchange call = {0};
    call.command = number;
    call.arguments = arguments;
    call.argument_bytes = bytes;
    return run(client, &call);
}

static const uint8_t *answer(const tte_client *client)
{
    return client->frame + TTE_FRAME_HEADER_BYTES;
}

/* ---- requests ----------------------------------------------------------------------------- */

void tte_client_init(tte_client *client, tte_client_line line)
{
    memset(client, 0, sizeof *client);
    client->line = line;
    client->window_frames = 32;
    client->retry_ms = 250;
    client->limit_ms = 60000;
    client->chunk_bytes = 1;
    tte_frame_start(&client->decoder, client->frame, sizeof client->frame);
}

int tte_client_hello(tte_client *client, uint32_t nonce, const uint8_t *model_id)
{
    uint8_t bytes[4];
    tte_put_word(bytes, nonce);
    client->key = 0;
    client->sequence = 0;
    const int status = command(client, TTE_HELLO, bytes, sizeof bytes);
    const uint8_t *payload = answer(client);
    if (status) {
        return status;
    }
    const uint32_t frame_bytes = (uint32_t)payload[2] | (uint32_t)payload[3] << 8;
    if (payload[0] != TTE_PROTOCOL_VERSION || client->answer_bytes != TTE_HELLO_BYTES ||
        frame_bytes <= WRITE_HEADER_BYTES ||
        (model_id && memcmp(model_id, payload + 4, TTE_MODEL_ID_BYTES) != 0)) {
        return TTE_CLIENT_MISMATCH;
    }
    tte_client_hello_info *device = &client->device;
    uint32_t *const words[] = {&device->input_bytes,      &device->target_bytes,
                               &device->output_bytes,     &device->settings_bytes,
                               &device->state_bytes,      &device->saturation_count,
                               &device->steps,            &device->checkpoint_slots,
                               &device->checkpoint,       &device->sample_capacity,
                               &device->samples};
    memcpy(device->model_id, payload + 4, TTE_MODEL_ID_BYTES);
    for (uint32_t i = 0; i < sizeof words / sizeof words[0]; ++i) {
        *words[i] = tte_get_word(payload + 4 + TTE_MODEL_ID_BYTES + 4 * i);
    }
    client->chunk_bytes = frame_bytes - WRITE_HEADER_BYTES;
    return 0;
}

/* Some data, then METRICS: its answer says that they have arrived. */
static int write_region(tte_client *client, uint8_t region, const void *data, uint32_t bytes)
{
    const part one = {region, data, bytes};
    exchange call = {0};
    call.parts = &one;
    call.part_count = 1;
    call.command = TTE_METRICS;
    return run(client, &call);
}

static int with_sample(tte_client *client, const void *sample, const void *target,
                       uint8_t number, const uint8_t *arguments, uint32_t bytes)
{
    const part parts[] = {{TTE_REGION_INPUT, sample, client->device.input_bytes},
                          {TTE_REGION_TARGET, target, target ? client->device.target_bytes : 0}};
    exchange call = {0};
    call.parts = parts;
    call.part_count = 2;
    call.command = number;
    call.arguments = arguments;
    call.argument_bytes = bytes;
    return run(client, &call);
}

int tte_client_set_learning_rate(tte_client *client, double learning_rate)
{
    uint8_t settings[64] = {0};
    uint32_t mantissa = 0, exponent = 0;
    if (client->device.settings_bytes < 8 || client->device.settings_bytes > sizeof settings) {
        return TTE_CLIENT_MISMATCH;
    }
    if (!(learning_rate >= 0 && learning_rate < 1e9)) {
        return TTE_BAD_ARGUMENT;
    }
    if (learning_rate > 0) { /* mantissa in [2^30, 2^31) times 2^-exponent */
        while (learning_rate < 1073741824.0) {
            learning_rate *= 2;
            exponent++;
        }
        mantissa = (uint32_t)(learning_rate + 0.5);
        if (mantissa >= 1u << 31) {
            mantissa >>= 1;
            exponent--;
        }
    }
    tte_put_word(settings, mantissa);
    tte_put_word(settings + 4, exponent);
    return write_region(client, TTE_REGION_SETTINGS, settings, client->device.settings_bytes);
}

static int read_region(tte_client *client, uint8_t region, uint8_t *data, uint32_t bytes)
{
    for (uint32_t done = 0; done < bytes;) {
        const uint32_t left = bytes - done;
        const uint32_t wanted = left < TTE_ANSWER_BYTES ? left : TTE_ANSWER_BYTES;
        uint8_t arguments[7] = {region};
        tte_put_word(arguments + 1, done);
        arguments[5] = (uint8_t)wanted;
        arguments[6] = (uint8_t)(wanted >> 8);
        const int status = command(client, TTE_READ, arguments, sizeof arguments);
        if (status) {
            return status;
        }
        if (client->answer_bytes == 0 || client->answer_bytes > wanted) {
            return TTE_CLIENT_NONSENSE;
        }
        memcpy(data + done, answer(client), client->answer_bytes);
        done += client->answer_bytes;
    }
    return 0;
}

int tte_client_infer(tte_client *client, const void *sample, void *output)
{
    const int status = with_sample(client, sample, NULL, TTE_INFER, NULL, 0);
    return status ? status
                  : read_region(client, TTE_REGION_OUTPUT, output, client->device.output_bytes);
}

int tte_client_train(tte_client *client, const void *sample, const void *target, int32_t *loss)
{
    uint8_t step[4];
    tte_put_word(step, client->device.steps);
    const int status = with_sample(client, sample, target, TTE_TRAIN, step, sizeof step);
    if (status) {
        return status;
    }
    if (client->answer_bytes != 8) {
        return TTE_CLIENT_NONSENSE;
    }
    *loss = (int32_t)tte_get_word(answer(client));
    client->device.steps = tte_get_word(answer(client) + 4);
    return 0;
}

int tte_client_read_state(tte_client *client, void *state)
{
    return read_region(client, TTE_REGION_STATE, state, client->device.state_bytes);
}

int tte_client_write_state(tte_client *client, const void *state)
{
    return write_region(client, TTE_REGION_STATE, state, client->device.state_bytes);
}

int tte_client_metrics(tte_client *client, tte_client_metrics_info *metrics)
{
    const int status = command(client, TTE_METRICS, NULL, 0);
    uint32_t *const words[] = {&metrics->steps,      &metrics->instructions,
                               &metrics->stack_bytes, &metrics->checkpoint,
                               &metrics->samples,    &metrics->run_steps};
    if (status) {
        return status;
    }
    if (client->answer_bytes != TTE_METRICS_BYTES) {
        return TTE_CLIENT_NONSENSE;
    }
    metrics->loss = (int32_t)tte_get_word(answer(client));
    for (uint32_t i = 0; i < sizeof words / sizeof words[0]; ++i) {
        *words[i] = tte_get_word(answer(client) + 4 + 4 * i);
    }
    client->device.steps = metrics->steps;
    return 0;
}

/* A command whose answer is one number. */
static int counted(tte_client *client, int status, uint32_t *number)
{
    if (status) {
        return status;
    }
    if (client->answer_bytes != 4) {
        return TTE_CLIENT_NONSENSE;
    }
    *number = tte_get_word(answer(client));
    return 0;
}

int tte_client_save(tte_client *client)
{
    return counted(client, command(client, TTE_SAVE, NULL, 0), &client->device.checkpoint);
}

int tte_client_restart(tte_client *client, int forget)
{
    const uint8_t argument = forget != 0;
    return command(client, TTE_RESTART, &argument, 1);
}

int tte_client_store(tte_client *client, const void *sample, const void *target)
{
    const int status = with_sample(client, sample, target, TTE_STORE, NULL, 0);
    return counted(client, status, &client->device.samples);
}

int tte_client_clear(tte_client *client)
{
    return command(client, TTE_CLEAR, NULL, 0);
}

int tte_client_run(tte_client *client, uint32_t steps)
{
    uint8_t argument[4];
    tte_put_word(argument, steps);
    return command(client, TTE_RUN, argument, sizeof argument);
}
