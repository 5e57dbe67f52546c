/* SPDX-License-Identifier: Apache-2.0
 *
 * The port of a program on the developer's own machine: standard input and output. Nothing is
 * counted or measured here. The storage is memory with the ways of NOR flash; where the environment
 * variable TTE_STORAGE_FILE names a file, it outlives the program there.
 */
#define _POSIX_C_SOURCE 200809L
#include "tte_port.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__unix__) || defined(__APPLE__)
#include <poll.h>
#include <unistd.h>
#define HAS_POLL
#endif

enum {
    EXIT_CHANNEL_LOST = 3,
    SECTOR_BYTES = 4096,
    SECTORS = 512,
    UNIT_BYTES = 8,
    CHECKPOINT_SECTORS = 256,
    SPARE_BYTES = 1 << 20
};

static union {
    uint64_t alignment;
    uint8_t bytes[SECTORS * SECTOR_BYTES];
} storage;
static FILE *storage_file;

const tte_port_flash tte_port_storage = {storage.bytes, SECTOR_BYTES, SECTORS, UNIT_BYTES,
                                         CHECKPOINT_SECTORS};

void tte_port_init(void)
{
    const char *name = getenv("TTE_STORAGE_FILE");
    memset(storage.bytes, 0xFF, sizeof storage.bytes);
    if (!name) {
        return;
    }
    storage_file = fopen(name, "r+b");
    if (storage_file) {
        const size_t kept = fread(storage.bytes, 1, sizeof storage.bytes, storage_file);
        memset(storage.bytes + kept, 0xFF, sizeof storage.bytes - kept);
    } else {
        storage_file = fopen(name, "w+b");
    }
    if (!storage_file) {
        exit(EXIT_FAILURE);
    }
}

#ifdef HAS_POLL
size_t tte_port_read(void *data, size_t bytes, int wait)
{
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    fflush(stdout);
    if (!wait && poll(&input, 1, 0) <= 0) {
        return 0;
    }
    const ssize_t count = read(STDIN_FILENO, data, bytes);
    if (count <= 0) {
        tte_port_exit(EXIT_CHANNEL_LOST);
    }
    return (size_t)count;
}
#else
/* C99 alone cannot look without waiting, nor read what is there and no more. */
size_t tte_port_read(void *data, size_t bytes, int wait)
{
    (void)bytes;
    if (!wait) {
        return 0;
    }
    fflush(stdout);
    const int byte = getchar();
    if (byte == EOF) {
        tte_port_exit(EXIT_CHANNEL_LOST);
    }
    *(uint8_t *)data = (uint8_t)byte;
    return 1;
}
#endif

/* Flushed where the program is about to wait for more. */
void tte_port_write(const void *data, size_t bytes)
{
    if (fwrite(data, 1, bytes, stdout) != bytes) {
        tte_port_exit(EXIT_CHANNEL_LOST);
    }
}

static int keep_storage(uint32_t offset, uint32_t bytes)
{
    if (!storage_file) {
        return 0;
    }
    if (fseek(storage_file, (long)offset, SEEK_SET) ||
        fwrite(storage.bytes + offset, 1, bytes, storage_file) != bytes) {
        return 1;
    }
    return fflush(storage_file);
}

int tte_port_flash_erase(uint32_t sector)
{
    if (sector >= SECTORS) {
        return 1;
    }
    memset(storage.bytes + sector * SECTOR_BYTES, 0xFF, SECTOR_BYTES);
    return keep_storage(sector * SECTOR_BYTES, SECTOR_BYTES);
}

/* A write only clears bits. */
int tte_port_flash_write(uint32_t offset, const void *data, uint32_t bytes)
{
    const uint8_t *byte = data;
    if ((offset | bytes) % UNIT_BYTES || offset > sizeof storage.bytes ||
        bytes > sizeof storage.bytes - offset) {
        return 1;
    }
    for (uint32_t i = 0; i < bytes; ++i) {
        storage.bytes[offset + i] &= byte[i];
    }
    return keep_storage(offset, bytes);
}

void *tte_port_spare(uint32_t *bytes)
{
    static uint64_t spare[SPARE_BYTES / sizeof(uint64_t)];
    *bytes = SPARE_BYTES;
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
    exit(status);
}
