/* A fast stand-in for vLLM servers: one thread, epoll, several ports, no engine behind it.
 *
 *     backend PORTS METRICS_PAGE
 *
 * prints the ports it listens on, then serves until SIGTERM or the end of its standard input.
 * A POST is answered by what its body says: "stream": true, "max_tokens" chunks, "seed"
 * microseconds between them (0: as fast as the connections can be taken in turn). Each chunk
 * carries the time it was sent at as T and 19 digits: nanoseconds of CLOCK_MONOTONIC.
 */
#include "http_message.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK \
    "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000," \
    "\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{%s\"content\":\"T%019ld\"}," \
    "\"logprobs\":null,\"finish_reason\":%s}]}\n\n%s"
#define ANSWER \
    "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1700000000," \
    "\"model\":\"bench\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\"," \
    "\"content\":\"T%019ld\"},\"logprobs\":null,\"finish_reason\":\"stop\"}]," \
    "\"usage\":{\"prompt_tokens\":200,\"total_tokens\":210,\"completion_tokens\":10}}"
#define MODELS \
    "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\",\"created\":1700000000," \
    "\"owned_by\":\"vllm\",\"root\":\"bench\",\"parent\":null,\"max_model_len\":1048576}]}"
/* What sglang's routers ask of a worker before they use it. */
#define INFO "{\"model_path\":\"bench\",\"served_model_name\":\"bench\",\"is_generation\":true}"

#define DIGITS 12 /* of each value in the page of metrics that changes */

struct connection {
    int fd, server, streaming, in_turn, has_head;
    size_t heap_at; /* place in the heap, 1-based; 0: not in it */
    char *in, *out;
    size_t in_length, in_size, head_length, out_length, out_size;
    struct body body;
    char *asked;
    size_t asked_length, asked_size;
    long chunks_left, chunks, interval_ns, due;
    struct connection *next_in_turn;
};

static int epoll_fd, servers;
static volatile sig_atomic_t stopped;
static char *page;
static size_t page_length;
static long running[64], tokens[64], requests[64];
static struct connection **heap, *turn;
static size_t heap_length, heap_size;

static void on_signal(int number) { (void)number; stopped = 1; }

static void *grown(void *memory, size_t *size, size_t wanted) {
    if (wanted <= *size) return memory;
    *size = wanted * 2;
    return realloc(memory, *size);
}

static void place(struct connection *c, size_t at) { heap[at] = c; c->heap_at = at; }

static void sift(size_t at) {
    struct connection *c = heap[at];
    while (at > 1 && heap[at / 2]->due > c->due) { place(heap[at / 2], at); at /= 2; }
    for (;;) {
        size_t child = at * 2;
        if (child < heap_length && heap[child + 1]->due < heap[child]->due) child++;
        if (child > heap_length || heap[child]->due >= c->due) break;
        place(heap[child], at);
        at = child;
    }
    place(c, at);
}

static void schedule(struct connection *c) {
    size_t bytes = heap_size * sizeof *heap;
    heap = grown(heap, &bytes, (heap_length + 2) * sizeof *heap);
    heap_size = bytes / sizeof *heap;
    place(c, ++heap_length);
    sift(heap_length);
}

static void unschedule(struct connection *c) {
    size_t at = c->heap_at;
    if (!at) return;
    struct connection *last = heap[heap_length--];
    c->heap_at = 0;
    if (last != c) { place(last, at); sift(at); }
}

static void watch(struct connection *c, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(epoll_fd, how, c->fd, &event);
}

static void end_stream(struct connection *c) {
    if (c->streaming) running[c->server]--;
    c->streaming = 0;
    unschedule(c);
}

static void close_connection(struct connection *c) {
    end_stream(c);
    for (struct connection **p = &turn; *p; p = &(*p)->next_in_turn)
        if (*p == c) { *p = c->next_in_turn; break; }
    close(c->fd);
    free(c->in); free(c->out); free(c->asked); free(c);
}

static void send_bytes(struct connection *c, const char *data, size_t length) {
    if (!c->out_length) {
        ssize_t sent = send(c->fd, data, length, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN) return; /* the read side sees the end of the connection */
            sent = 0;
        }
        data += sent;
        length -= (size_t)sent;
        if (!length) return;
        watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    }
    c->out = grown(c->out, &c->out_size, c->out_length + length);
    memcpy(c->out + c->out_length, data, length);
    c->out_length += length;
}

static void send_pending(struct connection *c) {
    ssize_t sent = send(c->fd, c->out, c->out_length, MSG_NOSIGNAL);
    if (sent <= 0) return;
    c->out_length -= (size_t)sent;
    memmove(c->out, c->out + sent, c->out_length);
    if (!c->out_length) watch(c, EPOLLIN, EPOLL_CTL_MOD);
}

static void answer(struct connection *c, const char *type, const char *content, size_t length) {
    char head[256];
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: %s\r\n"
                     "content-length: %zu\r\n\r\n", type, length);
    char *message = malloc((size_t)n + length);
    memcpy(message, head, (size_t)n);
    memcpy(message + n, content, length);
    send_bytes(c, message, (size_t)n + length);
    free(message);
}

/* Send the next chunk of a stream, and its end with the last one. */
static void send_chunk(struct connection *c) {
    char data[512], framed[700];
    int first = c->chunks_left == c->chunks, last = c->chunks_left == 1;
    int n = snprintf(data, sizeof data, CHUNK, first ? "\"role\":\"assistant\"," : "", now_ns(),
                     last ? "\"stop\"" : "null", last ? "data: [DONE]\n\n" : "");
    int total = snprintf(framed, sizeof framed, "%s%x\r\n%s\r\n%s",
                         first ? "HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: "
                                 "text/event-stream; charset=utf-8\r\n"
                                 "transfer-encoding: chunked\r\n\r\n" : "",
                         n, data, last ? "0\r\n\r\n" : "");
    c->chunks_left--;
    tokens[c->server]++;
    if (last) end_stream(c);
    send_bytes(c, framed, (size_t)total);
}

static long number_after(const char *text, const char *name, long otherwise) {
    const char *found = strstr(text, name);
    if (!found) return otherwise;
    found += strlen(name);
    while (*found == ' ' || *found == ':') found++;
    return *found == 't' ? 1 : atol(found);
}

/* Overwrite the digits that stand for a metric's value in the page. */
static void set_metric(const char *name, long value) {
    char digits[DIGITS + 1], *at = memmem(page, page_length, name, strlen(name));
    if (!at || !(at = strstr(at, "} "))) return;
    snprintf(digits, sizeof digits, "%0*ld", DIGITS, value);
    memcpy(at + 2, digits, DIGITS);
}

static void send_metrics(struct connection *c) {
    int s = c->server;
    set_metric("\nvllm:num_requests_running{", running[s]);
    set_metric("\nvllm:prompt_tokens_total{", requests[s] * 200);
    set_metric("\nvllm:generation_tokens_total{", tokens[s]);
    answer(c, "text/plain; version=0.0.4", page, page_length);
}

static void respond(struct connection *c) {
    char text[1024];
    if (strncmp(c->in, "POST", 4)) {
        if (!strncmp(c->in, "GET /metrics", 12)) send_metrics(c);
        else if (!strncmp(c->in, "GET /v1/models", 14)) answer(c, "application/json", MODELS, strlen(MODELS));
        else answer(c, "application/json", INFO, strlen(INFO));
        return;
    }
    requests[c->server]++;
    c->asked = grown(c->asked, &c->asked_size, c->asked_length + 1);
    c->asked[c->asked_length] = 0;
    if (number_after(c->asked, "\"stream\"", 0) != 1) {
        int n = snprintf(text, sizeof text, ANSWER, now_ns());
        tokens[c->server] += 10;
        answer(c, "application/json", text, (size_t)n);
        return;
    }
    c->chunks = c->chunks_left = number_after(c->asked, "\"max_tokens\"", 10);
    c->interval_ns = number_after(c->asked, "\"seed\"", 0) * 1000;
    c->streaming = 1;
    running[c->server]++;
    send_chunk(c);
    if (!c->streaming) return;
    if (c->interval_ns) {
        /* A random phase: streams that were opened together do not tick together. */
        c->due = now_ns() + (long)((double)rand() / RAND_MAX * (double)c->interval_ns);
        schedule(c);
    } else if (!c->in_turn) {
        c->in_turn = 1;
        c->next_in_turn = turn;
        turn = c;
    }
}

static void keep_asked(void *context, const char *data, size_t length) {
    struct connection *c = context;
    c->asked = grown(c->asked, &c->asked_size, c->asked_length + length + 1);
    memcpy(c->asked + c->asked_length, data, length);
    c->asked_length += length;
}

static void take_requests(struct connection *c) {
    size_t at = 0;
    while (at < c->in_length) {
        if (!c->has_head) {
            char *start = c->in + at, *end = memmem(start, c->in_length - at, "\r\n\r\n", 4);
            if (!end) break;
            if (at) { memmove(c->in, start, c->in_length -= at); end -= at; at = 0; }
            c->has_head = 1;
            c->asked_length = 0;
            c->head_length = (size_t)(end + 4 - c->in);
            c->body = body_after(c->in, c->head_length, BY_LENGTH);
            c->body.complete = c->body.framing == BY_LENGTH && !c->body.left;
            at = c->head_length;
        }
        at += read_body(&c->body, c->in + at, c->in_length - at, keep_asked, c);
        if (!c->body.complete) {
            c->in_length = c->head_length; /* the body is kept apart, the head is needed yet */
            return;
        }
        c->has_head = 0;
        respond(c);
    }
    memmove(c->in, c->in + at, c->in_length - at);
    c->in_length -= at;
}

static int receive(struct connection *c) {
    for (;;) {
        c->in = grown(c->in, &c->in_size, c->in_length + 65536);
        ssize_t n = recv(c->fd, c->in + c->in_length, 65536, 0);
        if (n < 0 && errno == EAGAIN) return 1;
        if (n <= 0) return 0;
        c->in_length += (size_t)n;
        take_requests(c);
        if (n < 65536) return 1;
    }
}

static void accept_all(int listener, int server) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->server = server;
        watch(c, EPOLLIN, EPOLL_CTL_ADD);
    }
}

static void send_due(void) {
    long now = now_ns();
    while (heap_length && heap[1]->due <= now) {
        struct connection *c = heap[1];
        c->due += c->interval_ns;
        sift(1);
        send_chunk(c);
    }
    struct connection *round = turn;
    turn = NULL;
    while (round) {
        struct connection *c = round;
        round = c->next_in_turn;
        c->in_turn = 0;
        if (!c->streaming) continue;
        send_chunk(c);
        if (!c->streaming) continue;
        c->in_turn = 1;
        c->next_in_turn = turn;
        turn = c;
    }
}

int main(int count, char **arguments) {
    if (count != 3) { fprintf(stderr, "backend PORTS METRICS_PAGE\n"); return 2; }
    servers = atoi(arguments[1]);
    if (servers < 1 || servers > 64) { fprintf(stderr, "1 to 64 ports\n"); return 2; }
    FILE *file = fopen(arguments[2], "rb");
    if (!file) { perror(arguments[2]); return 2; }
    page = calloc(1, 1 << 20);
    page_length = fread(page, 1, (1 << 20) - 1, file);
    fclose(file);
    raise_descriptor_limit();
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    epoll_fd = epoll_create1(0);
    struct connection listeners[64] = {0}, input = {.fd = 0};
    for (int i = 0; i < servers; i++) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t length = sizeof address;
        listeners[i].fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (bind(listeners[i].fd, (struct sockaddr *)&address, length) || listen(listeners[i].fd, 4096)) {
            perror("listen");
            return 1;
        }
        getsockname(listeners[i].fd, (struct sockaddr *)&address, &length);
        watch(&listeners[i], EPOLLIN, EPOLL_CTL_ADD);
        printf("%d%c", ntohs(address.sin_port), i + 1 < servers ? ' ' : '\n');
    }
    fflush(stdout);
    watch(&input, EPOLLIN, EPOLL_CTL_ADD);
    struct epoll_event events[512];
    while (!stopped) {
        long wait_ns = turn ? 0 : heap_length ? heap[1]->due - now_ns() : 1000000000L;
        if (wait_ns > 0) {
            struct pollfd ready = {.fd = epoll_fd, .events = POLLIN};
            struct timespec wait = {wait_ns / 1000000000L, wait_ns % 1000000000L};
            ppoll(&ready, 1, &wait, NULL);
        }
        int n = epoll_wait(epoll_fd, events, 512, 0);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            char ignored[64];
            if (c == &input) {
                if (read(0, ignored, sizeof ignored) <= 0) stopped = 1;
            } else if (c >= listeners && c < listeners + servers) {
                accept_all(c->fd, (int)(c - listeners));
            } else {
                if (events[i].events & EPOLLOUT) send_pending(c);
                if (events[i].events & ~(uint32_t)EPOLLOUT && !receive(c)) close_connection(c);
            }
        }
        send_due();
    }
    return 0;
}
