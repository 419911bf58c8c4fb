"""Four devices whose answers drip a byte at a time, over real HTTP: the others are read as before."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from tests.bridges.open_api.kit import HOUSE, cloud, connected
from tests.kit.bench import until

ASKS = "GetInverterBySN?invertersn="


class Proxy:
    """Hands calls on to a cloud, but for those about some devices: their answers never end."""

    def __init__(self, upstream):
        self.upstream = urlsplit(upstream)
        self.dripping = set()
        self.asked = Counter()
        self.under_way = 0

    async def handle(self, reader, writer):
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            line = head.split(b"\r\n", 1)[0].decode()
            serial = line.partition(ASKS)[2].partition(" ")[0]
            self.asked[serial] += 1
            if serial in self.dripping:
                await self._drip(writer)
            else:
                await self._pass_on(head, reader, writer)
        writer.close()

    async def _drip(self, writer):
        self.under_way += 1
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.1)
        finally:
            self.under_way -= 1

    async def _pass_on(self, head, reader, writer):
        there, here = await asyncio.open_connection(self.upstream.hostname, self.upstream.port)
        lines = [line for line in head.split(b"\r\n")[:-2] if not line.lower().startswith(b"connection:")]
        length = next((int(line[15:]) for line in lines if line.lower().startswith(b"content-length:")), 0)
        body = await reader.readexactly(length)
        here.write(b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body)
        writer.write(await there.read())
        await writer.drain()
        here.close()


@asynccontextmanager
async def through(upstream):
    proxy = Proxy(upstream)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    before = asyncio.all_tasks()
    try:
        yield proxy, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in asyncio.all_tasks() - before - {asyncio.current_task()}:
            task.cancel()


async def test_the_others_are_read_while_four_drip(tmp_path):
    async with (
        cloud() as simulator,
        through(simulator.url) as (proxy, url),
        connected(tmp_path, simulator, url=url, poll_interval=0.5) as bench,
    ):
        bench.runners[0].bridge._poller._lanes._quick = 0.5
        await until(lambda: len([serial for serial in proxy.asked if serial]) > 5)
        inverters = sorted(serial for serial in proxy.asked if serial and serial != HOUSE)
        proxy.dripping = set(inverters[:4])
        await until(lambda: proxy.under_way == 4)
        others = [HOUSE, *inverters[4:]]
        before = proxy.asked.copy()
        await until(lambda: all(proxy.asked[serial] >= before[serial] + 2 for serial in others))
        assert proxy.under_way >= 4, "they drip still, one call each for an interface"
        before = bench.router.state(HOUSE).time
        await until(lambda: bench.router.state(HOUSE).time > before)
