/* The load of the benchmarks: one thread, epoll, loopback only, bounded in count and time. PID is the server's process.
 *
 *   load echo PORT PID CONNECTIONS SIZE WARMUP SECONDS [tls | websocket]
 *       Every connection sends SIZE bytes, waits until they are back, compares them, and sends the next (a closed loop).
 *       What happens in the WARMUP seconds is not counted. Certificates are not verified. With `websocket` each message is
 *       a masked binary frame, and has to come back as one frame that is not masked (RFC 6455); no extension is offered,
 *       and a server's ping is a wrong answer, so that a run has to be shorter than what they wait before the first.
 *   load idle PORT CONNECTIONS
 *       Opens the connections, proves each by one echo, prints a line, and waits for a line of standard input. Then each
 *       has to echo once more.
 *   load fetch PORT PID BYTES [PATH]
 *       Receives until the end and discards. The clock runs from the first byte to the end. With PATH it asks for that by
 *       HTTP first, and the end is that of the body; the head has to say that it is a 200 with a body of BYTES.
 *
 * Each prints one line of JSON. `load_busy` is the share of a core that the load itself used: near 1 it was the bottleneck.
 * `server_busy` is the server's: well below 1 it was something else.
 * Built by harness.py.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_CONNECTIONS = 20000,
    MAX_SIZE = 1 << 20,
    MAX_SECONDS = 120,
    PER_SOURCE = 200,       /* idle connections from one source address: servers cap them */
    PATIENCE = 10,          /* seconds that a blocking step may take */
    MAX_HEAD = 8192,
    FRAME_START = 8,        /* of a WebSocket frame with a mask and less than 64 KiB */
    LATENCIES = 1000 * 1000 /* a bucket per microsecond; the last one takes what is longer */
};

static const double STALLED = 1.0; /* seconds without an answer at the end of an echo run */

/* What a connection is wrapped in. */
struct dress {
    SSL_CTX *tls;
    bool websocket;
};

struct connection {
    int fd;
    SSL *tls;
    unsigned char *question, *answer; /* what is sent and what has to come back: the same bytes, unless they are in frames */
    size_t question_size, answer_size;
    uint64_t sequence; /* the message's first bytes, so that a stale answer is a wrong one */
    size_t sent, received;
    double began;
};

static const unsigned char MASK[4] = {0x9d, 0x2f, 0x61, 0xe8};

static unsigned char scratch[MAX_SIZE];
static uint32_t latencies[LATENCIES];

static void die(const char *what)
{
    fprintf(stderr, "load: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static double read_clock(clockid_t clock)
{
    struct timespec t;
    if (clock_gettime(clock, &t) < 0)
        die("reading a clock");
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double now(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

static clockid_t server_clock; /* the processor time of the server's process */

struct moment {
    double time, load, server; /* seconds by the clock, and of processor time */
};

static struct moment this_moment(void)
{
    return (struct moment){now(), read_clock(CLOCK_PROCESS_CPUTIME_ID), read_clock(server_clock)};
}

static struct moment since(struct moment begun)
{
    struct moment m = this_moment();
    return (struct moment){m.time - begun.time, m.load - begun.load, m.server - begun.server};
}

static long number(const char *text, long least, long most)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*text == '\0' || *end != '\0' || value < least || value > most) {
        fprintf(stderr, "load: %s is not a number from %ld to %ld\n", text, least, most);
        exit(2);
    }
    return value;
}

static void watch_server(const char *pid)
{
    errno = clock_getcpuclockid((pid_t)number(pid, 1, 1L << 22), &server_clock);
    if (errno != 0)
        die("the server's process");
}

/* A blocking socket to 127.0.0.1 with a time limit, from 127.0.0.1 or one of its neighbours. */
static int dial(int port, int neighbour)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct timeval patience = {.tv_sec = PATIENCE};
    struct sockaddr_in source = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)neighbour)};
    struct sockaddr_in target = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    if (fd < 0)
        die("socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&source, sizeof source) < 0)
        die("bind");
    if (connect(fd, (struct sockaddr *)&target, sizeof target) < 0)
        die("connect");
    return fd;
}

/* Sends a request and takes the head of the answer, up to the empty line and no further, into `head`. */
static void ask(int fd, const char *request, char *head, size_t room)
{
    size_t length = 0;
    if (send(fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request))
        die("sending a request");
    while (length < 4 || memcmp(head + length - 4, "\r\n\r\n", 4) != 0) {
        if (length == room - 1 || recv(fd, head + length, 1, 0) != 1)
            die("no head of an answer");
        length++;
    }
    head[length] = '\0';
}

/* The key and what it makes are the example of RFC 6455 section 1.3. */
static void open_websocket(int fd)
{
    char head[MAX_HEAD];
    ask(fd,
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        head, sizeof head);
    if (strncmp(head, "HTTP/1.1 101 ", 13) != 0 || strstr(head, ": s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n") == NULL ||
        strcasestr(head, "\r\nSec-WebSocket-Extensions:") != NULL)
        die("the server did not open a plain WebSocket");
}

/* The start of a final binary frame, as far as the length and the mask; returns its size. */
static size_t frame_start(unsigned char *start, size_t size, bool masked)
{
    size_t length = 2;
    start[0] = 0x82;
    start[1] = (unsigned char)((masked ? 0x80 : 0) | (size < 126 ? size : 126));
    if (size >= 126) {
        start[2] = (unsigned char)(size >> 8);
        start[3] = (unsigned char)size;
        length = 4;
    }
    if (masked) {
        memcpy(start + length, MASK, sizeof MASK);
        length += sizeof MASK;
    }
    return length;
}

static void open_connection(struct connection *c, int port, int neighbour, size_t size, const struct dress *dress)
{
    c->fd = dial(port, neighbour);
    c->answer = malloc(FRAME_START + size);
    c->question = dress->websocket ? malloc(FRAME_START + size) : c->answer;
    if (c->question == NULL || c->answer == NULL)
        die("malloc");
    c->question_size = c->answer_size = size;
    if (dress->websocket) {
        open_websocket(c->fd);
        c->question_size += frame_start(c->question, size, true);
        c->answer_size += frame_start(c->answer, size, false);
    }
    for (size_t i = 0; i < size; i++)
        c->answer[c->answer_size - size + i] = (unsigned char)(i * 31 + (size_t)c->fd);
    if (dress->tls == NULL)
        return;
    c->tls = SSL_new(dress->tls);
    if (c->tls == NULL || SSL_set_fd(c->tls, c->fd) != 1 || SSL_connect(c->tls) != 1) {
        ERR_print_errors_fp(stderr);
        die("TLS handshake");
    }
}

static void close_connection(struct connection *c)
{
    SSL_free(c->tls);
    close(c->fd);
    if (c->question != c->answer)
        free(c->question);
    free(c->answer);
    *c = (struct connection){.fd = -1};
}

/* put and get return the bytes moved, 0 where the socket is not ready, -1 where the connection is lost. */

static ssize_t tls_outcome(const struct connection *c, int result)
{
    int error;
    if (result > 0)
        return result;
    error = SSL_get_error(c->tls, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return 0;
    ERR_clear_error();
    return -1;
}

static ssize_t put(const struct connection *c, const void *data, size_t size)
{
    ssize_t result;
    if (c->tls)
        return tls_outcome(c, SSL_write(c->tls, data, (int)size));
    result = send(c->fd, data, size, MSG_NOSIGNAL);
    return result >= 0 ? result : errno == EAGAIN ? 0 : -1;
}

static ssize_t get(const struct connection *c, void *data, size_t size)
{
    ssize_t result;
    if (c->tls)
        return tls_outcome(c, SSL_read(c->tls, data, (int)size));
    result = recv(c->fd, data, size, 0);
    return result > 0 ? result : result < 0 && errno == EAGAIN ? 0 : -1;
}

static void begin_round_trip(struct connection *c, size_t size, double time)
{
    unsigned char *payload = c->answer + c->answer_size - size, *masked = c->question + c->question_size - size;

    c->sequence++;
    memcpy(payload, &c->sequence, size < sizeof c->sequence ? size : sizeof c->sequence);
    if (masked != payload)
        for (size_t i = 0; i < size; i++)
            masked[i] = payload[i] ^ MASK[i % sizeof MASK];
    c->sent = c->received = 0;
    c->began = time;
}

/* Takes what has come of the answer. False: the connection is lost, or the answer is wrong. */
static bool receive_answer(struct connection *c)
{
    while (c->received < c->answer_size) {
        ssize_t moved = get(c, scratch, c->answer_size - c->received);
        if (moved < 0 || memcmp(scratch, c->answer + c->received, (size_t)moved) != 0)
            return false;
        if (moved == 0)
            break;
        c->received += (size_t)moved;
    }
    return true;
}

static bool send_question(struct connection *c)
{
    while (c->sent < c->question_size) {
        ssize_t moved = put(c, c->question + c->sent, c->question_size - c->sent);
        if (moved < 0)
            return false;
        if (moved == 0)
            break;
        c->sent += (size_t)moved;
    }
    return true;
}

/* One round trip on a blocking socket; false also where it takes too long. */
static bool echo_once(struct connection *c, size_t size)
{
    begin_round_trip(c, size, 0);
    return send_question(c) && c->sent == c->question_size && receive_answer(c) && c->received == c->answer_size;
}

/* ---- echo ---- */

struct tally {
    bool counting;
    uint64_t round_trips;
    struct moment began;
};

static void record(struct tally *tally, double latency)
{
    size_t bucket = (size_t)(latency * 1e6);
    latencies[bucket < LATENCIES ? bucket : LATENCIES - 1]++;
    tally->round_trips++;
}

/* Goes on as far as the socket allows; false where the connection failed. The descriptor is edge-triggered: each direction
 * is tried until it is done or not ready, and after a whole message is sent there is nothing to read before the next edge. */
static bool advance(struct connection *c, size_t size, struct tally *tally)
{
    if (!receive_answer(c))
        return false;
    if (c->received == c->answer_size) {
        double time = now();
        if (tally->counting)
            record(tally, time - c->began);
        begin_round_trip(c, size, time);
    }
    return send_question(c);
}

static double percentile(uint64_t count, double share)
{
    uint64_t seen = 0, wanted = (uint64_t)((double)count * share);
    for (size_t bucket = 0; bucket < LATENCIES; bucket++) {
        seen += latencies[bucket];
        if (seen > wanted)
            return (double)bucket + 0.5;
    }
    return 0;
}

static int connect_all(struct connection *connections, int count, size_t size, int port, const struct dress *dress)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die("epoll_create1");
    for (int i = 0; i < count; i++) {
        struct connection *c = &connections[i];
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
        open_connection(c, port, 0, size, dress);
        begin_round_trip(c, size, now());
        if (fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) < 0)
            die("watching a connection");
    }
    return epoll;
}

static void echo(int port, int count, size_t size, long warmup, long seconds, const struct dress *dress)
{
    struct connection *connections = calloc((size_t)count, sizeof *connections);
    struct epoll_event events[256];
    struct tally tally = {0};
    int errors = 0, epoll;
    double start, end, time;
    struct moment passed;

    if (connections == NULL)
        die("out of memory");
    epoll = connect_all(connections, count, size, port, dress);
    start = now() + (double)warmup;
    end = start + (double)seconds;
    while ((time = now()) < end && errors < count) {
        if (!tally.counting && time >= start)
            tally = (struct tally){.counting = true, .began = this_moment()};
        int ready = epoll_wait(epoll, events, 256, 10);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (!advance(c, size, &tally)) {
                close_connection(c);
                errors++;
            }
        }
    }
    for (int i = 0; i < count; i++)
        if (connections[i].fd >= 0 && time - connections[i].began > STALLED)
            errors++;
    passed = since(tally.began);
    printf("{\"rate\": %.1f, \"p50\": %.1f, \"p99\": %.1f, \"cost\": %.3f, ", (double)tally.round_trips / passed.time,
           percentile(tally.round_trips, 0.50), percentile(tally.round_trips, 0.99),
           1e6 * passed.server / (double)(tally.round_trips ? tally.round_trips : 1));
    printf("\"load_busy\": %.3f, \"server_busy\": %.3f, \"errors\": %d}\n", passed.load / passed.time,
           passed.server / passed.time, errors);
}

/* ---- idle ---- */

static void idle(int port, int count)
{
    static const size_t size = 64;
    static const struct dress plain = {0};
    struct connection *connections = calloc((size_t)count, sizeof *connections);
    int alive = 0;

    if (connections == NULL)
        die("out of memory");
    for (int i = 0; i < count; i++) {
        open_connection(&connections[i], port, i / PER_SOURCE, size, &plain);
        if (!echo_once(&connections[i], size)) {
            fprintf(stderr, "load: connection %d of %d is open but does not echo\n", i + 1, count);
            exit(1);
        }
    }
    printf("{\"open\": %d}\n", count);
    fflush(stdout);
    getchar();
    for (int i = 0; i < count; i++)
        alive += echo_once(&connections[i], size);
    printf("{\"alive\": %d}\n", alive);
}

/* ---- fetch ---- */

/* Asks for a file; the body is what is left to receive. */
static void request_file(int fd, const char *path, long expected)
{
    char request[MAX_HEAD], head[MAX_HEAD], length[64];
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path);
    snprintf(length, sizeof length, "\r\nContent-Length: %ld\r\n", expected);
    ask(fd, request, head, sizeof head);
    if (strncmp(head, "HTTP/1.1 200 ", 13) != 0 || strcasestr(head, length) == NULL)
        die("the answer is not a 200 of the expected length");
}

static void fetch(int port, long expected, const char *path)
{
    int fd = dial(port, 0);
    long bytes = 0;
    struct moment first = {0}, passed;

    if (path != NULL)
        request_file(fd, path, expected);
    while (path == NULL || bytes < expected) {
        /* MSG_TRUNC throws the bytes away inside the kernel, so that the receiver's copying is not what is measured. */
        ssize_t moved = recv(fd, NULL, MAX_SIZE, MSG_TRUNC);
        if (moved < 0)
            die("recv");
        if (moved == 0)
            break;
        if (bytes == 0)
            first = this_moment();
        bytes += moved;
    }
    passed = since(first);
    printf("{\"seconds\": %.6f, \"bytes\": %ld, \"load_busy\": %.3f, \"server_busy\": %.3f, \"errors\": %d}\n",
           passed.time, bytes, passed.load / passed.time, passed.server / passed.time, bytes != expected);
}

static void usage(void)
{
    fprintf(stderr, "usage: load echo PORT PID CONNECTIONS SIZE WARMUP SECONDS [tls | websocket]\n"
                    "       load idle PORT CONNECTIONS\n"
                    "       load fetch PORT PID BYTES [PATH]\n");
    exit(2);
}

int main(int argc, char **argv)
{
    const char *job = argc > 3 ? argv[1] : "";
    int port = argc > 3 ? (int)number(argv[2], 1, 65535) : 0;
    bool tls = argc == 9 && strcmp(argv[8], "tls") == 0;
    struct dress dress = {.websocket = argc == 9 && strcmp(argv[8], "websocket") == 0};

    signal(SIGPIPE, SIG_IGN);
    alarm(3 * MAX_SECONDS); /* whatever happens, this process ends */
    if (strcmp(job, "echo") == 0 && (argc == 8 || (argc == 9 && (dress.websocket || tls)))) {
        watch_server(argv[3]);
        if (tls && (dress.tls = SSL_CTX_new(TLS_client_method())) == NULL)
            die("out of memory");
        echo(port, (int)number(argv[4], 1, MAX_CONNECTIONS),
             (size_t)number(argv[5], 1, dress.websocket ? UINT16_MAX : MAX_SIZE), number(argv[6], 0, MAX_SECONDS),
             number(argv[7], 1, MAX_SECONDS), &dress);
    } else if (strcmp(job, "idle") == 0 && argc == 4) {
        idle(port, (int)number(argv[3], 1, MAX_CONNECTIONS));
    } else if (strcmp(job, "fetch") == 0 && (argc == 5 || argc == 6)) {
        watch_server(argv[3]);
        fetch(port, number(argv[4], 1, 1L << 40), argc == 6 ? argv[5] : NULL);
    } else {
        usage();
    }
    return 0;
}
