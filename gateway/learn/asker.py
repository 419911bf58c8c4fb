"""Makes the calls of `learn` by the account's own session: its token, its budget, and no control call ever."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from gateway.core.clock import Clock
from gateway.core.errors import GatewayError, NotSentError
from gateway.core.text import MAX_REASON, plain
from gateway.learn.collect import NotAReadingCallError
from gateway.learn.infer import READING
from gateway.sems.budget import Priority
from gateway.sems.catalogue import Interface, Json, Use
from gateway.sems.errors import LoginHeldError, LoginRefusedError, NoLicenceError, TokenExpiredError, UnreachableError
from gateway.sems.recording import Answer
from gateway.sems.session import Session

TICK: Final = 0.01
MAX_BODY: Final = 8 * 1024 * 1024
"""Bytes of one answer that are kept."""
MAX_FIELDS: Final = 20
TRIES: Final = 3
RETRY: Final = 2.0
"""Seconds until a call that got no answer is made again."""


class LearnError(Exception):
    """It can't go on. The message says why, and what to do."""


class Asker:
    """Asks one account; see `collect.Ask`."""

    def __init__(self, session: Session, clock: Clock, waiting: Callable[[float, str], None]) -> None:
        """Ask by a session; `waiting` is called with the seconds for which calls have to wait, and why."""
        self._session = session
        self._clock = clock
        self._waiting = waiting
        self._heard: Answer | None = None
        self._login_fields: list[str] = []
        """What the login's answer has, by name."""
        session.listen(self._hear)

    async def __call__(self, interface: Interface, args: Mapping[str, object]) -> Answer | None:
        """Make one call; what refuses this interface alone is an answer, too.

        Raises LearnError for what stands in the way of all calls.
        """
        if interface.use not in READING:
            raise NotAReadingCallError(f"{interface.name} is no reading interface")
        for _ in range(TRIES):
            while wait := self._session.budget.wait(Priority.POLLING):
                self._waiting(wait, "the account's calls of this hour are used up")
                await asyncio.sleep(max(wait, TICK))
            self._heard = None
            try:
                await self._session.call(interface.name, args, priority=Priority.POLLING)
            except (LoginRefusedError, LoginHeldError, NoLicenceError, TokenExpiredError) as error:
                if self._heard is not None:  # it was this interface that said no; whether others do is to be seen
                    return self._heard
                raise LearnError(f"{error}; nothing more was asked") from None
            except UnreachableError as error:
                raise LearnError(f"{error}; {self._advice()}") from None
            except NotSentError as error:
                wait = error.retry_after or RETRY
                self._waiting(wait, str(error))
                await asyncio.sleep(wait)
                continue
            except GatewayError:
                # What it said is worth as much to us; what said nothing is asked again.
                if self._heard is None:
                    await asyncio.sleep(RETRY)
                    continue
            return self._heard
        return self._heard

    def _advice(self) -> str:
        if not self._login_fields:
            return "check url, network and DNS"
        fields = plain(", ".join(self._login_fields), MAX_REASON)
        return f"its login answers with {fields}; say `envelope: {{code: …, data: …}}` in overrides, see docs/sems.md"

    def _hear(self, interface: Interface, fields: Mapping[str, Json], status: int, body: bytes) -> None:
        self._heard = None
        if interface.use is Use.LOGIN:  # it has the token in it, so nothing is kept but how it is wrapped
            document = _document(body[:MAX_BODY])
            self._login_fields = sorted(document)[:MAX_FIELDS] if isinstance(document, dict) else []
            return
        self._heard = Answer(interface.name, dict(fields), self._clock.now(), status, _document(body[:MAX_BODY]))


def _document(body: bytes) -> Any:
    """Return the JSON that an answer is, or its text."""
    try:
        return msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "replace")
