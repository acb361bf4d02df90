/* A load generator: kept-alive connections on loopback, one thread, epoll.
 *
 *     load PORT CONNECTIONS WARM_UP_S SECONDS PAUSE_US BODY_FILE [hold]
 *
 * Each connection posts the file to /v1/chat/completions, waits for the whole answer, pauses, and
 * starts again. Prints "measuring" when the warm-up is over, and one line of JSON at the end.
 * With `hold` each connection asks once; "open" is printed when every one has had a first byte
 * (at the latest after SECONDS), and the end comes with the last answer or 2 * SECONDS later.
 */
#include "http_message.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST_STARTING 64
#define STAMP 20 /* T and 19 digits */
#define HEAD_SIZE 16384

struct connection {
    int fd, connected, starting, has_head, status, counted;
    struct body body;
    char *head;
    size_t head_length, carried;
    char carry[STAMP];
    long sent_at, last_late, resume_at, unsent;
    struct connection *next_paused;
};

struct samples { float *values; size_t length, size; };

static int epoll_fd, starting, hold;
static struct sockaddr_in address;
static char *message;
static size_t message_length;
static long measure_from, pause_ns, received_at;
static long responses, errors, chunks, first_bytes, answered;
static struct samples latency, first_byte, lateness, gap;
static struct connection *paused, **paused_end = &paused;

static void add(struct samples *s, long ns) {
    if (s->length == s->size) {
        s->size = s->size ? s->size * 2 : 4096;
        s->values = realloc(s->values, s->size * sizeof *s->values);
    }
    s->values[s->length++] = (float)ns / 1e3f;
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void print_samples(const char *name, struct samples *s) {
    qsort(s->values, s->length, sizeof *s->values, ascending);
    printf(", \"%s\": ", name);
    if (!s->length) { printf("null"); return; }
    printf("{\"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f}", s->values[s->length / 2],
           s->values[s->length * 99 / 100], s->values[s->length - 1]);
}

static void watch(struct connection *c, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(epoll_fd, how, c->fd, &event);
}

static void pause_for(struct connection *c, long ns) {
    c->resume_at = now_ns() + ns;
    c->next_paused = NULL;
    *paused_end = c;
    paused_end = &c->next_paused;
}

static void started(struct connection *c) {
    if (c->starting) { c->starting = 0; starting--; }
}

static void failed(struct connection *c, const char *what) {
    if (++errors <= 3) fprintf(stderr, "%s\n", what);
    started(c);
    if (c->connected || c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->connected = 0;
    if (hold) answered++;
    else pause_for(c, 20000000);
}

static void send_request(struct connection *c) {
    size_t from = message_length - (size_t)c->unsent;
    ssize_t n = send(c->fd, message + from, (size_t)c->unsent, MSG_NOSIGNAL);
    if (n > 0) c->unsent -= n;
    if (c->unsent) watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    else if (n < (ssize_t)message_length) watch(c, EPOLLIN, EPOLL_CTL_MOD);
}

static void begin(struct connection *c) {
    c->has_head = c->status = 0;
    c->head_length = c->carried = 0;
    c->last_late = -1;
    c->sent_at = now_ns();
    c->counted = c->sent_at >= measure_from;
    c->unsent = (long)message_length;
    if (c->fd < 0) {
        int one = 1;
        c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
            failed(c, strerror(errno));
            return;
        }
        watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
        return;
    }
    send_request(c);
}

static void saw_stamp(struct connection *c, const char *digits) {
    char text[STAMP];
    memcpy(text, digits, STAMP - 1);
    text[STAMP - 1] = 0;
    long late = received_at - atol(text);
    if (received_at >= measure_from) {
        chunks++;
        add(&lateness, late);
        if (c->last_late >= 0) add(&gap, labs(late - c->last_late));
    }
    c->last_late = late;
}

/* Find the stamps; one that is cut off by the end of the data is carried to the next piece. */
static void find_stamps(void *context, const char *data, size_t length) {
    struct connection *c = context;
    if (c->carried) {
        size_t n = STAMP + 1 - c->carried < length ? STAMP + 1 - c->carried : length;
        char joined[STAMP + 1];
        memcpy(joined, c->carry, c->carried);
        memcpy(joined + c->carried, data, n);
        if (c->carried + n <= STAMP) {
            memcpy(c->carry, joined, c->carried += n);
            return;
        }
        c->carried = 0;
        if (joined[1] == 'T') saw_stamp(c, joined + 2);
    }
    const char *end = data + length, *at = data;
    while ((at = memmem(at, (size_t)(end - at), "\"T", 2))) {
        if (end - at <= STAMP) {
            memcpy(c->carry, at, c->carried = (size_t)(end - at));
            return;
        }
        saw_stamp(c, at + 2);
        at += STAMP + 1;
    }
    if (length && end[-1] == '"') c->carry[0] = '"', c->carried = 1;
}

static void finish(struct connection *c) {
    answered++;
    if (c->status != 200) {
        char what[200];
        snprintf(what, sizeof what, "status %d", c->status);
        failed(c, what);
        return;
    }
    if (received_at >= measure_from) {
        responses++;
        if (c->counted) add(&latency, received_at - c->sent_at);
    }
    const char *told = header(c->head, c->head_length, "connection");
    if (hold || c->body.framing == BY_CLOSE || (told && !strncasecmp(told, "close", 5))) {
        close(c->fd);
        c->fd = -1;
        c->connected = 0;
    }
    if (hold) return;
    if (pause_ns) pause_for(c, pause_ns);
    else begin(c);
}

static void take(struct connection *c, char *data, size_t length) {
    size_t at = 0;
    if (!c->has_head) {
        size_t n = HEAD_SIZE - c->head_length < length ? HEAD_SIZE - c->head_length : length;
        size_t before = c->head_length;
        memcpy(c->head + before, data, n);
        char *end = memmem(c->head, before + n, "\r\n\r\n", 4);
        if (!end) { c->head_length += n; return; }
        c->head_length = (size_t)(end + 4 - c->head);
        at = c->head_length - before;
        c->has_head = 1;
        c->status = atoi(c->head + 9);
        c->body = body_after(c->head, c->head_length, BY_CLOSE);
        started(c);
        first_bytes++;
        if (c->counted) add(&first_byte, received_at - c->sent_at);
    }
    read_body(&c->body, data + at, length - at, find_stamps, c);
    if (c->body.complete) finish(c);
}

static void receive(struct connection *c) {
    static char data[1 << 18];
    ssize_t n = recv(c->fd, data, sizeof data, 0);
    if (n < 0 && (errno == EAGAIN)) return;
    received_at = now_ns();
    if (n > 0) take(c, data, (size_t)n);
    else if (c->has_head && c->body.framing == BY_CLOSE && !n) finish(c);
    else failed(c, n ? strerror(errno) : "closed before the answer was complete");
}

static void read_message(const char *file, int port) {
    FILE *body = fopen(file, "rb");
    if (!body) { perror(file); exit(2); }
    message = malloc(64 << 20);
    char *content = malloc(32 << 20);
    size_t length = fread(content, 1, 32 << 20, body);
    int n = sprintf(message,
                    "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
                    "User-Agent: OpenAI/Python 1.99.0\r\nAccept: application/json\r\n"
                    "Accept-Encoding: gzip, deflate\r\nAuthorization: Bearer sk-bench\r\n"
                    "X-Stainless-Lang: python\r\nX-Stainless-Retry-Count: 0\r\n"
                    "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n", port, length);
    memcpy(message + n, content, length);
    message_length = (size_t)n + length;
    free(content);
    fclose(body);
}

static void resume_paused(void) {
    while (paused && paused->resume_at <= now_ns()) {
        struct connection *c = paused;
        paused = c->next_paused;
        if (!paused) paused_end = &paused;
        begin(c);
    }
}

int main(int count, char **arguments) {
    if (count < 7) { fprintf(stderr, "load PORT CONNECTIONS WARM_UP_S SECONDS PAUSE_US BODY_FILE [hold]\n"); return 2; }
    int connections = atoi(arguments[2]), opened = 0, said = 0;
    long second = 1000000000L;
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                   .sin_port = htons((uint16_t)atoi(arguments[1]))};
    pause_ns = atol(arguments[5]) * 1000;
    hold = count > 7;
    read_message(arguments[6], atoi(arguments[1]));
    raise_descriptor_limit();
    epoll_fd = epoll_create1(0);
    long begun = now_ns(), limit = (long)(atof(arguments[4]) * (double)second);
    measure_from = begun + (long)(atof(arguments[3]) * (double)second);
    long stop_at = measure_from + (hold ? 3 * limit : limit);
    struct connection *all = calloc((size_t)connections, sizeof *all);
    struct epoll_event events[512];
    long now;
    while ((now = now_ns()) < stop_at && !(hold && answered == connections)) {
        if (!hold && !said && now >= measure_from) { said = 1; puts("measuring"); fflush(stdout); }
        if (hold && !said && (first_bytes + errors >= connections || now >= begun + limit)) {
            said = 1;
            printf("open %ld\n", first_bytes);
            fflush(stdout);
        }
        while (opened < connections && starting < MOST_STARTING) {
            struct connection *c = &all[opened++];
            c->fd = -1;
            c->head = malloc(HEAD_SIZE);
            c->starting = 1;
            starting++;
            begin(c);
        }
        long until = stop_at;
        if (!said && measure_from > now && measure_from < until) until = measure_from;
        if (paused && paused->resume_at < until) until = paused->resume_at;
        long wait_ns = until > now ? until - now : 0;
        if (wait_ns > 100000000) wait_ns = 100000000;
        struct timespec wait = {0, wait_ns};
        struct pollfd ready = {.fd = epoll_fd, .events = POLLIN};
        int n = epoll_wait(epoll_fd, events, 512, 0);
        if (!n) {
            ppoll(&ready, 1, &wait, NULL);
            n = epoll_wait(epoll_fd, events, 512, 0);
        }
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (c->fd < 0) continue;
            if (!c->connected && events[i].events & EPOLLOUT) c->connected = 1;
            if (c->connected && events[i].events & EPOLLOUT && c->unsent) send_request(c);
            if (events[i].events & ~(uint32_t)EPOLLOUT) receive(c);
        }
        resume_paused();
    }
    double seconds = (double)(now_ns() - measure_from) / 1e9;
    printf("{\"seconds\": %.6f, \"responses\": %ld, \"errors\": %ld, \"chunks\": %ld", seconds,
           responses, errors, chunks);
    print_samples("latency_us", &latency);
    print_samples("first_byte_us", &first_byte);
    print_samples("late_us", &lateness);
    print_samples("gap_us", &gap);
    puts("}");
    return 0;
}
