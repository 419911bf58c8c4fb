"""From `POST …/set` to commands, and what is known of them."""

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from gateway.api.contexts import OriginContext
from gateway.bridges.web.access_policy import Caller
from gateway.bridges.web.answers import Reasoned
from gateway.bridges.web.openapi import WAIT_LIMIT
from gateway.bridges.web.problems import ProblemError, worst
from gateway.bridges.web.replies import json_response
from gateway.commands.requests import Request, RequestError, parse_object
from gateway.core import shapes, strict
from gateway.core.model import Command, CommandEvent, CommandState, Reason, iso, new_command_id
from gateway.http.body import BodyError, read_body

BODY_LIMIT: Final = 64 * 1024
BODY_TIMEOUT: Final = 10.0
"""Seconds that a client has for a body."""
BODY_KINDS: Final = {408: "timed_out", 413: "too_large"}


class Commands:
    """Submits what is asked for, and answers for it."""

    def __init__(self, context: OriginContext, ttl: float) -> None:
        self._context = context
        self._ttl = ttl
        self._waiting: dict[str, list[asyncio.Event]] = {}
        """Command id → who waits for its end."""

    def step(self, event: CommandEvent) -> None:
        """Take notice of a step, whoever asked for it."""
        if event.state.final:
            for ended in self._waiting.get(event.command.id, ()):
                ended.set()

    async def submit(self, caller: Caller, serial: str, http: HttpRequest) -> Response:
        """Answer a request to set something: 202 with where each command stands, 200 where all have ended."""
        seconds = _wait_in(http)
        request = await self._read(http)
        commands = self._commands(caller, serial, request)
        ids = [command.id for command in commands]
        with self._followed(ids) as ends:
            events = await self._context.submit(*commands)
            refused = [(event.reason, event.detail) for event in events if event.reason is not None]
            if refused:
                reason, detail = worst(refused)
                raise ProblemError(reason, detail, commands=[shapes.step(event) for event in events])
            if seconds and not _ended(events):
                await _all(ends, seconds)
                events = [(await self._context.steps(event.command.id))[-1] for event in events]
        headers = {"Location": f"/api/v1/commands/{quote(ids[0], safe='')}"} if len(ids) == 1 else {}
        body = {"commands": [shapes.step(event) for event in events]}
        return json_response(body, 200 if _ended(events) else 202, headers)

    async def explain(self, caller: Caller, serial: str, http: HttpRequest) -> Response:
        """Answer what `submit` would say of the same body, check by check. Nothing is counted or done."""
        commands = self._commands(caller, serial, await self._read(http))
        verdicts = [self._context.explain(command) for command in commands]
        refusal = self._context.judge(*commands)
        body = {
            "permitted": refusal is None,
            "reason": refusal.reason if refusal else None,
            "detail": refusal.detail if refusal else "",
            "commands": [
                {"setpoint": command.setpoint, "rule": None if found.rule is None else found.rule + 1}
                | shapes.verdict(found)
                for command, found in zip(commands, verdicts, strict=True)
            ],
        }
        return json_response(body)

    async def show(self, id_: str, http: HttpRequest) -> Response:
        """Answer what became of a command."""
        seconds = _wait_in(http)
        with self._followed([id_]) as ends:
            steps = await self._known(id_)
            if seconds and not _ended(steps[-1:]):
                await _all(ends, seconds)
                steps = await self._known(id_)
        return json_response(_told(steps))

    async def cancel(self, caller: Caller, id_: str) -> Response:
        """End a command that has not left yet."""
        command = (await self._known(id_))[-1].command
        state = self._context.state(command.serial)
        if state is None or command.setpoint not in self._context.permitted(state.device, caller.origin):
            raise ProblemError(
                Reason.NOT_PERMITTED, f"this token may not set {command.setpoint} of {command.serial}", id=id_
            )
        with self._followed([id_]) as ends:
            if await self._context.cancel(id_, by=caller.origin):
                await _all(ends, BODY_TIMEOUT)
                return json_response(_told(await self._known(id_)))
        last = (await self._known(id_))[-1]
        why = f"it is {last.state} already" if last.state is not CommandState.ACCEPTED else "it may have left already"
        raise ProblemError("not_cancellable", why, commands=[shapes.step(last)])

    async def _known(self, id_: str) -> list[CommandEvent]:
        steps = await self._context.steps(id_)
        if not steps:
            raise ProblemError("unknown_command", "nothing is known by that id")
        return steps

    async def _read(self, http: HttpRequest) -> Request:
        try:
            return parse_object(await body_of(http))
        except RequestError as error:
            raise _problem(error) from None

    def _commands(self, caller: Caller, serial: str, request: Request) -> list[Command]:
        now = self._context.clock.now()
        try:
            said = request.said(now)
        except RequestError as error:
            raise _problem(error) from None
        expires = said + timedelta(seconds=self._ttl if request.ttl is None else request.ttl)
        ids = request.ids() or [new_command_id() for _ in request.values]
        return [
            Command(
                id=id_,
                serial=serial,
                setpoint=setpoint,
                value=value,
                origin=caller.origin,
                created=now,
                expires=expires,
                revert_after=request.revert_after,
                revert_value=request.revert_value,
            )
            for id_, (setpoint, value) in zip(ids, request.values.items(), strict=True)
        ]

    @contextmanager
    def _followed(self, ids: Collection[str]) -> Iterator[list[asyncio.Event]]:
        """Give, in the order of `ids`, what is set when a command ends."""
        ends = [asyncio.Event() for _ in ids]
        for id_, ended in zip(ids, ends, strict=True):
            self._waiting.setdefault(id_, []).append(ended)
        try:
            yield ends
        finally:
            for id_, ended in zip(ids, ends, strict=True):
                self._waiting[id_].remove(ended)
                if not self._waiting[id_]:
                    del self._waiting[id_]


def _problem(error: RequestError) -> ProblemError:
    return ProblemError(error.reason, error.detail, id=error.id, setpoint=error.setpoint)


def takes(media_type: str) -> bool:
    """Return whether a body of this type is taken. See `gateway.http.origin`."""
    return media_type == "application/json"


async def body_of(http: HttpRequest) -> bytes:
    """Return a body, whose type was looked at before. Raises ProblemError."""
    if http.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise ProblemError("not_json", "it is packed; send it plain")
    try:
        return await read_body(http, BODY_LIMIT, BODY_TIMEOUT)
    except BodyError as error:
        raise ProblemError(BODY_KINDS.get(error.status, Reason.BAD_REQUEST), str(error)) from None


def reason_in(body: bytes) -> str:
    """Return what a body says as `{"reason": …}`; nothing at all is allowed too. Raises ProblemError."""
    if not body.strip():
        return ""
    try:
        said: Reasoned = strict.decode(body, Reasoned)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(Reason.BAD_REQUEST, f'it takes {{"reason": "…"}}: {error}') from None
    return said.reason


def _wait_in(http: HttpRequest) -> float:
    """Return the seconds that the caller wants to wait for the end."""
    text = http.query_params.get("wait", "0")
    try:
        seconds = strict.number(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= WAIT_LIMIT:
        raise ProblemError(Reason.BAD_REQUEST, f"wait takes seconds, 0 to {WAIT_LIMIT:g}, not {text[:64]!r}")
    return seconds


async def _all(ends: list[asyncio.Event], seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for ended in ends:
                await ended.wait()


def _ended(events: Collection[CommandEvent]) -> bool:
    return all(event.state.final for event in events)


def _told(steps: list[CommandEvent]) -> dict[str, Any]:
    """Return a command as a whole: where it stands, and how it came there."""
    last = next(event for event in reversed(steps) if not event.correction)
    command = last.command
    return {
        "id": command.id,
        "serial": command.serial,
        "setpoint": command.setpoint,
        "value": command.value,
        "origin": str(command.origin),
        "created": iso(command.created),
        "expires": iso(command.expires),
        "revert_after": command.revert_after,
        "revert_value": command.revert_value,
        "state": last.state,
        "final": last.state.final,
        "verified": last.verified if last.state is CommandState.SUCCEEDED else None,
        "steps": [{key: value for key, value in shapes.step(event).items() if key in _OF_A_STEP} for event in steps],
    } | ({"parent": command.parent} if command.parent else {})


_OF_A_STEP: Final = ("state", "reason", "detail", "time", "verified", "correction")
