"""Who sends wrong secrets may try a few, and then one every few seconds: also on this machine.

What is weighed here: were the right secret let in at any rate, its answer would tell a guesser that it is found, and he
could guess as fast as he can send. Were a source shut out until it has been quiet for long, one who never is would shut
out all who look like him: on this machine, or behind a proxy that is not trusted, that is everybody. So

- wrong secrets take from a small store that fills up again by itself, slowly; while it is empty nobody from there is
  looked at, with the right one either. A right one takes nothing. The wait is never longer than `EVERY`, however long
  the guessing has gone on, and is over as soon as it stops;
- the same wrong secret again is no guess: a client with an old token shuts out nobody;
- where the guesser is on this machine, its owner still has the socket in `data_dir`, which is no part of this.
"""

from collections import OrderedDict, deque
from math import ceil
from typing import Final

import msgspec
import structlog

from gateway.core.clock import Clock
from gateway.core.rare_log import RareLog
from gateway.http.addresses import Address, home

FAILURES: Final = 10
"""Different wrong secrets of one source in a row that are looked at."""
EVERY: Final = 6.0
"""Seconds after which one more is."""
SOURCES: Final = 10_000
"""Sources whose failures are remembered; the one that failed longest ago is forgotten first."""


class _Failures(msgspec.Struct):
    left: float
    """Wrong secrets that will still be looked at."""
    at: float
    """Monotonic seconds at which that was so."""
    wrong: deque[bytes]
    """Digests of the last wrong ones."""
    logged: bool = False


class LoginThrottle:
    """Counts wrong secrets by source. Secrets are named by digests: what is wrong must not be kept."""

    def __init__(self, clock: Clock, log: structlog.stdlib.BoundLogger) -> None:
        self._clock = clock
        self._log = RareLog(log)
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def wait(self, source: Address | None, digest: bytes) -> int:
        """Return for how many seconds this secret is not looked at from there; 0 where it is."""
        known = self._failures.get(home(source))
        if known is None or digest in known.wrong:
            return 0
        self._fill(known)
        return 0 if known.left >= 1 else ceil((1 - known.left) * EVERY)

    def note(self, source: Address | None, digest: bytes) -> None:
        """Count a wrong secret."""
        key = home(source)
        known = self._failures.get(key)
        if known is None:
            known = _Failures(FAILURES, self._clock.monotonic(), deque(maxlen=FAILURES))
            self._failures[key] = known
            self._log.warning("wrong", "a wrong secret; more from there are only counted", source=key)
        self._failures.move_to_end(key)
        if digest not in known.wrong:
            self._fill(known)
            known.left -= 1
            known.wrong.append(digest)
            if known.left < 1 and not known.logged:
                known.logged = True
                self._log.warning(
                    "many", "too many wrong secrets; now only one is looked at every few seconds", source=key
                )
        if len(self._failures) > SOURCES:
            self._failures.popitem(last=False)

    def _fill(self, known: _Failures) -> None:
        now = self._clock.monotonic()
        known.left = min(FAILURES, known.left + (now - known.at) / EVERY)
        known.at = now
        known.logged = known.logged and known.left < FAILURES
