"""Who asks, and what for they may ask."""

import hashlib
import hmac
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import msgspec
from starlette.requests import Request

from gateway.bridges.web.problems import ProblemError
from gateway.bridges.web.settings import WebSettings
from gateway.core.bridge import Context
from gateway.http_guesses import Guesses
from gateway.http_server import is_loopback

SCHEME: Final = "bearer"


class Caller(msgspec.Struct, frozen=True):
    """Who asks."""

    origin: str
    """For policy and the audit: `<bridge>/<token's name>:<address>`, or `<bridge>:<address>` for one without a name."""
    write: bool = False


class _Known(msgspec.Struct, frozen=True):
    digest: bytes
    role: str
    write: bool


class Door:
    """Knows the tokens by their digests, which are all of one length."""

    def __init__(self, settings: WebSettings, context: Context) -> None:
        self._context = context
        self._guesses = Guesses(context.clock, context.log)
        self._known = [
            _Known(_digest(entry.token.get_secret_value()), f"/{name}", entry.write)
            for name, entry in settings.tokens.items()
        ]
        if settings.token is not None:
            self._known.append(_Known(_digest(settings.token.get_secret_value()), "", write=False))
        self._open = is_loopback(settings.host) and settings.token is None
        """Whether one without a token may read."""

    def reader(self, request: Request) -> Caller:
        """Return who asks, who may read. Raises ProblemError."""
        host = request.client.host if request.client else ""
        given = request.headers.get("authorization")
        if given is not None:
            return self._caller(given, host)
        if not self._open:
            raise ProblemError("unauthorized", "there is no token in the request")
        if not _names_this_machine(request.headers.get("host", "")):
            # A web page can have its own name lead here (DNS rebinding) and so read what its visitor may read.
            raise ProblemError("foreign_host", "without a token only requests to 127.0.0.1 or localhost are answered")
        return Caller(f"{self._context.name}:{host}")

    def writer(self, request: Request) -> Caller:
        """Return who asks, who may write. Raises ProblemError."""
        if "authorization" not in request.headers:
            raise ProblemError("unauthorized", "commands need a token, also on this machine")
        caller = self.reader(request)
        if not caller.write:
            self._context.log.warning("a token that only reads asked for more", origin=caller.origin)
            raise ProblemError("read_only_token", f"{caller.origin.partition(':')[0]} may read, and no more")
        return caller

    def _caller(self, given: str, host: str) -> Caller:
        address = _address(host)
        # On this machine all look alike: one client with an old token must not lock out the others.
        stranger = address is None or not address.is_loopback
        if stranger and (wait := self._guesses.wait(address)):
            raise ProblemError("guessing", "nobody from there is listened to for a while", retry_after=wait)
        scheme, _, token = given.partition(" ")
        digest = _digest(token.strip())
        # All are compared, whichever fits.
        fitting = [known for known in self._known if hmac.compare_digest(known.digest, digest)]
        if scheme.lower() != SCHEME or not fitting:
            if stranger:
                self._guesses.note(address)
            raise ProblemError("unauthorized", "this is not a token of this gateway")
        return Caller(f"{self._context.name}{fitting[0].role}:{host}", fitting[0].write)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _names_this_machine(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return is_loopback(name.lower())
