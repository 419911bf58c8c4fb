"""Who may push: by network, and by a secret in the address or in a header."""

import hmac
from collections.abc import Iterable
from ipaddress import ip_address

import structlog
from starlette.requests import Request

from gateway.bridges.push.refusal import RefusalError
from gateway.bridges.push.settings import Network, PushSettings
from gateway.core.clock import Clock
from gateway.http_guesses import Address, Guesses
from gateway.sems.pushed import Outcome


class Door:
    """Lets in who has the secret, and tells the others no more than that they have not."""

    def __init__(self, settings: PushSettings, clock: Clock, log: structlog.stdlib.BoundLogger) -> None:
        self._settings = settings
        self._log = log
        self._secret = settings.secret.get_secret_value().encode() if settings.secret else None
        self._guesses = Guesses(clock, log)
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
        if wait := self._guesses.wait(source):
            raise RefusalError(429, "too many wrong secrets from there", Outcome.UNAUTHORISED, retry_after=wait)
        # Both are compared, however the first one ends.
        right = [
            hmac.compare_digest(given.encode("utf-8", "replace"), self._secret)
            for given in (last, request.headers.get(self._settings.header, ""))
        ]
        if not any(right):
            self._guesses.note(source)
            raise RefusalError(401, "the secret is missing or wrong", Outcome.UNAUTHORISED)

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
