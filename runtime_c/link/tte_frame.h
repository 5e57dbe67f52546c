/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames on a serial line, for both of its ends (docs/protocol.md).
 *
 *   on the line   00, the frame coded by COBS, 00: a zero byte is always the end of a frame
 *   a frame       header (8 bytes), payload, CRC-32 of both, little endian
 *   header        command, detail, sequence (2 bytes), key (4 bytes), little endian
 *
 * The decoder takes any bytes whatsoever, never writes past its buffer and finds the next frame
 * after rubbish. COBS: Cheshire and Baker, "Consistent Overhead Byte Stuffing", 1999. CRC-32: that
 * of IEEE 802.3, reflected.
 */
#ifndef TTE_FRAME_H
#define TTE_FRAME_H

#include <stddef.h>
#include <stdint.h>

enum { TTE_FRAME_HEADER_BYTES = 8, TTE_FRAME_CRC_BYTES = 4, TTE_FRAME_BLOCK_BYTES = 255 };

typedef struct {
    uint8_t command; /* what is asked; 0x80 is set in answers */
    uint8_t detail;  /* requests: TTE_WANTS_ANSWER or 0; answers: a status */
    uint16_t sequence;
    uint32_t key; /* of the conversation, and thereby of the model */
} tte_frame_header;

/* The CRC of `bytes` more bytes; it starts with 0. */
uint32_t tte_crc32(uint32_t crc, const void *data, size_t bytes);

uint32_t tte_get_word(const uint8_t *bytes);
void tte_put_word(uint8_t *bytes, uint32_t word);

/* ---- from the line ------------------------------------------------------------------------ */

typedef struct {
    uint8_t *data; /* room for a frame: header, payload and CRC */
    uint32_t capacity_bytes;
    uint32_t bytes;      /* decoded so far */
    uint8_t left;        /* bytes of the COBS block that are still to come */
    uint8_t zero_follows; /* the block stands for a zero after it */
    uint8_t too_long;
} tte_frame_decoder;

void tte_frame_start(tte_frame_decoder *decoder, uint8_t *data, uint32_t capacity_bytes);

/* Takes one byte. Where it ends a sound frame: 1, data holds the frame, and its payload has
 * *payload_bytes bytes. Otherwise 0. */
int tte_frame_take(tte_frame_decoder *decoder, uint8_t byte, uint32_t *payload_bytes);

/* The header of a decoded frame. */
tte_frame_header tte_frame_parse(const uint8_t *frame);

/* ---- to the line -------------------------------------------------------------------------- */

typedef void (*tte_frame_sink)(void *context, const void *data, size_t bytes);

typedef struct {
    tte_frame_sink sink;
    void *context;
    uint32_t crc;
    uint32_t fill; /* of the block, its code byte included */
    uint8_t block[TTE_FRAME_BLOCK_BYTES];
} tte_frame_encoder;

/* A frame is begun, its payload put in parts of any size, then it is ended. */
void tte_frame_begin(tte_frame_encoder *encoder, tte_frame_sink sink, void *context,
                     tte_frame_header header);
void tte_frame_put(tte_frame_encoder *encoder, const void *data, size_t bytes);
void tte_frame_end(tte_frame_encoder *encoder);

#endif
