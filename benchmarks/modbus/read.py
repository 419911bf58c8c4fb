# ruff: noqa: INP001, S603, T201 - a script that starts itself and prints
"""Reads of 125 registers a second, against pymodbus' stock server, as ratios.

    python benchmarks/modbus/read.py [--seconds 2] [--rounds 5]

Servers run on one core, the load on another; rounds of the servers are interleaved, so that whatever else the
machine does meets all of them. The load is closed-loop: each connection sends its next request on the answer.
"""

import argparse
import asyncio
import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from gateway.bridges.modbus.codec import WordOrder
from gateway.bridges.modbus.diagnostics import identity
from gateway.bridges.modbus.image import Image, Layout
from gateway.bridges.modbus.maps.native import NATIVE
from gateway.bridges.modbus.server import Listener

SERVER_CORE, LOAD_CORE = 0, 1
ADDRESS, COUNT = 1000, 125
REQUEST: Final = struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, ADDRESS, COUNT)
ANSWER_SIZE: Final = 9 + 2 * COUNT


async def serve_ours() -> None:
    """Serve one unit with the bridge's listener."""

    async def refuse(*_: object) -> None:
        raise NotImplementedError

    def spawn(work: Coroutine[Any, Any, None], _name: str) -> None:
        work.close()

    listener = Listener(
        "benchmark",
        ("127.0.0.1", 0),
        write=refuse,
        spawn=spawn,
        log=structlog.get_logger(),
        identity=identity("benchmark"),
        max_connections=1000,
    )
    await listener.listen()
    image = Image("SN", Layout(NATIVE, WordOrder.ABCD), dict)
    image.show({"ac_power": 1234.0})
    image.closed = False
    listener.images[1] = image
    await _tell_and_wait(listener.port)


async def serve_stock() -> None:
    """Serve the same with pymodbus as it is."""
    device = SimDevice(1, [SimData(ADDRESS, values=[0] * 250, datatype=DataType.REGISTERS)])
    server = ModbusTcpServer(device, address=("127.0.0.1", 0))
    await server.listen()
    await _tell_and_wait(server.transport.sockets[0].getsockname()[1])


async def _tell_and_wait(port: int) -> None:
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


SERVERS: Final[dict[str, tuple[Callable[[], Coroutine[Any, Any, None]], Callable[[], asyncio.AbstractEventLoop]]]] = {
    "stock, uvloop": (serve_stock, uvloop.new_event_loop),
    "ours, asyncio": (serve_ours, asyncio.SelectorEventLoop),
    "ours, uvloop": (serve_ours, uvloop.new_event_loop),
}


def load(port: int, connections: int, seconds: float) -> float:
    """Return answers per second."""
    poll = select.epoll()
    clients: dict[int, socket.socket] = {}
    missing: dict[int, int] = {}
    for _ in range(connections):
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setblocking(False)
        clients[client.fileno()] = client
        missing[client.fileno()] = ANSWER_SIZE
        poll.register(client, select.EPOLLIN)
    for client in clients.values():
        client.send(REQUEST)
    answers = 0
    begun = time.perf_counter()
    end = begun + seconds
    while (now := time.perf_counter()) < end:
        for number, _ in poll.poll(1):
            client = clients[number]
            data = client.recv(ANSWER_SIZE)
            if not data or (missing[number] == ANSWER_SIZE and data[7] != 3):
                raise ConnectionError(f"no answer but {data!r}")
            missing[number] -= len(data)
            if not missing[number]:
                missing[number] = ANSWER_SIZE
                client.send(REQUEST)
                answers += 1
    for client in clients.values():
        client.close()
    return answers / (now - begun)


def cpu_seconds(process: int) -> float:
    """Return the CPU time a process has used: of all figures, what other work on the machine disturbs least."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Run all servers, put them under load in turn, print medians and ratios."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--seconds", type=float, default=2, help="of each round")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.serve:
        os.sched_setaffinity(0, {SERVER_CORE})
        serve, loop = SERVERS[chosen.serve]
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(serve())
        return
    os.sched_setaffinity(0, {LOAD_CORE})
    running = {
        name: subprocess.Popen(
            [sys.executable, __file__, "--serve", name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for name in SERVERS
    }
    try:
        ports = {name: int(server.stdout.readline()) for name, server in running.items() if server.stdout}
        for connections in (1, 10, 100):
            rates: dict[str, list[float]] = {name: [] for name in SERVERS}
            costs: dict[str, list[float]] = {name: [] for name in SERVERS}
            for _ in range(chosen.rounds):
                for name, port in ports.items():
                    before = cpu_seconds(running[name].pid)
                    rate = load(port, connections, chosen.seconds)
                    rates[name].append(rate)
                    costs[name].append((cpu_seconds(running[name].pid) - before) / (rate * chosen.seconds))
            print(f"{connections} connections")
            base = statistics.median(rates["stock, uvloop"])
            for name, found in rates.items():
                median = statistics.median(found)
                cost = statistics.median(costs[name]) * 1e6
                print(f"  {name:15} {median:8.0f}/s  {median / base:5.1f} x stock  {cost:6.1f} us of CPU an answer")
    finally:
        for server in running.values():
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
