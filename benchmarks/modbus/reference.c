/* The reference: a Modbus TCP server on libmodbus, as libmodbus' own example "bandwidth-server-many-up" serves
 * many clients from one thread, but with epoll, which is faster there at 100 connections.
 *
 *     reference CORE      prints its port, serves 125 registers from address 1000 on to any unit
 */
#define _GNU_SOURCE
#include <errno.h>
#include <modbus.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FIRST = 1000, REGISTERS = 250, EVENTS = 256 };

static void need(int ok, const char *what) {
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static void watch(int poll, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    need(epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
}

static int listen_anywhere(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int server = socket(AF_INET, SOCK_STREAM, 0);
    need(server >= 0 && bind(server, (struct sockaddr *)&address, size) == 0 && listen(server, 1024) == 0, "listen");
    need(getsockname(server, (struct sockaddr *)&address, &size) == 0, "getsockname");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return server;
}

int main(int argc, char **argv) {
    cpu_set_t core;
    CPU_ZERO(&core);
    CPU_SET(argc > 1 ? atoi(argv[1]) : 0, &core);
    need(sched_setaffinity(0, sizeof core, &core) == 0, "sched_setaffinity");

    modbus_t *context = modbus_new_tcp("127.0.0.1", 0);
    modbus_mapping_t *registers = modbus_mapping_new_start_address(0, 0, 0, 0, FIRST, REGISTERS, FIRST, REGISTERS);
    need(context != NULL && registers != NULL, "modbus_new");

    int server = listen_anywhere(), poll = epoll_create1(0);
    need(poll >= 0, "epoll_create1");
    watch(poll, server);

    struct epoll_event ready[EVENTS];
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    for (;;) {
        int count = epoll_wait(poll, ready, EVENTS, -1);
        need(count >= 0 || errno == EINTR, "epoll_wait");
        for (int n = 0; n < count; n++) {
            int fd = ready[n].data.fd, on = 1;
            if (fd == server) {
                int client = accept(server, NULL, NULL);
                need(client >= 0, "accept");
                setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                watch(poll, client);
                continue;
            }
            modbus_set_socket(context, fd);
            int size = modbus_receive(context, query);
            if (size > 0)
                modbus_reply(context, query, size, registers);
            else if (size < 0)
                close(fd);
        }
    }
}
