/* SPDX-License-Identifier: Apache-2.0
 *
 * A board in memory: bytes are handed over a piece at a time, and the flash is strict, wears and
 * may lose its power in the middle of any operation.
 */
#include "sim.h"

#include "tte_commands.h"
#include "tte_port.h"

#include <setjmp.h>
#include <string.h>

static const uint8_t *line;
static uint32_t line_bytes;
static uint8_t *out;
static uint32_t out_bytes, out_capacity_bytes;
static jmp_buf outside;

uint8_t sim_flash[SIM_SECTORS * SIM_SECTOR_BYTES];
uint32_t sim_erasures[SIM_SECTORS];
static uint8_t is_written[sizeof sim_flash / SIM_UNIT_BYTES];
static uint32_t operations, cut_at, noise;

const tte_port_flash tte_port_storage = {sim_flash, SIM_SECTOR_BYTES, SIM_SECTORS, SIM_UNIT_BYTES,
                                         SIM_CHECKPOINT_SECTORS};

void tte_port_init(void)
{
}

size_t tte_port_read(void *data, size_t bytes, int wait)
{
    (void)wait;
    const size_t count = bytes < line_bytes ? bytes : line_bytes;
    memcpy(data, line, count);
    line += count;
    line_bytes -= (uint32_t)count;
    return count;
}

void tte_port_write(const void *data, size_t bytes)
{
    if (bytes > out_capacity_bytes - out_bytes) {
        longjmp(outside, SIM_MISUSE);
    }
    memcpy(out + out_bytes, data, bytes);
    out_bytes += (uint32_t)bytes;
}

static uint32_t random_bits(void)
{
    noise ^= noise << 13;
    noise ^= noise >> 17;
    noise ^= noise << 5;
    return noise;
}

/* Where power fails at this operation, `bytes` bytes get from what they are to any mixture of it
 * and what they were to become. */
static void operate(uint8_t *at, const uint8_t *wanted, uint32_t bytes)
{
    const int cut = ++operations == cut_at;
    for (uint32_t i = 0; i < bytes; ++i) {
        const uint8_t changed = (uint8_t)(at[i] ^ (wanted ? wanted[i] : 0xFF));
        at[i] ^= cut ? changed & (uint8_t)random_bits() : changed;
    }
    if (cut) {
        longjmp(outside, SIM_POWER_CUT);
    }
}

int tte_port_flash_erase(uint32_t sector)
{
    if (sector >= SIM_SECTORS) {
        longjmp(outside, SIM_MISUSE);
    }
    const uint32_t units = SIM_SECTOR_BYTES / SIM_UNIT_BYTES;
    sim_erasures[sector]++;
    operate(sim_flash + sector * SIM_SECTOR_BYTES, NULL, SIM_SECTOR_BYTES);
    memset(is_written + sector * units, 0, units);
    return 0;
}

int tte_port_flash_write(uint32_t offset, const void *data, uint32_t bytes)
{
    const uint8_t *byte = data;
    if ((offset | bytes) % SIM_UNIT_BYTES || (uintptr_t)data % 4 || bytes == 0 ||
        offset > sizeof sim_flash || bytes > sizeof sim_flash - offset) {
        longjmp(outside, SIM_MISUSE);
    }
    for (uint32_t i = 0; i < bytes; i += SIM_UNIT_BYTES) {
        uint8_t *written = &is_written[(offset + i) / SIM_UNIT_BYTES];
        if (*written) {
            longjmp(outside, SIM_MISUSE);
        }
        *written = 1;
        operate(sim_flash + offset + i, byte + i, SIM_UNIT_BYTES);
    }
    return 0;
}

void *tte_port_spare(uint32_t *bytes)
{
    static uint64_t spare[SIM_SPARE_BYTES / sizeof(uint64_t) + 1];
    *bytes = SIM_SPARE_BYTES;
    return spare;
}

uint32_t tte_port_instructions(void)
{
    return 0;
}

uint32_t tte_port_stack_bytes(void)
{
    return 0;
}

void tte_port_exit(int status)
{
    longjmp(outside, status == TTE_PORT_RESTART ? SIM_RESTART : SIM_MISUSE);
}

void sim_cut_power_at(uint32_t operation, uint32_t seed)
{
    operations = 0;
    cut_at = operation;
    noise = seed * 2654435761u + 1;
}

uint32_t sim_operations(void)
{
    return operations;
}

void sim_blank_flash(void)
{
    memset(sim_flash, 0xFF, sizeof sim_flash);
    memset(is_written, 0, sizeof is_written);
    memset(sim_erasures, 0, sizeof sim_erasures);
}

/* What was written since the last erasure follows from the flash itself. */
void sim_trust_flash(void)
{
    for (uint32_t i = 0; i < sizeof is_written; ++i) {
        is_written[i] = 0;
        for (uint32_t j = 0; j < SIM_UNIT_BYTES; ++j) {
            is_written[i] |= sim_flash[i * SIM_UNIT_BYTES + j] != 0xFF;
        }
    }
}

int sim_call(uint32_t (*function)(uint32_t), uint32_t argument, uint32_t *result)
{
    const int ended = setjmp(outside);
    if (ended == 0) {
        *result = function(argument);
    }
    return ended;
}

int sim_serve(const uint8_t *in, uint32_t bytes, uint8_t *answer, uint32_t capacity_bytes,
              uint32_t *answer_bytes)
{
    line = in;
    line_bytes = bytes;
    out = answer;
    out_bytes = 0;
    out_capacity_bytes = capacity_bytes;
    const int ended = setjmp(outside);
    if (ended == 0) {
        for (int rest = SIM_RUN_STEPS; line_bytes || (tte_command_runs() && rest); --rest) {
            tte_request request;
            if (tte_link_receive(&request, 1)) {
                tte_command_execute(&request);
            }
            tte_command_run_step();
        }
    }
    *answer_bytes = out_bytes;
    return ended;
}
