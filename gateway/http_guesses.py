"""Who sends wrong secrets is not listened to for a while."""

from collections import OrderedDict
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final

import msgspec
import structlog

from gateway.core.clock import Clock

FAILURES: Final = 10
"""Wrong secrets within WINDOW after which a source is not listened to until it is over."""
WINDOW: Final = 60.0
SOURCES: Final = 10_000
"""Sources whose failures are remembered; the one that failed longest ago is forgotten first."""
V6_HOME: Final = 64
"""Bits of an IPv6 address that one subscriber can't change."""

Address = IPv4Address | IPv6Address


class _Failures(msgspec.Struct):
    count: int
    until: float
    """Monotonic seconds."""


class Guesses:
    """Counts wrong secrets by source."""

    def __init__(self, clock: Clock, log: structlog.stdlib.BoundLogger) -> None:
        self._clock = clock
        self._log = log
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def wait(self, source: Address | None) -> int:
        """Return for how many seconds a source is not listened to; 0 where it is."""
        key = _home(source)
        known = self._failures.get(key)
        now = self._clock.monotonic()
        if known is None:
            return 0
        if known.until <= now:
            del self._failures[key]
            return 0
        return int(known.until - now) + 1 if known.count >= FAILURES else 0

    def note(self, source: Address | None) -> None:
        """Count a wrong secret."""
        key = _home(source)
        known = self._failures.setdefault(key, _Failures(0, self._clock.monotonic() + WINDOW))
        self._failures.move_to_end(key)
        known.count += 1
        if known.count == FAILURES:
            self._log.warning("too many wrong secrets; not listened to for a while", source=key, seconds=WINDOW)
        if len(self._failures) > SOURCES:
            self._failures.popitem(last=False)


def _home(address: Address | None) -> str:
    """Return under what name failures are counted: who has one IPv6 address has many."""
    if isinstance(address, IPv6Address):
        return str(ip_network((address, V6_HOME), strict=False))
    return str(address)
