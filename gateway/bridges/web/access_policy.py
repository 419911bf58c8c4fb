"""Who asks, and what for they may ask."""

import hashlib
import hmac
from typing import Final

import msgspec
from starlette.requests import Request

from gateway.api.contexts import BaseContext
from gateway.bridges.web.problems import ProblemError
from gateway.bridges.web.settings import WebSettings
from gateway.core.model import Origin
from gateway.http.addresses import Address, is_loopback
from gateway.http.login_throttle import LoginThrottle
from gateway.http.refused import Refused
from gateway.http.source import Sources

SCHEME: Final = "bearer"


class Caller(msgspec.Struct, frozen=True):
    """Who asks."""

    origin: Origin
    """For policy and the audit: `<bridge>/<token's name>:<address>`, or `<bridge>:<address>` for one without a name."""
    write: bool = False


class _Known(msgspec.Struct, frozen=True):
    digest: bytes
    role: str
    write: bool


class AccessPolicy:
    """Knows the tokens by their digests, which are all of one length."""

    def __init__(self, settings: WebSettings, context: BaseContext, refused: Refused) -> None:
        self._context = context
        self._refused = refused
        self._sources = Sources(settings.trusted_proxies, context.log)
        self._guesses = LoginThrottle(context.clock, context.log)
        self._known = [
            _Known(_digest(entry.token.get_secret_value()), name, entry.write)
            for name, entry in settings.tokens.items()
        ]
        if settings.token is not None:
            self._known.append(_Known(_digest(settings.token.get_secret_value()), "", write=False))
        self.is_open = is_loopback(settings.host) and settings.token is None
        """Whether one of this machine may read without a token."""

    def reader(self, request: Request) -> Caller:
        """Return who asks, who may read. Raises ProblemError."""
        source = self._sources.of(request)
        given = request.headers.get("authorization")
        if given is not None:
            return self._caller(given, source)
        if not self.is_open:
            raise ProblemError("unauthorized", "there is no token in the request")
        if not self._sources.is_local(request):
            raise ProblemError("unauthorized", "it comes through a proxy, and there is no token in it")
        return Caller(Origin.of(self._context.name, detail=str(source or "")))

    def writer(self, request: Request) -> Caller:
        """Return who asks, who may write. Raises ProblemError."""
        if "authorization" not in request.headers:
            raise ProblemError("unauthorized", "commands need a token, also on this machine")
        caller = self.reader(request)
        if not caller.write:
            self._context.log.warning("a token that only reads asked for more", origin=caller.origin)
            raise ProblemError("read_only_token", f"{caller.origin.who} may read, and no more")
        return caller

    def _caller(self, given: str, source: Address | None) -> Caller:
        scheme, _, token = given.partition(" ")
        digest = _digest(token.strip())
        if wait := self._guesses.wait(source, digest):
            self._refused.counts["guessing"] += 1
            raise ProblemError("guessing", "nobody from there is listened to for a moment", retry_after=wait)
        # All are compared, whichever fits.
        fitting = [known for known in self._known if hmac.compare_digest(known.digest, digest)]
        if scheme.lower() != SCHEME or not fitting:
            self._guesses.note(source, digest)
            self._refused.counts["unauthorized"] += 1
            raise ProblemError("unauthorized", "this is not a token of this gateway")
        return Caller(Origin.of(self._context.name, fitting[0].role, str(source or "")), fitting[0].write)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
