"""Smooth randomness that is a function of time and a seed, so that nobody can ask it out of step."""

from functools import lru_cache
from hashlib import blake2b
from math import floor
from typing import Final

_MASK: Final = (1 << 64) - 1
_KEPT: Final = 4096
"""Of each cache. A large one is slower: the garbage collector goes through all of it again after each new entry."""


@lru_cache(maxsize=_KEPT)
def derive(seed: int, *names: str) -> int:
    """Return a seed of its own for what `names` name."""
    digest = blake2b("\0".join((str(seed), *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


@lru_cache(maxsize=_KEPT)
def unit(seed: int, index: int) -> float:
    """Return the number, 0 up to 1, that a seed has at an index (splitmix64).

    Slow noise asks for the same two heights again and again, so they are kept.
    """
    z = (seed + index * 0x9E3779B97F4A7C15) & _MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return (z ^ (z >> 31)) / (_MASK + 1)


def smooth(seed: int, x: float) -> float:
    """Return value noise, 0 up to 1: continuous in `x`, a new random height at every whole number."""
    index = floor(x)
    part = x - index
    low, high = unit(seed, index), unit(seed, index + 1)
    return low + (high - low) * part * part * (3 - 2 * part)


def swing(seed: int, x: float) -> float:
    """Return value noise between -1 and 1."""
    return 2 * smooth(seed, x) - 1
