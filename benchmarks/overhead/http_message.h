/* Incremental reading of HTTP/1.1 messages, as far as the rig's two programs need it. */
#ifndef HTTP_MESSAGE_H
#define HTTP_MESSAGE_H
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

enum framing { BY_LENGTH, BY_CHUNKS, BY_CLOSE };
enum chunk_part { SIZE, EXTENSION, DATA, AFTER_DATA, TRAILER };

struct body {
    enum framing framing;
    enum chunk_part part;
    long left;       /* bytes of the body or of the chunk still to come */
    int line;        /* characters of the current trailer line */
    int complete;
};

typedef void (*piece_fn)(void *context, const char *data, size_t length);

static long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void raise_descriptor_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* The value of a header in a head of `length` bytes, or NULL. */
static const char *header(const char *head, size_t length, const char *name) {
    size_t n = strlen(name);
    const char *end = head + length, *line = memchr(head, '\n', length);
    while (line && ++line + n < end) {
        if (!strncasecmp(line, name, n) && line[n] == ':') {
            line += n + 1;
            while (line < end && *line == ' ') line++;
            return line;
        }
        line = memchr(line, '\n', (size_t)(end - line));
    }
    return NULL;
}

/* How the body after this head is framed; `bodiless` where neither length nor chunks are told. */
static struct body body_after(const char *head, size_t length, enum framing otherwise) {
    struct body body = {.framing = otherwise};
    const char *coding = header(head, length, "transfer-encoding");
    const char *told = header(head, length, "content-length");
    if (coding && !strncasecmp(coding, "chunked", 7)) {
        body.framing = BY_CHUNKS;
    } else if (told) {
        body.framing = BY_LENGTH;
        body.left = atol(told);
    }
    body.complete = body.framing == BY_LENGTH && body.left == 0;
    return body;
}

/* Read body bytes, hand their content to `piece`; return how many belong to this body. */
static size_t read_body(struct body *body, const char *data, size_t length, piece_fn piece,
                        void *context) {
    size_t at = 0;
    while (at < length && !body->complete) {
        char c = data[at];
        if (body->framing != BY_CHUNKS || body->part == DATA) {
            size_t n = length - at;
            if (body->framing != BY_CLOSE && (long)n > body->left) n = (size_t)body->left;
            piece(context, data + at, n);
            at += n;
            body->left -= (long)n;
            if (body->framing == BY_CLOSE || body->left) continue;
            if (body->framing == BY_LENGTH) body->complete = 1;
            else body->part = AFTER_DATA;
            continue;
        }
        at++;
        switch (body->part) {
        case SIZE:
            if (c >= '0' && c <= '9') body->left = body->left * 16 + c - '0';
            else if ((c | 32) >= 'a' && (c | 32) <= 'f') body->left = body->left * 16 + (c | 32) - 'a' + 10;
            else body->part = EXTENSION;
            if (c != '\n') break;
            /* fall through */
        case EXTENSION:
            if (c == '\n') {
                body->part = body->left ? DATA : TRAILER;
                body->line = 0;
            }
            break;
        case AFTER_DATA:
            if (c == '\n') {
                body->part = SIZE;
                body->left = 0;
            }
            break;
        case TRAILER:
            if (c == '\n') {
                if (!body->line) body->complete = 1;
                body->line = 0;
            } else if (c != '\r') {
                body->line++;
            }
            break;
        default:
            break;
        }
    }
    return at;
}

#endif
