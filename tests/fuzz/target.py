"""What is fuzzed: a row of the table in `tests.fuzz.targets`."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    name: str
    about: str
    """What it is, for the table of figures."""
    make: Callable
    """`make(dice)` returns an input, bytes."""
    open: Callable[..., AbstractAsyncContextManager]
    """`open(directory)` gives `feed`, which is awaited with each input; it returns when that was worked off."""
    own: tuple[type[Exception], ...] = ()
    """Errors by which it refuses an input: these are right answers."""
    settle: int = 200
    """Inputs after which memory is looked at for the first time: caches are full then."""
    virtual: bool = False
    """Whether it runs on the loop that skips ahead instead of waiting."""
    quick: int = 200
    """Inputs in the test that every run of the tests has."""
    stall: float = 0.1
    """Seconds of the loop's own CPU time that one input may take."""
