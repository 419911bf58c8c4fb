/* The load: FC3 requests from one thread over many connections, one outstanding on each.
 *
 *     load CORE SECONDS CONNECTIONS RATE COUNT PORT:UNITS...
 *
 * RATE 0: a connection asks again as soon as it has its answer. Prints {"answers": n, "seconds": s}.
 * RATE n: n requests a second in all, in turn over the connections; each has its time to go out, and latency counts
 * from then, so that a request which had to wait for its connection shows how long. Prints also the number of
 * requests, and the percentiles of latency in microseconds.
 *
 * Connections are dealt out over the PORTs, the requests of each over units 1 to UNITS of its port. Every answer's
 * transaction, protocol, length, unit, function and byte count are checked; the first that is wrong ends the program
 * with status 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ADDRESS = 1000, MOST = 1024, LARGEST = 260, BINS = 1000000 };

struct client {
    int fd;
    uint16_t transaction;
    uint8_t unit, units;
    int received;  /* bytes of the answer that is awaited */
    int waiting;   /* an answer is awaited */
    int64_t due;   /* ns: when the request was to go out */
    uint8_t answer[LARGEST];
};

static struct client clients[MOST];
static int count, poll_fd;
static uint32_t histogram[BINS]; /* by microsecond; the last holds all that took longer */

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void need(int ok, const char *what) {
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static void connect_to(struct client *client, const char *target) {
    int port, units;
    need(sscanf(target, "%d:%d", &port, &units) == 2 && units > 0 && units < 256, "PORT:UNITS");
    client->units = units;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    client->fd = socket(AF_INET, SOCK_STREAM, 0);
    need(client->fd >= 0 && connect(client->fd, (struct sockaddr *)&address, sizeof address) == 0, "connect");
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    need(epoll_ctl(poll_fd, EPOLL_CTL_ADD, client->fd, &event) == 0, "epoll_ctl");
}

static void ask(struct client *client) {
    client->transaction++;
    client->unit = client->unit % client->units + 1;
    uint8_t request[12] = {client->transaction >> 8, client->transaction, 0, 0, 0, 6, client->unit, 3,
                           ADDRESS >> 8, ADDRESS & 0xff, count >> 8, count};
    need(send(client->fd, request, sizeof request, 0) == sizeof request, "send");
    client->received = 0;
    client->waiting = 1;
}

/* Take what has come. Returns whether the answer is complete. */
static int take(struct client *client) {
    int size = 9 + 2 * count;
    ssize_t n = recv(client->fd, client->answer + client->received, LARGEST - client->received, 0);
    need(n > 0, "recv");
    client->received += n;
    const uint8_t *a = client->answer;
    if (client->received < size && (client->received < 9 || a[7] == 3))
        return 0;
    const uint8_t wanted[9] = {client->transaction >> 8, client->transaction, 0, 0, (size - 6) >> 8, size - 6,
                               client->unit, 3, 2 * count};
    if (client->received > size || memcmp(a, wanted, sizeof wanted) != 0) {
        fprintf(stderr, "wrong answer: transaction %d, unit %d, function %d, code %d\n", a[0] << 8 | a[1], a[6], a[7],
                a[8]);
        exit(1);
    }
    client->waiting = 0;
    return 1;
}

static long as_fast_as_it_goes(int connections, int64_t end) {
    struct epoll_event ready[MOST];
    long answers = 0;
    for (int n = 0; n < connections; n++)
        ask(&clients[n]);
    while (now() < end) {
        int found = epoll_wait(poll_fd, ready, MOST, 100);
        for (int n = 0; n < found; n++)
            if (take(ready[n].data.ptr)) {
                answers++;
                ask(ready[n].data.ptr);
            }
    }
    return answers;
}

static long at_rate(int connections, double rate, int64_t begin, int64_t end) {
    struct epoll_event ready[MOST];
    long answers = 0, asked = 0, wanted = rate * (end - begin) / 1e9;
    /* Each connection sends its own share: number asked belongs to client asked % connections. */
    while (answers < wanted && now() < end + 2000000000LL) {
        while (asked < wanted) {
            int64_t due = begin + (int64_t)(asked * 1e9 / rate);
            struct client *client = &clients[asked % connections];
            if (now() < due || client->waiting)
                break;
            client->due = due;
            ask(client);
            asked++;
        }
        /* Sleeps until an answer comes or a request is due, so that it may have a real-time priority. */
        int64_t rest = asked < wanted ? begin + (int64_t)(asked * 1e9 / rate) - now() : 1000000;
        struct timespec pause = {.tv_nsec = rest < 0 || rest > 1000000 ? 1000000 : rest};
        int found = epoll_pwait2(poll_fd, ready, MOST, &pause, NULL);
        for (int n = 0; n < found; n++) {
            struct client *client = ready[n].data.ptr;
            if (take(client)) {
                int64_t micros = (now() - client->due) / 1000;
                histogram[micros < BINS ? micros : BINS - 1]++;
                answers++;
            }
        }
    }
    return answers;
}

static int percentile(long total, double part) {
    long seen = 0;
    for (int n = 0; n < BINS; n++)
        if ((seen += histogram[n]) >= part * total)
            return n;
    return BINS;
}

int main(int argc, char **argv) {
    need(argc >= 7, "CORE SECONDS CONNECTIONS RATE COUNT PORT:UNITS...");
    double seconds = atof(argv[2]), rate = atof(argv[4]);
    int connections = atoi(argv[3]);
    count = atoi(argv[5]);
    need(connections > 0 && connections <= MOST && count > 0 && count <= 125, "arguments");
    cpu_set_t core;
    CPU_ZERO(&core);
    CPU_SET(atoi(argv[1]), &core);
    need(sched_setaffinity(0, sizeof core, &core) == 0, "sched_setaffinity");
    need((poll_fd = epoll_create1(0)) >= 0, "epoll_create1");
    for (int n = 0; n < connections; n++)
        connect_to(&clients[n], argv[6 + n % (argc - 6)]);

    int64_t begin = now(), end = begin + (int64_t)(seconds * 1e9);
    long answers = rate > 0 ? at_rate(connections, rate, begin, end) : as_fast_as_it_goes(connections, end);
    printf("{\"answers\": %ld, \"seconds\": %.6f", answers, (now() - begin) / 1e9);
    if (rate > 0)
        printf(", \"requests\": %ld, \"p50\": %d, \"p90\": %d, \"p99\": %d, \"p999\": %d, \"most\": %d",
               (long)(rate * seconds), percentile(answers, 0.5), percentile(answers, 0.9), percentile(answers, 0.99),
               percentile(answers, 0.999), percentile(answers, 1));
    printf("}\n");
    return 0;
}
