"""Who sends a request: the peer, or whom a proxy names that is trusted."""

from collections.abc import Sequence

import structlog
from starlette.requests import Request

from gateway.http.addresses import Address, Network, address_of, within


class Sources:
    """Believes the proxies of `trusted_proxies`, and nobody else."""

    def __init__(self, trusted_proxies: Sequence[Network], log: structlog.stdlib.BoundLogger) -> None:
        self._trusted = trusted_proxies
        self._log = log
        self._told_of_proxy = False

    def of(self, request: Request) -> Address | None:
        """Return who sends; None where the peer has no address."""
        peer = _address(request.client.host) if request.client else None
        forwarded = _forwarded(request)
        if not forwarded:
            return peer
        if not within(peer, self._trusted):
            if not self._told_of_proxy:
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
            if not within(named, self._trusted):
                break
        return peer

    def is_local(self, request: Request) -> bool:
        """Return whether it is certain that a request was made on this machine: no proxy stands between."""
        peer = _address(request.client.host) if request.client else None
        return peer is not None and peer.is_loopback and not _forwarded(request)


def _forwarded(request: Request) -> str:
    return ",".join(request.headers.getlist("x-forwarded-for"))


def _address(text: str) -> Address | None:
    """Read an address, also `192.0.2.1:1234` and `[2001:db8::1]:1234`; None for what is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    return address_of(text)
