"""Targets that do what no target may, to see that it is noticed."""

from contextlib import asynccontextmanager

import structlog

from tests.fuzz.target import Target


@asynccontextmanager
async def crash(_):
    async def feed(data):
        return len(data) / 0

    yield feed


@asynccontextmanager
async def catch(_):
    async def feed(data):
        try:
            return {}[data]
        except KeyError:
            structlog.get_logger("x").exception("a request failed")

    yield feed


crashing = Target("crashing", "", lambda _: b"x", crash)
caught = Target("caught", "", lambda _: b"x", catch)
