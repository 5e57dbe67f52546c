/* SPDX-License-Identifier: Apache-2.0
 *
 * The harness: serves one-byte commands that arrive through the port, for ever. The same loop
 * runs on a board, in an emulator and on the host. Numbers are little endian, 32 bits.
 *
 *   H                 hello            -> "TTE1", bytes of settings, input, target, output and state,
 *                                         counters
 *   R settings        tte_settings: learning rate, ...
 *   I input           inference        -> output: int32 accumulators or int8 codes
 *   T target input    training step    -> loss: int32; INT32_MIN: no such target, not trained
 *   S                 trained state    -> its bytes, entry after entry
 *   C                 saturations      -> uint32[counters]
 *   K                 stack            -> its high-water mark in bytes
 *   N                 instructions     -> of the last I or T; 0 where nothing counts
 *   Q                 quit
 */
#include "model.h"
#include "tte_port.h"
#include "tte_types.h"

enum { EXIT_QUIT = 0, EXIT_UNKNOWN_COMMAND = 2 };

static uint32_t last_instructions;

static void read_all(void *data, size_t bytes)
{
    uint8_t *next = data;
    while (bytes) {
        const size_t count = tte_port_read(next, bytes, 1);
        next += count;
        bytes -= count;
    }
}

static void write_word(uint32_t word)
{
    tte_port_write(&word, sizeof word);
}

/* Not inlined: both readings of the counter are then the same distance from `run` everywhere. */
__attribute__((noinline)) static void run_counted(void (*run)(void))
{
    const uint32_t start = tte_port_instructions();
    run();
    last_instructions = tte_port_instructions() - start;
}

static void hello(void)
{
    uint32_t state_bytes = 0;
    for (uint32_t i = 0; i < TTE_STATE_COUNT; ++i) {
        state_bytes += tte_state[i].bytes;
    }
    tte_port_write("TTE1", 4);
    write_word(sizeof tte_settings);
    write_word(TTE_INPUT_BYTES);
    write_word(TTE_TARGET_BYTES);
    write_word(TTE_OUTPUT_BYTES);
    write_word(state_bytes);
    write_word(TTE_SATURATION_COUNT);
}

static void infer(void)
{
    read_all(tte_input(), TTE_INPUT_BYTES);
    run_counted(tte_infer);
    tte_port_write(tte_output(), TTE_OUTPUT_BYTES);
}

static void train(void)
{
    read_all(tte_target(), TTE_TARGET_BYTES);
    read_all(tte_input(), TTE_INPUT_BYTES);
    if (!tte_target_is_valid()) {
        write_word((uint32_t)INT32_MIN);
        return;
    }
    run_counted(tte_train_step);
    write_word((uint32_t)tte_loss);
}

int main(void)
{
    tte_port_init();
    for (;;) {
        uint8_t command;
        read_all(&command, sizeof command);
        switch (command) {
        case 'H':
            hello();
            break;
        case 'R':
            read_all(&tte_settings, sizeof tte_settings);
            break;
        case 'I':
            infer();
            break;
        case 'T':
            train();
            break;
        case 'S':
            for (uint32_t i = 0; i < TTE_STATE_COUNT; ++i) {
                tte_port_write(tte_state[i].data, tte_state[i].bytes);
            }
            break;
        case 'C':
            tte_port_write(tte_saturations, TTE_SATURATION_COUNT * sizeof(uint32_t));
            break;
        case 'K':
            write_word(tte_port_stack_bytes());
            break;
        case 'N':
            write_word(last_instructions);
            break;
        case 'Q':
            tte_port_exit(EXIT_QUIT);
            break;
        default:
            tte_port_exit(EXIT_UNKNOWN_COMMAND);
        }
    }
}
