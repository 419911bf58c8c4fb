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

from gateway.sems.catalogue import Catalogue, Interface, Json, Use
from gateway.simulator.accounts import Account, Entrance
from gateway.simulator.faults import JSON, SPOILT, AnswerFaults, Spoilt, refusal
from gateway.simulator.queries import Queries
from gateway.simulator.requests import Refusal, RefusedError, arguments, choose, code_of, parse_body, separated
from gateway.simulator.still import StillClock

MAX_BODY: Final = 64 * 1024
MAX_DISCARDED: Final = 1024 * 1024
"""Bytes of a body too large that are read away, so that the client hears why."""
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


class _Asked(msgspec.Struct):
    """A call, as far as it is understood."""

    path: str
    interface: Interface | None = None
    params: Mapping[str, Json] = {}
    each: Sequence[Mapping[str, Json]] = ()
    """The same for each item of a list that says what the call is for."""
    size: int = 0
    """Bytes of its body."""
    account: str = ""

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
        clock: StillClock,
        entrance: Entrance | None = None,
    ) -> None:
        """`entrance` is where others enter too, for other APIs."""
        self.catalogue = catalogue
        self.account = account
        self._entrance = entrance or Entrance(account)
        self.codes: dict[Refusal, str] = {}
        """Codes that are other than usual."""
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
        asked = _Asked(path.removeprefix(self.catalogue.base))
        asked.account = self._entrance.owner(self._token(request))
        error: RefusedError | None = None
        data: Json = None
        try:
            await self._understand(request, asked)
        except RefusedError as refused:
            error = refused
        fault = self._faults.of(self.catalogue.api, asked.name)
        if error is None and asked.interface is not None and (fault is None or fault.carries_out):
            try:
                with self._clock.held():
                    data = self._execute(asked.interface, request, asked)
            except RefusedError as refused:
                error = refused
        response, code = self._response(asked, data, error)
        spoil = fault.answer if fault else None
        self._calls.append(
            Call(
                time=self._clock.now(),
                api=self.catalogue.api,
                account=asked.account,
                interface=asked.name,
                method=request.method,
                params=asked.shown,
                code=spoil or str(code),
            )
        )
        await self._delay(self._faults.delay + (fault.delay if fault else 0.0))
        if spoil is None:
            return response
        return SPOILT[spoil](Spoilt(bytes(response.body), self.catalogue, asked.bare, self._clock.now()))

    async def _understand(self, request: Request, asked: _Asked) -> None:
        """Find out what is asked. Raises RefusedError."""
        takers = self._routes.get(request.scope["path"], [])
        able = [interface for interface in takers if interface.method == request.method]
        asked.interface = able[0] if able else None
        body = await _body(request)
        asked.size = len(body)
        if not able:
            raise _no_interface(asked.path, request.method, takers)
        asked.params = dict(request.query_params) if request.method == "GET" else parse_body(able[0], body)
        asked.each = separated(able, asked.params)
        asked.interface = choose(able, asked.each[0])
        if len(asked.each) > asked.interface.batch:
            most, count = asked.interface.batch, len(asked.each)
            raise RefusedError(Refusal.BAD_PARAMETER, f"it takes {most} items at a time, not {count}")

    def _execute(self, interface: Interface, request: Request, asked: _Asked) -> Json:
        if interface.use is Use.LOGIN:
            return self._log_in(interface, request, asked)
        request_id = request.headers.get(self.catalogue.request_id, "") if self.catalogue.request_id else ""
        if asked.account not in ("", self.account.terms.name):
            raise RefusedError(Refusal.NO_AUTHORITY, "this account may not use this API")
        self.account.enter(self._token(request), request_id)
        if len(asked.each) > 1:
            return self._queries.answer_each(interface, asked.each)
        return self._queries.answer(interface, arguments(interface, asked.params))

    def _log_in(self, interface: Interface, request: Request, asked: _Asked) -> Json:
        args = arguments(interface, asked.params)
        if interface.auth == "basic":
            name, secret = _basic(request.headers.get("authorization", ""))
        else:
            name, secret = str(args["account"]), str(args[_PASSWORD]).lower()
        account = self._entrance.named(name)
        token = account.log_in(name, secret)
        asked.account = name
        said: Data = {"token": token, "lifetime": round(account.terms.lifetime)}
        return {row.field: said[row.attribute] for row in interface.response}

    def _token(self, request: Request) -> str:
        scheme = self.catalogue.token
        header = request.headers.get(scheme.header, "")
        return header.removeprefix(scheme.prefix) if header.startswith(scheme.prefix) else ""

    def _response(self, asked: _Asked, data: Json, error: RefusedError | None) -> tuple[Response, str | int]:
        """Return the answer, and its code."""
        if error is not None:
            own = self.codes.get(error.reason) if isinstance(error.reason, Refusal) else None
            code = self._styled(asked.name, own or code_of(self.catalogue, error.reason))
            return refusal(self.catalogue, error, code, bare=asked.bare), code
        code = self._styled(asked.name, self.catalogue.success[0])
        content = data if asked.bare else {"code": code, "msg": "success", "data": data}
        return Response(msgspec.json.encode(content), media_type=JSON), code

    def _styled(self, name: str, code: str) -> str | int:
        """Every third interface gives a code that is a number as text, as some of the real ones do."""
        is_number = code.isdigit() and str(int(code)) == code
        return int(code) if is_number and self._numbers.get(name, 0) % 3 != 2 else code

    async def _delay(self, seconds: float) -> None:
        if not seconds:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            pass


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
