"""Serves the API, metrics and health over HTTP: to read, on loopback as it is; to command, with a token always."""

from typing import ClassVar

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway.bridges.web.api import Api
from gateway.bridges.web.commands import Commands
from gateway.bridges.web.door import Door
from gateway.bridges.web.metrics import GatewayCollector
from gateway.bridges.web.settings import WebSettings
from gateway.core.bridge import BridgeSettings, Context, Updates
from gateway.http_server import HttpServer, is_loopback, listen, tls_context


class WebBridge:
    """Origin, and shows how the gateway does."""

    Settings: ClassVar[type[BridgeSettings]] = WebSettings
    listens: ClassVar[bool] = True

    def __init__(self, settings: WebSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._collector = GatewayCollector(context)
        self._collecting = False
        self._door = Door(settings, context)
        self._commands = Commands(context, settings.ttl)
        self._api = Api(context, self._door, self._commands)
        self.port = 0
        """The port it listens on; 0 while it does not."""

    async def start(self) -> None:
        """Listen. Raises OSError where the port is taken, or a file of `tls` can't be used."""
        settings = self._settings
        now = self._context.clock.now()
        tls = tls_context(settings.tls.certificate, settings.tls.key, now) if settings.tls else None
        listener = listen(settings.host, settings.port, f"bridges.{self._context.name}.port")
        self.port = listener.getsockname()[1]
        REGISTRY.register(self._collector)
        self._collecting = True
        app = self._api.app(
            Route("/metrics", self._api.guarded(self._metrics)),
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
        )
        server = HttpServer(app, tls, limit_concurrency=settings.max_connections)
        self._context.spawn(server.run_on(listener), "http")
        self._context.log.info("listening", host=settings.host, port=self.port, tls=tls is not None)
        if tls is None and not is_loopback(settings.host):
            self._context.log.warning("tokens go over the network in clear text; set tls, or use a proxy")

    async def stop(self) -> None:
        """Listen no more."""
        if self._collecting:
            REGISTRY.unregister(self._collector)
            self._collecting = False
        self.port = 0

    async def deliver(self, updates: Updates) -> None:
        """Tell those who wait for the end of a command."""
        for event in updates.events:
            self._commands.step(event)

    async def _metrics(self, request: Request) -> Response:
        self._door.reader(request)
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    async def _healthz(self, _: Request) -> Response:
        """Answer at all: the process lives and its loop turns. Tells nothing, so needs no token."""
        return PlainTextResponse("ok\n")

    async def _readyz(self, _: Request) -> Response:
        """Answer 200 when every bridge does its work, else 503 with the names of those that don't.

        A gateway whose control is halted is ready, and says so.
        """
        down = [status.name for status in self._context.bridges() if not status.up]
        halted = self._context.halted is not None
        return JSONResponse({"ready": not down, "down": down, "halted": halted}, 503 if down else 200)
