"""Who may push: by network, and by a secret in the address or in a header."""

import hmac
from collections import OrderedDict
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

import msgspec
import structlog
from starlette.requests import Request

from gateway.bridges.push.refusal import Outcome, RefusalError
from gateway.bridges.push.settings import Network, PushSettings
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


class Door:
    """Lets in who has the secret, and tells the others no more than that they have not."""

    def __init__(self, settings: PushSettings, clock: Clock, log: structlog.stdlib.BoundLogger) -> None:
        self._settings = settings
        self._clock = clock
        self._log = log
        self._secret = settings.secret.get_secret_value().encode() if settings.secret else None
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._told_of_proxy = False

    def admit(self, request: Request) -> None:
        """Return if this request may go on. Raises RefusalError."""
        if request.method != "POST":
            raise RefusalError(405, "send it by POST", Outcome.UNAUTHORISED)
        source = self._source(request)
        if self._settings.networks and not _within(source, self._settings.networks):
            raise RefusalError(403, "not from there", Outcome.UNAUTHORISED)
        path, last = request.scope["path"], ""
        if path != self._settings.path:
            below = f"{self._settings.path}/"
            if self._secret is None or not path.startswith(below):
                raise RefusalError(404, "nothing is here", Outcome.UNAUTHORISED)
            last = path.removeprefix(below)
        if self._secret is None:
            return
        key = _home(source)
        self._refuse_guessers(key)
        # Both are compared, however the first one ends.
        right = [
            hmac.compare_digest(given.encode("utf-8", "replace"), self._secret)
            for given in (last, request.headers.get(self._settings.header, ""))
        ]
        if not any(right):
            self._note_failure(key)
            raise RefusalError(401, "the secret is missing or wrong", Outcome.UNAUTHORISED)

    def _refuse_guessers(self, key: str) -> None:
        known = self._failures.get(key)
        now = self._clock.monotonic()
        if known is None:
            return
        if known.until <= now:
            del self._failures[key]
        elif known.count >= FAILURES:
            raise RefusalError(
                429, "too many wrong secrets from there", Outcome.UNAUTHORISED, retry_after=int(known.until - now) + 1
            )

    def _note_failure(self, key: str) -> None:
        known = self._failures.setdefault(key, _Failures(0, self._clock.monotonic() + WINDOW))
        self._failures.move_to_end(key)
        known.count += 1
        if known.count == FAILURES:
            self._log.warning("too many wrong secrets; not listened to for a while", source=key, seconds=WINDOW)
        if len(self._failures) > SOURCES:
            self._failures.popitem(last=False)

    def _source(self, request: Request) -> Address | None:
        """Return who sends: the peer, or whom the trusted proxies name."""
        peer = _address(request.client.host) if request.client else None
        forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
        if not forwarded or not _within(peer, self._settings.trusted_proxies):
            if forwarded and not self._told_of_proxy:
                self._told_of_proxy = True
                self._log.warning(
                    "requests come through a proxy that is not among trusted_proxies, so all senders look like one",
                    proxy=str(peer),
                )
            return peer
        # The last is what the nearest proxy has seen; what stands further left, anybody may have written.
        for hop in reversed(forwarded.split(",")):
            named = _address(hop)
            if named is None:
                return peer
            peer = named
            if not _within(named, self._settings.trusted_proxies):
                break
        return peer


def _within(address: Address | None, networks: Iterable[Network]) -> bool:
    return address is not None and any(address in network for network in networks)


def _address(text: str) -> Address | None:
    """Read an address, also `192.0.2.1:1234` and `[2001:db8::1]:1234`; None for what is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _home(address: Address | None) -> str:
    """Return under what name failures are counted: who has one IPv6 address has many."""
    if isinstance(address, IPv6Address):
        return str(ip_network((address, V6_HOME), strict=False))
    return str(address)
