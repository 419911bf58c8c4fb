"""Who may push: by network, and by a secret in the address or in a header."""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl

import structlog
from starlette.requests import Request

from gateway.bridges.push.refusal import RefusalError
from gateway.bridges.push.settings import PushSettings
from gateway.core.clock import Clock
from gateway.core.rare_log import RareLog
from gateway.http.addresses import within
from gateway.http.login_throttle import LoginThrottle
from gateway.http.refused import Refused
from gateway.http.source import Sources
from gateway.sems.pushed import Outcome

MAX_PARTS: Final = 16
"""Parts of an address, and of its query, in which the right secret is looked for."""
MAX_QUERY_CHARS: Final = 2_000
"""Characters of a query."""


class AccessPolicy:
    """Lets in who has the secret, and tells the others no more than that they have not."""

    def __init__(
        self, settings: PushSettings, clock: Clock, log: structlog.stdlib.BoundLogger, refused: Refused
    ) -> None:
        self._settings = settings
        self._secret = settings.secret.get_secret_value().encode()
        self._sources = Sources(settings.trusted_proxies, log)
        self._guesses = LoginThrottle(clock, log)
        self._refused = refused
        self._log = RareLog(log)

    def admit(self, request: Request) -> None:
        """Return if this request may go on. Raises RefusalError.

        Empty parts of an address count for nothing: a slash at its end, or two in a row, are no other secret. Who has
        the right secret and is refused all the same loses data, so the log says it. The answer does not, unless the
        try would have counted as a guess: or secrets could be tried where nobody counts.
        """
        parts = [part.strip() for part in request.scope["path"].split("/") if part.strip()]
        if request.method != "POST":
            self._note_astray(request, parts, f"it came by {request.method[:10]}, and is taken by POST")
            raise RefusalError(405, "send it by POST", Outcome.UNAUTHORISED)
        source = self._sources.of(request)
        if self._settings.networks and not within(source, self._settings.networks):
            raise self._refusal(403, "not_from_there", "not from there")
        base = self._settings.path.strip("/").split("/")
        wanted = f"POST {self._settings.path}/<secret>"
        if parts[: len(base)] != base:
            self._note_astray(request, parts, f"the address is {wanted}")
            raise RefusalError(404, "nothing is here", Outcome.UNAUTHORISED)
        given = "/".join(parts[len(base) :]), request.headers.get(self._settings.header, "").strip(), request.url.query
        digest = hashlib.sha256("\0".join(given).encode("utf-8", "replace")).digest()
        if wait := self._guesses.wait(source, digest):
            error = self._refusal(429, "guessing", "too many wrong secrets from there")
            error.retry_after = wait
            raise error
        # Both are compared, however the first one ends.
        right = [self._is_right(text) for text in given[:2]]
        if not any(right):
            if self._note_astray(request, parts, f"the address is {wanted}"):
                raise self._refusal(404, "wrong_address", f"the secret is right and the address is not: {wanted}")
            self._guesses.note(source, digest)
            raise self._refusal(401, "unauthorized", "the secret is missing or wrong")

    def _is_right(self, text: str) -> bool:
        return hmac.compare_digest(text.encode("utf-8", "replace"), self._secret)

    def _note_astray(self, request: Request, parts: Sequence[str], why: str) -> bool:
        """Return whether the right secret stands elsewhere in a request; then the log says what is wrong."""
        named = [value for pair in parse_qsl(request.url.query[:MAX_QUERY_CHARS])[:MAX_PARTS] for value in pair]
        headers = request.headers
        others = headers.get(self._settings.header, "").strip(), headers.get("authorization", "").rpartition(" ")[2]
        # All are compared, as above.
        found = [self._is_right(text) for text in (*parts[:MAX_PARTS], *named, *others)]
        if any(found):
            self._log.warning("astray", "a push with the right secret is not taken", why=why)
        return any(found)

    def _refusal(self, status: int, reason: str, text: str) -> RefusalError:
        self._refused.counts[reason] += 1
        return RefusalError(status, text, Outcome.UNAUTHORISED)
