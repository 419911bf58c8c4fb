"""The bridge: listens, and answers 2xx only when nothing of a push can be lost any more."""

import asyncio
from collections import Counter
from typing import ClassVar, Final

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from gateway.api.bridge import BridgeSettings, Context
from gateway.bridges.push import body
from gateway.bridges.push.access_policy import AccessPolicy
from gateway.bridges.push.newcomers import Newcomers
from gateway.bridges.push.refusal import RefusalError
from gateway.bridges.push.settings import PushSettings
from gateway.config.host import at
from gateway.core.errors import GatewayError
from gateway.core.limiter import Limiter
from gateway.core.metrics import Metrics, counter
from gateway.http.acceptor import Limits
from gateway.http.addresses import is_loopback
from gateway.http.origin import ForbiddenError, Gated, OriginPolicy
from gateway.http.refused import METRICS as REFUSED
from gateway.http.refused import Refused
from gateway.http.server import HttpServer, listen
from gateway.http.tls import tls_context
from gateway.sems.catalogue import Json
from gateway.sems.pushed import BadPushError, Intake, Outcome

RETRY_AFTER: Final = 30
"""Seconds after which a push that was not stored may come again."""
TURNS: Final = 10
"""Requests that are worked on at a time, some 3 ms: others get their turn in between."""
MAX_LOGGED_KINDS: Final = 1000
"""Kinds of bad pushes that are logged, once each."""
UNUSED: Final = (Outcome.BAD, Outcome.UNKNOWN)
"""Nothing of these is kept."""
REPORTED: Final = 100
"""Bad objects that an answer lists."""

FORBIDDEN: Final = {
    "doubled_header": (400, "send it once", Outcome.UNAUTHORISED),
    "foreign_host": (403, "name it in hosts of the bridge, or send to an address", Outcome.UNAUTHORISED),
    "foreign_origin": (403, "web pages do not push", Outcome.UNAUTHORISED),
    "wrong_type": (415, "send JSON, as application/json", Outcome.BAD),
}
"""What the gate refuses: status, what to do, and what it is counted as."""


class _Request(msgspec.Struct):
    """What became of the objects of one request."""

    counts: Counter[Outcome] = msgspec.field(default_factory=Counter)
    marks: list[bytes] = msgspec.field(default_factory=list)
    first: int = 0
    """Lowest number that must be stored; 0 where none waits."""
    dropped: list[dict[str, object]] = msgspec.field(default_factory=list)


class PushBridge:
    """Source of what GoodWe sends by itself."""

    Settings: ClassVar[type[BridgeSettings]] = PushSettings
    listens: ClassVar[bool] = True
    """It waits to be called, so it finds no devices by itself."""

    def __init__(self, settings: PushSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._newcomers = Newcomers(settings, context)
        self._intake = Intake(settings, context, admit=self._newcomers.admit)
        self._refused = Refused(context.log)
        self._access = AccessPolicy(settings, context.clock, context.log, self._refused)
        self._told: set[str] = set()
        self._storing = True
        self._turns = Limiter(TURNS)
        self.counts: Counter[Outcome] = Counter()
        """Pushes by what became of them, since the process began."""
        self.port = 0
        """The port it listens on; 0 while it does not."""
        self.http: HttpServer
        """From `start` on."""

    @property
    def where(self) -> str:
        """For the line at start."""
        return at(self._settings.host, self.port) if self.port else ""

    async def start(self) -> None:
        """Listen. Raises OSError where the port is taken, or a file of `tls` can't be used."""
        settings = self._settings
        now = self._context.clock.now()
        tls = tls_context(settings.tls.certificate, settings.tls.key, now) if settings.tls else None
        certificate = settings.tls.certificate if settings.tls else None
        gate = OriginPolicy(settings.host, settings.hosts, body.takes, certificate, settings.header)
        listener = listen(settings.host, settings.port, f"bridges.{self._context.name}.port")
        self.port = listener.getsockname()[1]
        self.http = HttpServer(
            Gated(self.serve, gate, self._forbid),
            tls,
            name=self._context.name,
            log=self._context.log,
            limits=Limits(settings.max_connections, settings.max_connections_per_address),
            proxies=settings.trusted_proxies,
        )
        METRICS.watch(self._context.name, self)
        REFUSED.watch(self._context.name, self._refused)
        self._newcomers.begin()
        self._intake.begin()
        self._context.spawn(self.http.run_on(listener), "http")
        self._context.log.info("listening", host=settings.host, port=self.port, tls=tls is not None)
        if tls is None and not settings.trusted_proxies and not is_loopback(settings.host):
            self._context.log.warning("the secret goes over the network in clear text; set tls, or use a proxy")

    async def stop(self) -> None:
        """Listen no more."""
        METRICS.forget(self._context.name)
        REFUSED.forget(self._context.name)
        await self._newcomers.end()
        self.port = 0

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request (ASGI)."""
        response = await self._receive(Request(scope, receive))
        await response(scope, receive, send)

    def _forbid(self, request: Request, error: ForbiddenError) -> Response:
        """Answer what the gate has refused."""
        status, do, outcome = FORBIDDEN[error.kind]
        self._refused.note(error.kind, str(error), request.client.host if request.client else "")
        self.counts[outcome] += 1
        return JSONResponse({"error": f"{error}; {do}"}, status)

    async def _receive(self, request: Request) -> Response:
        try:
            self._access.admit(request)
            raw = await body.read(request, self._settings.max_bytes)
            async with self._turns.slot():
                result = await self._take(body.objects(raw))
            return await self._answer(result)
        except RefusalError as refusal:
            self.counts[refusal.outcome] += 1
            if refusal.outcome in (Outcome.BAD, Outcome.TOO_LARGE):
                self._tell(f"{refusal.status}", str(refusal))
            wait = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after else {}
            return JSONResponse({"error": str(refusal)}, refusal.status, headers=wait)

    async def _take(self, pushed: list[Json]) -> _Request:
        """Hand all objects to the router; a bad one keeps none of the others back."""
        result = _Request()
        for index, item in enumerate(pushed):
            try:
                taken = await self._intake.take(item)
            except Exception as unforeseen:  # noqa: BLE001 - whatever is wrong with one keeps none of the others back
                error = self._bad(unforeseen)
                result.counts[error.outcome] += 1
                result.dropped.append({"index": index, "reason": str(error)})
                self._tell(error.kind, str(error))
                continue
            result.counts[taken.outcome] += 1
            result.marks += taken.marks
            result.dropped += [{"index": index, "reason": reason} for reason in taken.dropped]
            for reason in taken.dropped:
                self._tell(reason, reason)
            if taken.first:
                result.first = min(result.first or taken.first, taken.first)
        return result

    def _bad(self, error: Exception) -> BadPushError:
        """Return what is wrong with a push, also where nobody foresaw it."""
        if isinstance(error, BadPushError):
            return error
        self._context.log.debug("traceback", exc_info=error)
        return BadPushError("not understood", f"it can't be used ({type(error).__name__})")

    async def _answer(self, result: _Request) -> Response:
        """Wait until what was taken is stored, and say what became of it."""
        unused = Counter({outcome: result.counts[outcome] for outcome in UNUSED})
        good = result.counts.total() - unused.total()
        trouble = await self._store(result) if result.first else ""
        if trouble:
            self.counts[Outcome.NOT_STORED] += good
            self.counts += unused
            return JSONResponse({"error": trouble}, 503, headers={"Retry-After": str(RETRY_AFTER)})
        self.counts += result.counts
        if not result.dropped:
            return Response(status_code=204)
        report: dict[str, object] = {outcome: result.counts[outcome] for outcome in Outcome if result.counts[outcome]}
        report["dropped"] = result.dropped[:REPORTED]
        return JSONResponse(report, 200 if good else 422)

    async def _store(self, result: _Request) -> str:
        """Wait until histories have what was taken. Returns why they have not, or nothing."""
        timeout = self._settings.timeout
        try:
            async with asyncio.timeout(timeout):
                await self._context.stored(result.first)
        except TimeoutError:
            trouble = f"not stored within {timeout:g} s"
        except GatewayError as error:
            self._intake.lost(result.marks)
            trouble = "not stored"
            self._tell("not stored", str(error))
        else:
            self._intake.stored(result.marks)
            trouble = ""
        if self._storing is not (not trouble):
            self._storing = not trouble
            if trouble:
                self._context.log.warning("pushes can't be stored; GoodWe is asked to send them again", why=trouble)
            else:
                self._context.log.info("pushes are stored again")
        return trouble

    def _tell(self, kind: str, text: str) -> None:
        """Log a bad push, once for its kind."""
        if kind not in self._told and len(self._told) < MAX_LOGGED_KINDS:
            self._told.add(kind)
            self._context.log.warning("a push can't be used; others like it are only counted", why=text)


METRICS: Final = Metrics[PushBridge](
    counter(
        "sems_gateway_pushes",
        "what GoodWe has pushed, by what became of it",
        lambda bridge: {outcome: bridge.counts[outcome] for outcome in Outcome},
        "outcome",
    ),
)
