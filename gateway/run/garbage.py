"""Keeps garbage collections short: what a fleet consists of stays, and is not looked at again and again.

A full collection looks at every container there is, some hundred a device, and the loop stands still meanwhile. So what
has survived one while devices were coming is taken out of all further ones (`gc.freeze`). Nothing that was frozen is
leaked by that, but for cycles: all else goes as soon as nobody refers to it.
"""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

THRESHOLDS: Final = (1_000, 10, 3)
"""Of the three generations: a full collection after 30,000 new containers, which takes some 5 ms."""
GROWING_FOR: Final = 600.0
"""Seconds for which what survives is taken to stay, after the fleet has grown: bridges get to know a device later."""


@contextmanager
def short_collections(devices: Callable[[], int], monotonic: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Have it so for a while; `devices` returns how many there are now, and is called on any thread."""
    most, grew = devices(), monotonic()

    def collected(phase: str, info: Mapping[str, Any]) -> None:
        nonlocal most, grew
        if phase != "stop" or info["generation"] != 2:
            return
        if (count := devices()) > most:
            most, grew = count, monotonic()
        if monotonic() - grew < GROWING_FOR:
            gc.freeze()

    before = gc.get_threshold()
    gc.set_threshold(*THRESHOLDS)
    gc.freeze()
    gc.callbacks.append(collected)
    try:
        yield
    finally:
        gc.callbacks.remove(collected)
        gc.set_threshold(*before)
        gc.unfreeze()
