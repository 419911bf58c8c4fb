"""GoodWe in a burst, as a process of its own: `python -m … URL CONNECTIONS`, pushes as JSON lines on standard input.

Prints how often each status was answered, and how long it took, as JSON.
"""

import asyncio
import json
import ssl
import sys
import time
from collections import Counter

import httpx


async def main(url, connections):
    waiting = sys.stdin.read().splitlines()
    statuses = Counter()
    # One client a connection: httpx' pool takes ever longer the more connections it has.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    options = {"trust_env": False, "timeout": 250, "verify": context, "limits": httpx.Limits(max_connections=1)}

    async def send():
        async with httpx.AsyncClient(**options) as client:
            while waiting:
                push = waiting.pop()
                try:
                    answer = await client.post(url, content=push, headers={"Content-Type": "application/json"})
                except httpx.ReadError:  # it was idle for long on a busy machine, and closed just now
                    waiting.append(push)
                else:
                    statuses[answer.status_code] += 1

    began = time.monotonic()
    await asyncio.gather(*(send() for _ in range(connections)))
    sys.stdout.write(json.dumps({"statuses": statuses, "seconds": round(time.monotonic() - began, 2)}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
