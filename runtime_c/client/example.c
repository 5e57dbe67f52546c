/* SPDX-License-Identifier: Apache-2.0
 *
 * Trains a board from a POSIX host, and leaves a checkpoint on it:
 *
 *   cc -std=c99 -Isrc -Iclient client/example.c client/tte_client.c src/tte_frame.c -o train
 *   ./train /dev/ttyACM0 samples.bin 1000
 *
 * samples.bin holds targets and samples as the device takes them, one after the other: a label is
 * four bytes, lowest first, a sample one int8 for each input. They are used in turn.
 */
#define _DEFAULT_SOURCE
#define _POSIX_C_SOURCE 200809L
#include "tte_client.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { BAUD = 921600 };
#ifndef B921600
#define B921600 921600 /* where speeds are their own names */
#endif

static int port_write(void *context, const void *data, size_t bytes)
{
    const char *byte = data;
    while (bytes) {
        const ssize_t done = write(*(const int *)context, byte, bytes);
        if (done <= 0) {
            return 1;
        }
        byte += done;
        bytes -= (size_t)done;
    }
    return 0;
}

static int port_read(void *context, void *data, size_t bytes, uint32_t timeout_ms)
{
    struct pollfd port = {*(const int *)context, POLLIN, 0};
    const int ready = poll(&port, 1, (int)timeout_ms);
    if (ready <= 0) {
        return ready;
    }
    const ssize_t done = read(port.fd, data, bytes);
    return done > 0 ? (int)done : -1;
}

static int open_port(const char *name)
{
    struct termios settings;
    const int port = open(name, O_RDWR | O_NOCTTY);
    if (port < 0 || tcgetattr(port, &settings)) {
        return -1;
    }
    settings.c_iflag = settings.c_oflag = settings.c_lflag = 0;
    settings.c_cflag = CS8 | CREAD | CLOCAL;
    settings.c_cc[VMIN] = 1;
    settings.c_cc[VTIME] = 0;
    cfsetispeed(&settings, B921600);
    cfsetospeed(&settings, B921600);
    return tcsetattr(port, TCSANOW, &settings) ? -1 : port;
}

static int train(tte_client *client, FILE *samples, long steps)
{
    const size_t target_bytes = client->device.target_bytes;
    const size_t bytes = target_bytes + client->device.input_bytes;
    uint8_t *record = malloc(bytes);
    int status = record ? 0 : TTE_CLIENT_BROKEN;
    for (long i = 0; i < steps && status == 0; ++i) {
        int32_t loss = 0;
        if (fread(record, 1, bytes, samples) != bytes) {
            rewind(samples);
            if (fread(record, 1, bytes, samples) != bytes) {
                fprintf(stderr, "the file holds no sample of %zu bytes\n", bytes);
                status = TTE_BAD_ARGUMENT;
                break;
            }
        }
        status = tte_client_train(client, record + target_bytes, record, &loss);
        printf("step %lu: loss %ld\n", (unsigned long)client->device.steps, (long)loss);
    }
    free(record);
    return status;
}

int main(int argc, char **argv)
{
    static tte_client client;
    int port = argc == 4 ? open_port(argv[1]) : -1;
    FILE *samples = argc == 4 ? fopen(argv[2], "rb") : NULL;
    const tte_client_line line = {port_write, port_read, &port};
    if (port < 0 || !samples) {
        fprintf(stderr, "usage: train PORT SAMPLES STEPS\n");
        return 2;
    }
    tte_client_init(&client, line);
    client.baud = BAUD;
    client.limit_ms = 10000;
    int status = tte_client_hello(&client, (uint32_t)time(NULL), NULL);
    if (status == 0) {
        status = tte_client_set_learning_rate(&client, 0.002);
    }
    if (status == 0) {
        status = train(&client, samples, strtol(argv[3], NULL, 10));
    }
    if (status == 0 && client.device.checkpoint_slots) {
        status = tte_client_save(&client);
    }
    if (status) {
        fprintf(stderr, "failed: %d\n", status);
    }
    fclose(samples);
    close(port);
    return status != 0;
}
