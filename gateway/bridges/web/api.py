"""The paths, and what answers each."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.bridge import Context
from gateway.bridges.web import inventory, openapi, problems, served
from gateway.bridges.web.access_policy import AccessPolicy
from gateway.bridges.web.commands import Commands, body_of, reason_in
from gateway.bridges.web.events import HEADERS, Streams
from gateway.bridges.web.openapi import CURVES
from gateway.bridges.web.problems import ProblemError
from gateway.bridges.web.recent import Recent
from gateway.bridges.web.replies import json_response
from gateway.commands.policy.halt import HaltError
from gateway.core.model import Reason
from gateway.journal.journal import JournalError

Answer = Callable[[Request], Awaitable[Response]]

ROOT: Final = "/api/v1"
_BY_STATUS: Final = {404: "not_found", 405: "method_not_allowed"}


class Api:
    """Lets in who may, and answers everybody."""

    def __init__(
        self, context: Context, door: AccessPolicy, commands: Commands, streams: Streams, recent: Recent
    ) -> None:
        self._context = context
        self._access = door
        self._commands = commands
        self._document: dict[str, Any] | None = None
        """The OpenAPI document, from the first time on that somebody wants it."""
        self._streams = streams
        self._recent = recent

    def app(self, *others: Route) -> Starlette:
        """Return the application, `others` of the bridge's paths included."""
        return Starlette(
            routes=[
                *others,
                Route(openapi.PATH, self.guarded(self._openapi)),
                self._route("/devices", self._devices, "GET"),
                self._route("/devices/{serial:path}/set", self._set, "POST"),
                self._route("/devices/{serial:path}/explain", self._explain, "POST"),
                self._route("/devices/{serial:path}/registers", self._registers, "GET"),
                self._route("/devices/{serial:path}", self._device, "GET"),
                self._route("/recent", self._recent_of, "GET"),
                self._route("/budgets", self._budgets, "GET"),
                self._route("/commands/{id:path}", self._command, "GET", "DELETE"),
                self._route("/events", self._events, "GET"),
                self._route("/bridges", self._bridges, "GET"),
                self._route("/halt", self._halt, "GET", "POST"),
                self._route("/resume", self._resume, "POST"),
            ],
            exception_handlers={HTTPException: _wrong_path},
        )

    def _route(self, path: str, answer: Answer, *methods: str) -> Route:
        return Route(ROOT + path, self.guarded(answer), methods=methods)

    def guarded(self, answer: Answer) -> Answer:
        """Return what turns every failure into an answer that says what to do."""

        async def answered(request: Request) -> Response:
            try:
                return await answer(request)
            except ProblemError as error:
                return problems.response(error)
            except HaltError as error:
                return problems.response(ProblemError(error.reason, str(error)))
            except JournalError as error:
                return problems.response(ProblemError(Reason.NOT_STORED, str(error)))
            except Exception:
                self._context.log.exception("a request failed", path=request.url.path[:200])
                return problems.response(ProblemError("failed", "nothing more is known here"))

        return answered

    async def _openapi(self, request: Request) -> Response:
        self._access.reader(request)
        if self._document is None:
            self._document = openapi.document(request.app.routes, is_open=self._access.is_open)
        return json_response(self._document)

    async def _devices(self, request: Request) -> Response:
        self._access.reader(request)
        return inventory.devices(self._context, request)

    async def _device(self, request: Request) -> Response:
        caller = self._access.reader(request)
        return inventory.device(self._context, caller, request.path_params["serial"])

    async def _registers(self, request: Request) -> Response:
        self._access.reader(request)
        return served.registers(self._context, request)

    async def _recent_of(self, request: Request) -> Response:
        self._access.reader(request)
        serials = request.query_params.getlist("serial")
        if not 1 <= len(serials) <= CURVES:
            raise ProblemError(Reason.BAD_REQUEST, f"serial is to be there once to {CURVES} times")
        return json_response(self._recent.shape(serials))

    async def _budgets(self, request: Request) -> Response:
        self._access.reader(request)
        return served.budgets(self._context)

    async def _set(self, request: Request) -> Response:
        caller = self._access.writer(request)
        return await self._commands.submit(caller, request.path_params["serial"], request)

    async def _explain(self, request: Request) -> Response:
        caller = self._access.writer(request)
        return await self._commands.explain(caller, request.path_params["serial"], request)

    async def _events(self, request: Request) -> Response:
        caller = self._access.reader(request)
        if request.method == "HEAD":
            return Response(headers=HEADERS, media_type="text/event-stream")
        return self._streams.response(caller)

    async def _command(self, request: Request) -> Response:
        id_ = request.path_params["id"]
        if request.method == "DELETE":
            return await self._commands.cancel(self._access.writer(request), id_)
        self._access.reader(request)
        return await self._commands.show(id_, request)

    async def _bridges(self, request: Request) -> Response:
        self._access.reader(request)
        return inventory.bridges(self._context)

    async def _halt(self, request: Request) -> Response:
        if request.method == "POST":
            caller = self._access.writer(request)
            await self._context.halt(caller.origin, reason_in(await body_of(request)))
        else:
            self._access.reader(request)
        return self._halted()

    async def _resume(self, request: Request) -> Response:
        caller = self._access.writer(request)
        await body_of(request)
        await self._context.resume(caller.origin)
        return self._halted()

    def _halted(self) -> Response:
        return json_response(inventory.halt(self._context))


async def _wrong_path(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    kind = _BY_STATUS.get(status, "not_found")
    return problems.response(ProblemError(kind, problems.KINDS[kind].title.lower()), headers)
