/* An MQTT 3.1.1 load generator that is cheap enough to share a core with what it measures.
 *
 * One connection is one device. Telemetry mode keeps up to `window` QoS 1 publishes in flight on
 * each connection, as fast as they are acknowledged or at a total `rate`; SOS mode publishes one
 * emergency on each connection, spread over time, and writes down when it was sent.
 *
 * Latency is counted from the moment a message was due, not from the moment there was room for it,
 * so a service that stalls cannot hide its stall by slowing its clients down.
 *
 * Time stamps of a device start `behind` the clock (default 8 minutes) and follow it, at least one
 * millisecond apart; above 1,000 messages/s of one device they catch up with the clock and pass it.
 * A run ends with an error before they are 2 minutes ahead, because such readings are not live.
 *
 * It prints one line of JSON. Every argument is name=value, see `usage`.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define TAILS 4096          /* distinct sets of values, one for each 100 ms of a device's time */
#define TICK_NS 500000      /* how finely a rate is kept */
#define OUT_BYTES (256 * 1024)
#define IN_BYTES (64 * 1024)
#define AHEAD_MS 110000

typedef struct {
    int fd;
    char id[65], secret[129];
    uint8_t head[96];       /* fixed header and topic, the same in every publish */
    int head_length;
    int64_t ts_ms;          /* of the last message */
    uint64_t sent;
    int64_t *due_ns;        /* by packet id: when that message was due */
    uint16_t *free_ids;
    int free_count;
    int value_offset;
    uint8_t *out;
    int out_start, out_end;
    uint8_t *in;
    int in_length;
    int64_t sos_due_ns, sos_sent_ns, sos_acked_ns;
} Connection;

static const char *host = "127.0.0.1", *devices_path, *sos_path, *sos_tag = "sos";
static int port, connection_count = 8, window = 1000, epoll_fd, timer_fd;
static double rate, seconds = 10, warm;
static int64_t messages, start_ms, behind_ms = 8 * 60 * 1000;
static Connection *connections;
static char tails[TAILS][128];
static int tail_length;
static int64_t begin_ns, end_ns, last_ack_ns, wall_minus_mono_ms;
static uint64_t sent_total, acked_total;

static uint64_t histogram[64 * 64];
static uint64_t recorded;
static int64_t slowest_ns;

static void usage(void) {
    fprintf(stderr,
            "usage: load port=P devices=FILE [host=H] [connections=8] [window=1000] [rate=0]\n"
            "            [seconds=10] [warm=0] [messages=0] [start=EPOCH_MS] [behind=MS]\n"
            "            [sos=FILE] [tag=PREFIX]\n"
            "devices: one `id secret` a line; rate 0: as fast as acknowledged; messages 0: no limit;\n"
            "sos: one event a connection at `rate`, FILE gets `id device sent_ns acked_ns`.\n");
    exit(2);
}

static void fail(const char *what) {
    fprintf(stderr, "load: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static void fail_device(const Connection *c, const char *what) {
    fprintf(stderr, "load: device %s: %s (after %llu messages)\n", c->id, what,
            (unsigned long long)c->sent);
    exit(1);
}

static int64_t mono_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static int64_t wall_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* Latencies: 64 buckets for each power of two, so an answer is exact to 1.6 %. */
static void record(int64_t ns) {
    uint64_t v = ns < 64 ? 64 : (uint64_t)ns;
    int exponent = 63 - __builtin_clzll(v);
    histogram[exponent * 64 + ((v >> (exponent - 6)) & 63)]++;
    recorded++;
    if (ns > slowest_ns) slowest_ns = ns;
}

static double percentile_ms(double share) {
    uint64_t rank = (uint64_t)ceil(share * recorded), seen = 0;
    if (!recorded) return 0;
    for (int i = 0; i < 64 * 64; i++) {
        seen += histogram[i];
        if (seen >= rank) {
            int exponent = i / 64;
            double high = ldexp(1 + (i % 64 + 1) / 64.0, exponent);
            return (high < slowest_ns ? high : slowest_ns) / 1e6;
        }
    }
    return slowest_ns / 1e6;
}

/* Values of a healthy body that vary slowly; every text has the same length. */
static void prepare_tails(void) {
    for (int i = 0; i < TAILS; i++) {
        double turn = 2 * M_PI * i / TAILS;
        tail_length = snprintf(
            tails[i], sizeof tails[i],
            ",\"hr\":%2.0f,\"rr\":%4.1f,\"spo2\":%4.1f,\"temp\":%5.2f,\"sbp\":%3.0f,\"dbp\":%2.0f,"
            "\"movement\":%4.2f}",
            72 + 8 * sin(turn), 15.5 + 2 * sin(2 * turn + 1), 97 + sin(3 * turn),
            36.6 + 0.3 * sin(turn + 2), 122 + 7 * sin(2 * turn), 74 + 5 * sin(turn + 1),
            0.15 + 0.1 * sin(5 * turn));
    }
}

static int put_length(uint8_t *to, int length) {
    int n = 0;
    do {
        to[n] = length & 127;
        length >>= 7;
        if (length) to[n] |= 128;
        n++;
    } while (length);
    return n;
}

static int put_text(uint8_t *to, const char *text) {
    int length = strlen(text);
    to[0] = length >> 8;
    to[1] = length & 255;
    memcpy(to + 2, text, length);
    return length + 2;
}

/* Fixed header and topic of every publish of this connection, whose payload is `size` bytes. */
static void prepare_head(Connection *c, const char *kind, int size) {
    char topic[128];
    int topic_length = snprintf(topic, sizeof topic, "anxin/v1/%s/%s", c->id, kind);
    c->head[0] = 0x32; /* PUBLISH, QoS 1 */
    int n = 1 + put_length(c->head + 1, 2 + topic_length + 2 + size);
    c->head_length = n + put_text(c->head + n, topic);
}

static void read_devices(void) {
    FILE *file = fopen(devices_path, "r");
    if (!file) fail(devices_path);
    for (int i = 0; i < connection_count; i++) {
        Connection *c = &connections[i];
        if (fscanf(file, "%64s %128s", c->id, c->secret) != 2) {
            errno = 0;
            fail("the devices file has fewer lines than connections");
        }
    }
    fclose(file);
}

static void open_connections(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) fail("host must be an IPv4 address");
    for (int i = 0; i < connection_count; i++) {
        Connection *c = &connections[i];
        uint8_t body[400], packet[410];
        int one = 1, n = put_text(body, "MQTT");
        c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        memcpy(body + n, "\x04\xc2\x02\x58", 4); /* 3.1.1, user + password + clean, 600 s */
        n += 4;
        n += put_text(body + n, c->id);
        n += put_text(body + n, c->id);
        n += put_text(body + n, c->secret);
        packet[0] = 0x10;
        int length = 1 + put_length(packet + 1, n);
        memcpy(packet + length, body, n);
        if (send(c->fd, packet, length + n, MSG_NOSIGNAL) != length + n) fail("send CONNECT");
    }
    for (int i = 0; i < connection_count; i++) {
        Connection *c = &connections[i];
        uint8_t answer[4];
        struct timeval limit = {.tv_sec = 20};
        setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        if (recv(c->fd, answer, 4, MSG_WAITALL) != 4) fail_device(c, "no CONNACK");
        if (answer[0] != 0x20 || answer[3] != 0) fail_device(c, "was refused");
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event)) fail("epoll_ctl");
    }
}

static void flush_out(Connection *c) {
    while (c->out_start < c->out_end) {
        ssize_t n = send(c->fd, c->out + c->out_start, c->out_end - c->out_start, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) return;
            fail_device(c, strerror(errno));
        }
        c->out_start += n;
    }
    c->out_start = c->out_end = 0;
}

static uint8_t *put_head(Connection *c, uint16_t packet_id) {
    uint8_t *at = c->out + c->out_end;
    memcpy(at, c->head, c->head_length);
    at += c->head_length;
    at[0] = packet_id >> 8;
    at[1] = packet_id & 255;
    return at + 2;
}

static void put_telemetry(Connection *c, int64_t due_ns, int64_t now_ns) {
    uint16_t packet_id = c->free_ids[--c->free_count];
    uint8_t *at = put_head(c, packet_id);
    int64_t paced = start_ms + (now_ns - begin_ns) / 1000000;
    c->ts_ms = c->ts_ms + 1 > paced ? c->ts_ms + 1 : paced;
    memcpy(at, "{\"ts\":", 6);
    uint64_t digits = c->ts_ms;
    for (int i = 18; i >= 6; i--) {
        at[i] = '0' + digits % 10;
        digits /= 10;
    }
    memcpy(at + 19, tails[(c->ts_ms / 100 + c->value_offset) % TAILS], tail_length);
    c->out_end = at + 19 + tail_length - c->out;
    c->due_ns[packet_id] = due_ns;
    c->sent++;
    sent_total++;
}

static int64_t due_of_next(const Connection *c) {
    double place = (double)(c - connections) + (double)c->sent * connection_count;
    return begin_ns + (int64_t)(place / rate * 1e9);
}

/* Sends what is due and has room; without a rate everything is due. */
static void fill(Connection *c, int64_t now_ns) {
    if (c->out_end > c->out_start) flush_out(c);
    if (c->out_end > c->out_start || now_ns >= end_ns) return;
    /* At full speed a message is cheap only in company: wait for an eighth of the window. */
    if (rate <= 0 && c->free_count < (window + 7) / 8) return;
    while (c->free_count && c->out_end + 512 < OUT_BYTES) {
        int64_t due_ns = rate > 0 ? due_of_next(c) : now_ns;
        if (due_ns > now_ns || due_ns >= end_ns) break;
        if (messages && sent_total >= (uint64_t)messages) break;
        put_telemetry(c, due_ns, now_ns);
    }
    if (c->ts_ms - (now_ns / 1000000 + wall_minus_mono_ms) > AHEAD_MS) {
        fail_device(c, "time stamps are about to run 2 minutes ahead of the clock; "
                       "take more connections, fewer seconds or a larger behind=");
    }
    flush_out(c);
}

static void put_sos(Connection *c, int number) {
    char payload[160];
    c->sos_sent_ns = mono_ns();
    int size = snprintf(payload, sizeof payload, "{\"id\":\"%s-%d\",\"type\":\"sos\",\"ts\":%lld}",
                        sos_tag, number, (long long)(c->sos_sent_ns / 1000000 + wall_minus_mono_ms));
    prepare_head(c, "event", size);
    memcpy(put_head(c, 1), payload, size);
    c->out_end += c->head_length + 2 + size;
    flush_out(c);
    sent_total++;
}

static void acknowledged(Connection *c, uint16_t packet_id, int64_t now_ns) {
    acked_total++;
    last_ack_ns = now_ns;
    if (sos_path) {
        c->sos_acked_ns = now_ns;
        record(now_ns - c->sos_sent_ns);
        return;
    }
    if (packet_id == 0 || packet_id > window) fail_device(c, "PUBACK of an unknown packet");
    int64_t due_ns = c->due_ns[packet_id];
    if (!due_ns) fail_device(c, "a second PUBACK of one packet");
    c->due_ns[packet_id] = 0;
    if (due_ns >= begin_ns + (int64_t)(warm * 1e9)) record(now_ns - due_ns);
    c->free_ids[c->free_count++] = packet_id;
}

static void read_acknowledgements(Connection *c) {
    for (;;) {
        int room_left = IN_BYTES - c->in_length;
        ssize_t n = recv(c->fd, c->in + c->in_length, room_left, 0);
        if (n < 0) {
            if (errno == EAGAIN) return;
            fail_device(c, strerror(errno));
        }
        if (n == 0) fail_device(c, "the service closed the connection");
        c->in_length += n;
        int64_t now_ns = mono_ns();
        int at = 0;
        while (c->in_length - at >= 2) {
            int length = c->in[at + 1];
            if (length > 127) fail_device(c, "a packet that was not expected");
            if (c->in_length - at < 2 + length) break;
            if (c->in[at] == 0x40) acknowledged(c, c->in[at + 2] << 8 | c->in[at + 3], now_ns);
            at += 2 + length;
        }
        c->in_length -= at;
        memmove(c->in, c->in + at, c->in_length);
        if (n < room_left) return; /* the edge of what has come: epoll tells of more */
    }
}

static void set_timer(void) {
    struct itimerspec every = {.it_interval.tv_nsec = TICK_NS, .it_value.tv_nsec = TICK_NS};
    if (timerfd_settime(timer_fd, 0, &every, NULL)) fail("timerfd_settime");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &event)) fail("epoll_ctl");
}

static void serve(void) {
    struct epoll_event events[256];
    uint64_t ticks;
    int next_sos = 0;
    while (1) {
        int n = epoll_wait(epoll_fd, events, 256, 100), tick = 0;
        if (n < 0 && errno != EINTR) fail("epoll_wait");
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) read_acknowledgements(events[i].data.ptr);
            else tick = read(timer_fd, &ticks, sizeof ticks) > 0;
        }
        int64_t now_ns = mono_ns();
        if (sos_path) {
            while (next_sos < connection_count && connections[next_sos].sos_due_ns <= now_ns) {
                put_sos(&connections[next_sos], next_sos);
                next_sos++;
            }
            if (acked_total == (uint64_t)connection_count) return;
        } else if (tick) {
            for (int i = 0; i < connection_count; i++) fill(&connections[i], now_ns);
        } else {
            for (int i = 0; i < n; i++)
                if (events[i].data.ptr) fill(events[i].data.ptr, now_ns);
        }
        int complete = messages && sent_total >= (uint64_t)messages;
        if (!sos_path && (now_ns >= end_ns || complete) && acked_total == sent_total) return;
        if (now_ns > end_ns + 60 * SECOND) return;
    }
}

static void write_sos_log(void) {
    FILE *file = fopen(sos_path, "w");
    if (!file) fail(sos_path);
    for (int i = 0; i < connection_count; i++) {
        Connection *c = &connections[i];
        fprintf(file, "%s-%d %s %lld %lld\n", sos_tag, i, c->id, (long long)c->sos_sent_ns,
                (long long)c->sos_acked_ns);
    }
    if (fclose(file)) fail(sos_path);
}

static void *room(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (!memory) fail("memory");
    return memory;
}

static void read_arguments(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value) usage();
        *value++ = 0;
        const char *name = argv[i];
        if (!strcmp(name, "host")) host = value;
        else if (!strcmp(name, "port")) port = atoi(value);
        else if (!strcmp(name, "devices")) devices_path = value;
        else if (!strcmp(name, "connections")) connection_count = atoi(value);
        else if (!strcmp(name, "window")) window = atoi(value);
        else if (!strcmp(name, "rate")) rate = atof(value);
        else if (!strcmp(name, "seconds")) seconds = atof(value);
        else if (!strcmp(name, "warm")) warm = atof(value);
        else if (!strcmp(name, "messages")) messages = atoll(value);
        else if (!strcmp(name, "start")) start_ms = atoll(value);
        else if (!strcmp(name, "behind")) behind_ms = atoll(value);
        else if (!strcmp(name, "sos")) sos_path = value;
        else if (!strcmp(name, "tag")) sos_tag = value;
        else usage();
    }
    if (!port || !devices_path || connection_count < 1 || window < 1 || window > 65535) usage();
    if (sos_path && rate <= 0) usage();
}

int main(int argc, char **argv) {
    read_arguments(argc, argv);
    connections = room(connection_count, sizeof *connections);
    read_devices();
    prepare_tails();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (epoll_fd < 0 || timer_fd < 0) fail("epoll");
    open_connections();

    wall_minus_mono_ms = wall_ms() - mono_ns() / 1000000;
    if (!start_ms) start_ms = wall_ms() - behind_ms;
    begin_ns = mono_ns();
    end_ns = begin_ns + (int64_t)((sos_path ? connection_count / rate : seconds) * 1e9);
    srand(7);
    for (int i = 0; i < connection_count; i++) {
        Connection *c = &connections[i];
        c->in = room(IN_BYTES, 1);
        c->out = room(OUT_BYTES, 1);
        c->ts_ms = start_ms - 1;
        c->value_offset = i * 37;
        c->due_ns = room(window + 1, sizeof *c->due_ns);
        c->free_ids = room(window, sizeof *c->free_ids);
        while (c->free_count < window) {
            c->free_ids[c->free_count] = window - c->free_count;
            c->free_count++;
        }
        if (!sos_path) prepare_head(c, "telemetry", 19 + tail_length);
        /* Somewhere within its share of the time, so that nothing beats in step with it. */
        c->sos_due_ns = begin_ns + (int64_t)((i + rand() / (double)RAND_MAX) / (rate + 1e-9) * 1e9);
    }
    if (rate > 0) set_timer();
    else for (int i = 0; i < connection_count; i++) fill(&connections[i], mono_ns());
    serve();

    struct rusage own;
    getrusage(RUSAGE_SELF, &own);
    double cpu = own.ru_utime.tv_sec + own.ru_stime.tv_sec
                 + (own.ru_utime.tv_usec + own.ru_stime.tv_usec) / 1e6;
    double took = (last_ack_ns - begin_ns) / 1e9;
    int64_t newest_ms = 0;
    for (int i = 0; i < connection_count; i++)
        if (connections[i].ts_ms > newest_ms) newest_ms = connections[i].ts_ms;
    printf("{\"sent\":%llu,\"acked\":%llu,\"seconds\":%.4f,\"rate\":%.1f,\"p50_ms\":%.3f,"
           "\"p90_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f,\"cpu_seconds\":%.4f,"
           "\"begin_ns\":%lld,\"newest_ts\":%lld,\"message_bytes\":%d}\n",
           (unsigned long long)sent_total, (unsigned long long)acked_total, took,
           took > 0 ? acked_total / took : 0, percentile_ms(0.5), percentile_ms(0.9),
           percentile_ms(0.99), slowest_ns / 1e6, cpu, (long long)begin_ns, (long long)newest_ms,
           19 + tail_length);
    if (sos_path) write_sos_log();
    return acked_total == sent_total ? 0 : 1;
}
