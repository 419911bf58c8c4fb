"""Who may call, and how often."""

import hashlib
import secrets
from collections import deque
from math import ceil

from gateway.core.clock import Clock
from gateway.core.model import Value
from gateway.sems.catalogue import Catalogue, SemsError
from gateway.simulator.requests import RefusedError, code_of
from gateway.simulator.settings import SimulatorSettings

HOUR = 3600.0


class Accounts:
    """The one account there is: its tokens, and its calls of the last hour."""

    def __init__(self, settings: SimulatorSettings, catalogue: Catalogue, clock: Clock) -> None:
        self.refuse_logins = False
        self._settings = settings
        self._catalogue = catalogue
        self._clock = clock
        password = settings.password.get_secret_value().encode()
        self._password_md5 = hashlib.md5(password, usedforsecurity=False).hexdigest()
        self._tokens: dict[str, float] = {}
        """Token → when it expires, by the monotonic clock."""
        self._calls: deque[float] = deque()

    def log_in(self, account: Value, password_md5: Value) -> str:
        """Return a new token. Raises RefusedError."""
        known = (account, str(password_md5).lower()) == (self._settings.account, self._password_md5)
        if self.refuse_logins or not known:
            raise self._refusal(SemsError.LOGIN_REFUSED, "account or password is wrong")
        self._count()
        now = self._clock.monotonic()
        self._tokens = {token: expires for token, expires in self._tokens.items() if now < expires}
        token = secrets.token_hex(16)
        self._tokens[token] = now + self._settings.token_lifetime
        return token

    def enter(self, token: str) -> None:
        """Let a call in, and count it. Raises RefusedError."""
        if not self.owner(token):
            raise self._refusal(SemsError.TOKEN_EXPIRED, "authorization has expired, log in again")
        self._count()

    def owner(self, token: str) -> str:
        """Return the account a token is for; empty when it is for none."""
        return self._settings.account if self._clock.monotonic() < self._tokens.get(token, 0.0) else ""

    def revoke(self) -> None:
        """Make all tokens invalid."""
        self._tokens.clear()

    def _count(self) -> None:
        limit = self._settings.calls_per_hour
        if not limit:
            return
        now = self._clock.monotonic()
        while self._calls and self._calls[0] <= now - HOUR:
            self._calls.popleft()
        if len(self._calls) < limit:
            self._calls.append(now)
            return
        refusal = self._refusal(SemsError.RATE_LIMITED, "too many calls, try again later")
        if self._settings.limit_by_http_status:
            refusal.status = 429
            refusal.headers = {"Retry-After": str(ceil(self._calls[0] + HOUR - now))}
        raise refusal

    def _refusal(self, error: SemsError, text: str) -> RefusedError:
        return RefusedError(code_of(self._catalogue, error), text)
