"""Serves the page, the API, metrics and health. To read, on loopback as it is; to command, with a token always."""

import asyncio
from collections.abc import Iterable
from typing import ClassVar, Final

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Metric, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway.api.bridge import BridgeSettings, Context
from gateway.bridges.web import page, problems
from gateway.bridges.web.access_policy import AccessPolicy
from gateway.bridges.web.api import Api
from gateway.bridges.web.commands import Commands, takes
from gateway.bridges.web.events import Streams
from gateway.bridges.web.metrics import METRICS, POINT_METRICS, Shown
from gateway.bridges.web.problems import ProblemError
from gateway.bridges.web.recent import Recent
from gateway.bridges.web.settings import WebSettings
from gateway.config.host import at
from gateway.core import shapes
from gateway.core.mailbox import Updates
from gateway.http.acceptor import Limits
from gateway.http.addresses import is_loopback
from gateway.http.origin import ForbiddenError, Gated, OriginPolicy
from gateway.http.refused import METRICS as REFUSED
from gateway.http.refused import Refused
from gateway.http.server import HttpServer, listen
from gateway.http.tls import tls_context

FORBIDDEN: Final = {"wrong_type": "not_json"}
"""What the gate refuses, by the name that it has here."""


class _Collected(list[Metric], Collector):
    """Metrics as they were read."""

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self


class WebBridge:
    """Origin, and shows how the gateway does."""

    Settings: ClassVar[type[BridgeSettings]] = WebSettings
    listens: ClassVar[bool] = True

    def __init__(self, settings: WebSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._refused = Refused(context.log)
        self._access = AccessPolicy(settings, context, self._refused)
        self._commands = Commands(context, settings.ttl)
        self._streams = Streams(context)
        self._recent = Recent(context, settings.recent)
        self._api = Api(context, self._access, self._commands, self._streams, self._recent)
        self._scraping = asyncio.Lock()
        """Held by one scrape at a time: others wait, and take no thread meanwhile."""
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
        gate = OriginPolicy(settings.host, settings.hosts, takes, settings.tls.certificate if settings.tls else None)
        listener = listen(settings.host, settings.port, f"bridges.{self._context.name}.port")
        self.port = listener.getsockname()[1]
        METRICS.watch(self._context.name, self._context)
        if settings.metrics_points:
            POINT_METRICS.watch(self._context.name, Shown(self._context, tuple(settings.metrics_points)))
        app = self._api.app(
            *page.routes(),
            Route("/metrics", self._api.guarded(self._metrics)),
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
        )
        REFUSED.watch(self._context.name, self._refused)
        self.http = HttpServer(
            Gated(app, gate, self._forbid),
            tls,
            name=self._context.name,
            log=self._context.log,
            limits=Limits(settings.max_connections, settings.max_connections_per_address),
            proxies=settings.trusted_proxies,
        )
        self._context.spawn(self.http.run_on(listener), "http")
        self._context.spawn(self._recent.run(), "recent")
        self._context.log.info("listening", host=settings.host, port=self.port, tls=tls is not None)
        if tls is None and not is_loopback(settings.host):
            self._context.log.warning("tokens go over the network in clear text; set tls, or use a proxy")

    async def stop(self) -> None:
        """Listen no more."""
        METRICS.forget(self._context.name)
        POINT_METRICS.forget(self._context.name)
        REFUSED.forget(self._context.name)
        self.port = 0

    async def deliver(self, updates: Updates) -> None:
        """Tell those who wait for the end of a command, and those who read the stream."""
        self._streams.deliver(updates)
        for event in updates.events:
            self._commands.step(event)

    def _forbid(self, request: Request, error: ForbiddenError) -> Response:
        """Answer what the gate has refused."""
        kind = FORBIDDEN.get(error.kind, error.kind)
        self._refused.note(kind, str(error), request.client.host if request.client else "")
        return problems.response(ProblemError(kind, str(error)))

    async def _metrics(self, request: Request) -> Response:
        """Read metric by metric, so that others get their turn, and format on a thread: devices may be thousands."""
        self._access.reader(request)
        async with self._scraping:
            found = _Collected()
            for family in REGISTRY.collect():
                found.append(family)
                await asyncio.sleep(0)
            return Response(await asyncio.to_thread(generate_latest, found), media_type=CONTENT_TYPE_LATEST)

    async def _healthz(self, _: Request) -> Response:
        """Answer at all: the process lives and its loop turns. Tells nothing, so needs no token."""
        return PlainTextResponse("ok\n")

    async def _readyz(self, _: Request) -> Response:
        """Answer 200 when every bridge does its work and the journal can be written, else 503 with what does not.

        A gateway whose control is halted is ready, and says so; so is one whose bridges have findings.
        """
        statuses = self._context.bridges()
        down = [status.name for status in statuses if not status.up]
        trouble = self._context.journal_trouble
        ready = not down and not trouble
        halted = self._context.halted is not None
        body = {"ready": ready, "down": down, "halted": halted} | ({"journal": trouble} if trouble else {})
        findings = [
            {"bridge": status.name, "code": each.code, "subject": each.subject, "text": each.text}
            for status in statuses
            for each in status.findings
            if each.is_trouble
        ]
        body |= {"findings": findings[: shapes.MAX_FINDINGS]} if findings else {}
        return JSONResponse(body, 200 if ready else 503)
