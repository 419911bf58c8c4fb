"""One API of the cloud over HTTP: paths, tokens, envelopes and codes as its catalogue has them."""

import asyncio
import base64
import binascii
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.core.clock import set_within
from gateway.sems.catalogue import Catalogue, Interface, Json, Use
from gateway.sems.recording import Answer
from gateway.simulator.accounts import Account, Entrance
from gateway.simulator.dialect import Dialect
from gateway.simulator.faults import JSON, SPOILT, AnswerFaults, Spoilt, refusal, reworded
from gateway.simulator.frozen_clock import FrozenClock
from gateway.simulator.playback import Playback
from gateway.simulator.queries import Queries
from gateway.simulator.requests import Refusal, RefusedError, arguments, choose, code_of, parse_body, separated

MAX_BODY: Final = 64 * 1024
MAX_DISCARDED: Final = 1024 * 1024
"""Bytes of a body too large that are read away, so that the client can read why."""
MAX_REMEMBERED: Final = 4096
"""Bytes of a body whose fields are kept as evidence; there may be many."""
_PASSWORD: Final = "password_md5"  # noqa: S105 - the name of an argument

Data = dict[str, Json]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call that was made."""

    time: datetime
    """Wall clock, UTC."""
    api: str
    """Name of the catalogue it came by."""
    account: str
    """Whose; empty for a call with no valid token."""
    interface: str
    """Its name in the catalogue; the path below the base where there is none."""
    method: str
    params: Mapping[str, Json]
    """As sent, without passwords; empty for a body over 4 KiB."""
    code: str
    """What the envelope said, or the name of the fault that spoilt the answer."""


class _Parsed(msgspec.Struct):
    """A call, as far as it is understood."""

    path: str
    interface: Interface | None = None
    params: Mapping[str, Json] = {}
    each: Sequence[Mapping[str, Json]] = ()
    """The same for each item of a list that says what the call is for."""
    size: int = 0
    """Bytes of its body."""
    account: str = ""
    played: Answer | None = None
    """What a recording has for it."""

    @property
    def name(self) -> str:
        return self.interface.name if self.interface else self.path

    @property
    def bare(self) -> bool:
        return self.interface is not None and self.interface.bare

    @property
    def shown(self) -> Data:
        """The fields without secrets."""
        if self.size > MAX_REMEMBERED or self.interface is None:
            return {}
        secret = {row.field for row in self.interface.request if row.arg == _PASSWORD}
        return {field: value for field, value in self.params.items() if field not in secret}


class Platform:
    """One API, as an ASGI application."""

    def __init__(
        self,
        catalogue: Catalogue,
        account: Account,
        queries: Queries,
        faults: AnswerFaults,
        calls: deque[Call],
        clock: FrozenClock,
        entrance: Entrance | None = None,
        dialect: Dialect | None = None,
    ) -> None:
        """`entrance` is where others enter too, for other APIs; `dialect` is that of its catalogue."""
        self.catalogue = catalogue
        self.account = account
        self.dialect = dialect
        self._entrance = entrance or Entrance(account)
        self.playback: Playback | None = None
        """What it answers with instead of its own."""
        self._queries = queries
        self._faults = faults
        self._calls = calls
        self._clock = clock
        self._closing = asyncio.Event()
        self._routes: dict[str, list[Interface]] = {}
        for interface in catalogue.interfaces:
            self._routes.setdefault(catalogue.url_path(interface), []).append(interface)
        self._numbers = {interface.name: number for number, interface in enumerate(catalogue.interfaces)}

    def takes(self, path: str) -> bool:
        """Return whether a path is this API's."""
        return path.startswith(self.catalogue.base) or path in self._routes

    def open(self) -> None:
        """Answer calls; delayed answers are delayed."""
        self._closing.clear()

    def close(self) -> None:
        """Let delayed answers go at once."""
        self._closing.set()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        try:
            response = await self._answer(Request(scope, receive))
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = request.scope["path"]
        call = _Parsed(path.removeprefix(self.catalogue.base))
        call.account = self._entrance.owner(self._token(request))
        error: RefusedError | None = None
        data: Json = None
        try:
            await self._understand(request, call)
        except RefusedError as refused:
            error = refused
        fault = self._faults.of(self.catalogue.api, call.name)
        if error is None and call.interface is not None and (fault is None or fault.carries_out):
            try:
                with self._clock.held():
                    data = self._execute(call.interface, request, call)
            except RefusedError as refused:
                error = refused
        response, code = self._response(call, data, error)
        if self.dialect is not None:
            response = _in_dialect(self.dialect, call.interface, response)
        spoil = fault.answer if fault else None
        self._calls.append(
            Call(
                time=self._clock.now(),
                api=self.catalogue.api,
                account=call.account,
                interface=call.name,
                method=request.method,
                params=call.shown,
                code=spoil or str(code),
            )
        )
        if delay := self._faults.delay + (fault.delay if fault else 0.0):
            await set_within(self._closing, delay)
        if spoil is None:
            return reworded(response, fault.says) if fault and fault.says else response
        return SPOILT[spoil](Spoilt(bytes(response.body), self.catalogue, call.bare, self._clock.now()))

    async def _understand(self, request: Request, call: _Parsed) -> None:
        """Find out what the call is for. Raises RefusedError."""
        takers = self._routes.get(request.scope["path"], [])
        able = [interface for interface in takers if interface.method == request.method]
        call.interface = able[0] if able else None
        body = await _body(request)
        call.size = len(body)
        if not able:
            raise _no_interface(call.path, request.method, takers)
        call.params = dict(request.query_params) if request.method == "GET" else parse_body(able[0], body)
        call.each = separated(able, call.params)
        call.interface = choose(able, call.each[0])
        if len(call.each) > call.interface.batch:
            most, count = call.interface.batch, len(call.each)
            raise RefusedError(Refusal.BAD_PARAMETER, f"it takes {most} items at a time, not {count}")

    def _execute(self, interface: Interface, request: Request, call: _Parsed) -> Json:
        if interface.use is Use.LOGIN:
            return self._log_in(interface, request, call)
        request_id = request.headers.get(self.catalogue.request_id, "") if self.catalogue.request_id else ""
        if call.account not in ("", self.account.settings.name):
            raise RefusedError(Refusal.NO_AUTHORITY, "this account may not use this API")
        self.account.enter(self._token(request), request_id)
        if self.playback is not None:
            call.played = self.playback.answer(interface, call.params, self._clock.now())
            return None
        if len(call.each) > 1:
            return self._queries.answer_each(interface, call.each)
        return self._queries.answer(interface, arguments(interface, call.params))

    def _log_in(self, interface: Interface, request: Request, call: _Parsed) -> Json:
        args = arguments(interface, call.params)
        if interface.auth == "basic":
            name, secret = _basic(request.headers.get("authorization", ""))
        else:
            name, secret = str(args["account"]), str(args[_PASSWORD]).lower()
        account = self._entrance.named(name)
        token = account.log_in(name, secret)
        call.account = name
        said: Data = {"token": token, "lifetime": round(account.settings.lifetime)}
        return {row.field: said[row.attribute] for row in interface.response}

    def _token(self, request: Request) -> str:
        scheme = self.catalogue.token
        header = request.headers.get(scheme.header, "")
        return header.removeprefix(scheme.prefix) if header.startswith(scheme.prefix) else ""

    def _response(self, call: _Parsed, data: Json, error: RefusedError | None) -> tuple[Response, str | int]:
        """Return the answer, and its code."""
        if call.played is not None:
            return _played(call.played)
        if error is not None:
            code = self._styled(call.name, code_of(self.catalogue, error.reason))
            return refusal(self.catalogue, error, code, bare=call.bare), code
        code = self._styled(call.name, self.catalogue.success[0])
        content = data if call.bare else {"code": code, "msg": "success", "data": data}
        return Response(msgspec.json.encode(content), media_type=JSON), code

    def _styled(self, name: str, code: str) -> str | int:
        """Every third interface gives a code that is a number as text, as some of the real ones do."""
        is_number = code.isdigit() and str(int(code)) == code
        return int(code) if is_number and self._numbers.get(name, 0) % 3 != 2 else code


def _played(answer: Answer) -> tuple[Response, str]:
    body, status = answer.body, answer.status
    if isinstance(body, str):
        return Response(body, status), str(status)
    code = body.get("code", status) if isinstance(body, dict) else status
    return Response(msgspec.json.encode(body), status, media_type=JSON), str(code)


def _in_dialect(dialect: Dialect, interface: Interface | None, response: Response) -> Response:
    said = dialect.say(interface, msgspec.json.decode(response.body))
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    return Response(msgspec.json.encode(said), response.status_code, headers)


def _no_interface(path: str, method: str, takers: Sequence[Interface]) -> RefusedError:
    if takers:
        return RefusedError(Refusal.WRONG_METHOD, f"{path} does not take {method}")
    return RefusedError(Refusal.NO_INTERFACE, "there is no such interface", 404)


def _basic(header: str) -> tuple[str, str]:
    """Return user and password of HTTP basic authentication; empty ones where there are none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    user, _, password = text.partition(":")
    return user, password


async def _body(request: Request) -> bytes:
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MAX_BODY:
            body += chunk
        elif size > MAX_DISCARDED:
            break
    if size > MAX_BODY:
        text = f"the body has more than {MAX_BODY} bytes"
        # Without the header the server would read on.
        raise RefusedError(Refusal.BODY_TOO_LARGE, text, headers={"Connection": "close"})
    return bytes(body)
