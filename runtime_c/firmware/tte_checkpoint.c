/* SPDX-License-Identifier: Apache-2.0
 *
 * A slot: header, content, seal; each begins a unit.
 *   header   "TTEC", number, steps, bytes of the content, model id (16)
 *   content  trained state, schedule
 *   seal     CRC-32 of header and content, its complement
 */
#include "tte_checkpoint.h"

#include "model.h"
#include "tte_frame.h"
#include "tte_port.h"
#include "tte_protocol.h"
#include "tte_schedule.h"
#include "tte_storage.h"

#include <string.h>

enum { MAGIC = 0x43455454, HEADER_BYTES = 32, SEAL_BYTES = 8 };
enum { CONTENT_BYTES = TTE_STATE_BYTES + sizeof(tte_schedule) };

static const uint8_t model_id[TTE_MODEL_ID_BYTES] = TTE_MODEL_ID;

static uint32_t seal_offset(void)
{
    return tte_storage_units(HEADER_BYTES) + tte_storage_units(CONTENT_BYTES);
}

static uint32_t slot_sectors(void)
{
    const uint32_t bytes = seal_offset() + tte_storage_units(SEAL_BYTES);
    return (bytes + tte_port_storage.sector_bytes - 1) / tte_port_storage.sector_bytes;
}

uint32_t tte_checkpoint_slots(void)
{
    if (tte_port_storage.checkpoint_sectors == 0) {
        return 0;
    }
    const uint32_t slots = tte_port_storage.checkpoint_sectors / slot_sectors();
    return slots < 2 ? 0 : slots;
}

static uint32_t slot_offset(uint32_t slot)
{
    return slot * slot_sectors() * tte_port_storage.sector_bytes;
}

/* The number of a slot's checkpoint, or 0 where it is none of this model. */
static uint32_t checked(uint32_t slot)
{
    const uint8_t *start = tte_port_storage.data + slot_offset(slot);
    const uint8_t *seal = start + seal_offset();
    if (tte_get_word(start) != MAGIC || tte_get_word(start + 12) != CONTENT_BYTES ||
        memcmp(start + 16, model_id, sizeof model_id) != 0) {
        return 0;
    }
    uint32_t crc = tte_crc32(0, start, HEADER_BYTES);
    crc = tte_crc32(crc, start + tte_storage_units(HEADER_BYTES), CONTENT_BYTES);
    if (tte_get_word(seal) != crc || tte_get_word(seal + 4) != ~crc) {
        return 0;
    }
    return tte_get_word(start + 4);
}

/* The number of the last good checkpoint and its slot; 0 where there is none. */
static uint32_t last_good(uint32_t *slot)
{
    uint32_t last = 0;
    for (uint32_t i = 0; i < tte_checkpoint_slots(); ++i) {
        const uint32_t number = checked(i);
        if (number > last) {
            last = number;
            *slot = i;
        }
    }
    return last;
}

uint32_t tte_checkpoint_load(uint32_t *steps)
{
    uint32_t slot = 0;
    const uint32_t number = last_good(&slot);
    if (number) {
        const uint8_t *from = tte_port_storage.data + slot_offset(slot);
        *steps = tte_get_word(from + 8);
        from += tte_storage_units(HEADER_BYTES);
        for (uint32_t i = 0; i < TTE_STATE_COUNT; ++i) {
            memcpy(tte_state[i].data, from, tte_state[i].bytes);
            from += tte_state[i].bytes;
        }
        memcpy(&tte_running_schedule, from, sizeof tte_running_schedule);
    }
    return number;
}

uint32_t tte_checkpoint_save(uint32_t steps)
{
    const uint32_t slots = tte_checkpoint_slots();
    uint32_t slot = slots - 1;
    if (slots == 0) {
        return 0;
    }
    const uint32_t number = last_good(&slot) + 1;
    slot = slot + 1 < slots ? slot + 1 : 0;
    if (tte_storage_erase(slot * slot_sectors(), slot_sectors())) {
        return 0;
    }
    uint8_t header[HEADER_BYTES], seal[SEAL_BYTES];
    tte_put_word(header, MAGIC);
    tte_put_word(header + 4, number);
    tte_put_word(header + 8, steps);
    tte_put_word(header + 12, CONTENT_BYTES);
    memcpy(header + 16, model_id, sizeof model_id);
    tte_storage_writer writer;
    tte_storage_begin(&writer, slot_offset(slot));
    tte_storage_put(&writer, header, sizeof header);
    tte_storage_pad(&writer);
    for (uint32_t i = 0; i < TTE_STATE_COUNT; ++i) {
        tte_storage_put(&writer, tte_state[i].data, tte_state[i].bytes);
    }
    tte_storage_put(&writer, &tte_running_schedule, sizeof tte_running_schedule);
    tte_storage_pad(&writer);
    tte_put_word(seal, writer.crc);
    tte_put_word(seal + 4, ~writer.crc);
    tte_storage_put(&writer, seal, sizeof seal);
    tte_storage_pad(&writer);
    return !writer.failed && checked(slot) == number ? number : 0;
}

int tte_checkpoint_forget(void)
{
    return tte_storage_erase(0, tte_port_storage.checkpoint_sectors);
}
