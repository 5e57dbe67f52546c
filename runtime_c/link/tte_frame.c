/* SPDX-License-Identifier: Apache-2.0
 *
 * Framing: COBS and CRC-32, one byte at a time in, one block of at most 255 bytes at a time out.
 */
#include "tte_frame.h"

/* Four bits at a time: a table of 64 bytes. */
uint32_t tte_crc32(uint32_t crc, const void *data, size_t bytes)
{
    static const uint32_t table[16] = {
        0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u,
        0x4db26158u, 0x5005713cu, 0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu,
        0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu,
    };
    const uint8_t *byte = data;
    crc = ~crc;
    for (size_t i = 0; i < bytes; ++i) {
        crc ^= byte[i];
        crc = crc >> 4 ^ table[crc & 15u];
        crc = crc >> 4 ^ table[crc & 15u];
    }
    return ~crc;
}

uint32_t tte_get_word(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

void tte_put_word(uint8_t *bytes, uint32_t word)
{
    for (int i = 0; i < 4; ++i) {
        bytes[i] = (uint8_t)(word >> 8 * i);
    }
}

void tte_frame_start(tte_frame_decoder *decoder, uint8_t *data, uint32_t capacity_bytes)
{
    const tte_frame_decoder empty = {data, capacity_bytes, 0, 0, 0, 0};
    *decoder = empty;
}

static void keep(tte_frame_decoder *decoder, uint8_t byte)
{
    if (decoder->bytes < decoder->capacity_bytes) {
        decoder->data[decoder->bytes++] = byte;
    } else {
        decoder->too_long = 1;
    }
}

static int is_sound(const tte_frame_decoder *decoder)
{
    if (decoder->left || decoder->too_long ||
        decoder->bytes < TTE_FRAME_HEADER_BYTES + TTE_FRAME_CRC_BYTES) {
        return 0;
    }
    const uint32_t checked = decoder->bytes - TTE_FRAME_CRC_BYTES;
    return tte_crc32(0, decoder->data, checked) == tte_get_word(decoder->data + checked);
}

int tte_frame_take(tte_frame_decoder *decoder, uint8_t byte, uint32_t *payload_bytes)
{
    if (byte == 0) {
        const int sound = is_sound(decoder);
        *payload_bytes =
            sound ? decoder->bytes - TTE_FRAME_HEADER_BYTES - TTE_FRAME_CRC_BYTES : 0;
        tte_frame_start(decoder, decoder->data, decoder->capacity_bytes);
        return sound;
    }
    if (decoder->left) {
        decoder->left--;
        keep(decoder, byte);
    } else {
        if (decoder->zero_follows) {
            keep(decoder, 0);
        }
        decoder->left = (uint8_t)(byte - 1);
        decoder->zero_follows = byte != 0xFF;
    }
    return 0;
}

tte_frame_header tte_frame_parse(const uint8_t *frame)
{
    const tte_frame_header header = {frame[0], frame[1], (uint16_t)(frame[2] | frame[3] << 8),
                                     tte_get_word(frame + 4)};
    return header;
}

static void flush_block(tte_frame_encoder *encoder)
{
    encoder->block[0] = (uint8_t)encoder->fill;
    encoder->sink(encoder->context, encoder->block, encoder->fill);
    encoder->fill = 1;
}

static void put_coded(tte_frame_encoder *encoder, const uint8_t *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; ++i) {
        if (data[i] == 0) {
            flush_block(encoder);
            continue;
        }
        encoder->block[encoder->fill++] = data[i];
        if (encoder->fill == TTE_FRAME_BLOCK_BYTES) {
            flush_block(encoder);
        }
    }
}

void tte_frame_begin(tte_frame_encoder *encoder, tte_frame_sink sink, void *context,
                     tte_frame_header header)
{
    uint8_t bytes[TTE_FRAME_HEADER_BYTES] = {header.command, header.detail,
                                             (uint8_t)header.sequence,
                                             (uint8_t)(header.sequence >> 8)};
    tte_put_word(bytes + 4, header.key);
    encoder->sink = sink;
    encoder->context = context;
    encoder->crc = 0;
    encoder->fill = 1;
    sink(context, "", 1); /* ends whatever was begun before */
    tte_frame_put(encoder, bytes, sizeof bytes);
}

void tte_frame_put(tte_frame_encoder *encoder, const void *data, size_t bytes)
{
    encoder->crc = tte_crc32(encoder->crc, data, bytes);
    put_coded(encoder, data, bytes);
}

void tte_frame_end(tte_frame_encoder *encoder)
{
    uint8_t crc[TTE_FRAME_CRC_BYTES];
    tte_put_word(crc, encoder->crc);
    put_coded(encoder, crc, sizeof crc);
    flush_block(encoder);
    encoder->sink(encoder->context, "", 1);
}
