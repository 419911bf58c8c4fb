"""Who may call, and how often."""

import hashlib
import secrets
from collections import OrderedDict, deque
from math import ceil
from typing import Final

import msgspec

from gateway.core.clock import Clock
from gateway.sems.catalogue import SemsError
from gateway.simulator.requests import Refusal, RefusedError

HOUR: Final = 3600.0
MAX_REQUEST_ID: Final = 128


class AccountSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an account is granted."""

    name: str
    secret: str
    """As the login wants it."""
    lifetime: float
    """Of a token, seconds."""
    calls_per_hour: int
    """In a sliding hour; 0 for no limit."""
    limit_by_http_status: bool = False
    request_ids: int = 0
    """How many request ids are remembered; 0: they don't matter."""


class Account:
    """The one account that an API has: its tokens, and its calls of the last hour."""

    def __init__(self, settings: AccountSettings, clock: Clock) -> None:
        self.refuse_logins = False
        self.settings = settings
        self._clock = clock
        self._tokens: dict[str, float] = {}
        """Token → when it expires, by the monotonic clock."""
        self._calls: deque[float] = deque()
        self._request_ids: OrderedDict[str, None] = OrderedDict()

    def log_in(self, name: str, secret: str) -> str:
        """Return a new token. Raises RefusedError."""
        if self.refuse_logins or (name, secret) != (self.settings.name, self.settings.secret):
            raise RefusedError(SemsError.LOGIN_REFUSED, "account or password is wrong")
        self._count()
        now = self._clock.monotonic()
        self._tokens = {token: expires for token, expires in self._tokens.items() if now < expires}
        token = secrets.token_hex(16)
        self._tokens[token] = now + self.settings.lifetime
        return token

    def enter(self, token: str, request_id: str = "") -> None:
        """Let a call in, and count it. Raises RefusedError."""
        if not self.owner(token):
            raise RefusedError(SemsError.TOKEN_EXPIRED, "authorization has expired, log in again")
        if self.settings.request_ids:
            self._note(request_id)
        self._count()

    def owner(self, token: str) -> str:
        """Return the account a token is for; empty when it is for none."""
        return self.settings.name if self._clock.monotonic() < self._tokens.get(token, 0.0) else ""

    def revoke(self) -> None:
        """Make all tokens invalid."""
        self._tokens.clear()

    def _note(self, request_id: str) -> None:
        if not 1 <= len(request_id) <= MAX_REQUEST_ID:
            raise RefusedError(Refusal.BAD_REQUEST_ID, "the request has no id")
        if request_id in self._request_ids:
            raise RefusedError(Refusal.BAD_REQUEST_ID, "the request id has been used before")
        self._request_ids[request_id] = None
        if len(self._request_ids) > self.settings.request_ids:
            self._request_ids.popitem(last=False)

    def _count(self) -> None:
        limit = self.settings.calls_per_hour
        if not limit:
            return
        now = self._clock.monotonic()
        while self._calls and self._calls[0] <= now - HOUR:
            self._calls.popleft()
        if len(self._calls) < limit:
            self._calls.append(now)
            return
        refusal = RefusedError(SemsError.RATE_LIMITED, "too many calls, try again later")
        if self.settings.limit_by_http_status:
            refusal.status = 429
            refusal.headers = {"Retry-After": str(ceil(self._calls[0] + HOUR - now))}
        raise refusal


class Entrance:
    """Where one enters, whatever one may do there: several accounts behind one address for logins."""

    def __init__(self, *accounts: Account) -> None:
        self._accounts = accounts

    def named(self, name: str) -> Account:
        """Return the account of that name; one that lets nobody of another name in, where there is none."""
        return next((account for account in self._accounts if account.settings.name == name), self._accounts[0])

    def owner(self, token: str) -> str:
        """Return the account a token is for; empty when it is for none."""
        return next((name for account in self._accounts if (name := account.owner(token))), "")


def md5(password: str) -> str:
    """Return a password as GetToken wants it."""
    return hashlib.md5(password.encode(), usedforsecurity=False).hexdigest()
