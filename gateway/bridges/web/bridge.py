"""Serves metrics and health over HTTP: on loopback as it is, elsewhere with a token."""

import hmac
from typing import ClassVar, Self

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from pydantic import Field, model_validator
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway.bridges.web.metrics import GatewayCollector
from gateway.core.bridge import BridgeSettings, Context
from gateway.core.secret import Secret
from gateway.http_server import HttpServer, is_loopback, listen


class WebSettings(BridgeSettings):
    """`type: web`."""

    host: str = Field(default="127.0.0.1", description="address to listen on; other than loopback needs a token")
    port: int = Field(default=9090, ge=0, le=65535, description="0: any free one, named in the log")
    token: Secret | None = Field(default=None, description="asked for as `Authorization: Bearer …`")

    @model_validator(mode="after")
    def _closed_to_strangers(self) -> Self:
        if self.token is None and not is_loopback(self.host):
            raise ValueError(f"host {self.host} is open to others; set token, or listen on 127.0.0.1")
        return self


class WebBridge:
    """Shows how the gateway does."""

    Settings: ClassVar[type[BridgeSettings]] = WebSettings
    listens: ClassVar[bool] = True

    def __init__(self, settings: WebSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._collector = GatewayCollector(context)
        self._collecting = False
        self.port = 0
        """The port it listens on; 0 while it does not."""

    async def start(self) -> None:
        """Listen. Raises OSError where the port is taken."""
        settings = self._settings
        listener = listen(settings.host, settings.port, f"bridges.{self._context.name}.port")
        self.port = listener.getsockname()[1]
        REGISTRY.register(self._collector)
        self._collecting = True
        app = Starlette(
            routes=[
                Route("/metrics", self._metrics),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
            ]
        )
        self._context.spawn(HttpServer(app).run_on(listener), "http")
        self._context.log.info("listening", host=settings.host, port=self.port)

    async def stop(self) -> None:
        """Listen no more."""
        if self._collecting:
            REGISTRY.unregister(self._collector)
            self._collecting = False
        self.port = 0

    def _admitted(self, request: Request) -> bool:
        token = self._settings.token
        if token is None:
            return True
        said = request.headers.get("authorization", "")
        return hmac.compare_digest(said.encode(), f"Bearer {token.get_secret_value()}".encode())

    async def _metrics(self, request: Request) -> Response:
        if not self._admitted(request):
            return PlainTextResponse(
                "send the token: Authorization: Bearer …\n", 401, headers={"WWW-Authenticate": "Bearer"}
            )
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    async def _healthz(self, _: Request) -> Response:
        """Answer at all: the process lives and its loop turns. Tells nothing, so needs no token."""
        return PlainTextResponse("ok\n")

    async def _readyz(self, _: Request) -> Response:
        """Answer 200 when every bridge does its work, else 503 with the names of those that don't."""
        down = [status.name for status in self._context.bridges() if not status.up]
        return JSONResponse({"ready": not down, "down": down}, 503 if down else 200)
