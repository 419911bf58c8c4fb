# ruff: noqa: D102, D103, INP001, T201 - a script that prints
"""What a call through `Session` costs beside a bare httpx call, against a trivial server on loopback.

    python benchmarks/sems/overhead.py [CALLS]

Rounds of both follow each other, so what else the machine does hits both alike. Also: how long the budget's write
takes.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx

from gateway.core.clock import SystemClock
from gateway.sems.budget import Budget
from gateway.sems.catalogue import load
from gateway.sems.ledger import Ledger
from gateway.sems.session import Credentials, Session

ROUNDS = 9
BODY = b'{"code":"0","data":{"token":"T","list":[%s]}}' % b",".join([b'{"plant_id":"P","plant_name":"a plant"}'] * 100)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
FIELDS = {"page_index": 1, "page_size": 100}
ARGS = {"page": 1, "page_size": 100}


class Trivial(asyncio.Protocol):
    """Answers whatever comes: a request here is one or two segments, the second of them its body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.got = transport, b""

    def data_received(self, data: bytes) -> None:
        self.got += data
        head, end, body = self.got.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0):
            self.got = b""
            self.transport.write(ANSWER)


async def bare(url: str, calls: int) -> float:
    async with httpx.AsyncClient(trust_env=False) as client:
        began = time.perf_counter()
        for _ in range(calls):
            answer = await client.post(url, json=FIELDS, headers={"token": "T"})
            answer.json()["data"]["list"]
        return (time.perf_counter() - began) / calls


async def through(session: Session, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await session.call("GetUserPlantList", ARGS)
    return (time.perf_counter() - began) / calls


async def main(calls: int) -> None:
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(Trivial, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    clock, catalogue = SystemClock(), load("open_api")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        store = Path(folder)
        # So many an hour that a lease is what it is at 3600: a sixtieth.
        budget = Budget.shared(store / "budget.json", 100 * calls * ROUNDS, clock)
        session = Session(catalogue, url, Credentials("a", "b"), store / "session.json", clock, budget)
        await session.start()
        await through(session, 10)
        rounds = [(await bare(url + "/x", calls), await through(session, calls)) for _ in range(ROUNDS)]
        await session.stop()
        print(f"bare httpx  {statistics.median(b for b, _ in rounds) * 1e6:7.0f} us a call")
        print(f"Session     {statistics.median(s for _, s in rounds) * 1e6:7.0f} us a call")
        print(f"ratio       {statistics.median(s / b for b, s in rounds):7.2f} (median of {ROUNDS} rounds)")
        ledger, took = Ledger(store / "one.json"), []
        own = [(60.0 * n, 60) for n in range(60)]
        for _ in range(50):
            began = time.perf_counter()
            ledger.lease("me", own, most=60, per_hour=10_000, now=clock.monotonic(), window=3600.0)
            took.append((time.perf_counter() - began) * 1e3)
        print(f"a lease     {statistics.median(took):7.2f} ms in its thread (worst of 50: {max(took):.1f})")
    listener.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 300))
