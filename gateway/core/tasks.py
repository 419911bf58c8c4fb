"""Waits for several things at once."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def all_of(work: Iterable[Awaitable[T]]) -> list[T]:
    """Do all of these at the same time, as `asyncio.gather`; where it is one, without a task and its turns of the loop.

    A command that is alone in all of its steps would have a task in each.
    """
    several = list(work)
    return [await several[0]] if len(several) == 1 else list(await asyncio.gather(*several))
