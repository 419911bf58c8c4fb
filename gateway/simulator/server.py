"""The simulator as something that can be started and stopped."""

import asyncio
import contextlib
import socket
from collections.abc import Generator

import uvicorn

from gateway.core.clock import Clock, SystemClock
from gateway.sems.catalogue import Catalogue
from gateway.simulator.admin import Admin
from gateway.simulator.cloud import Cloud
from gateway.simulator.fleet import make_fleet
from gateway.simulator.pushes import Pusher, PushOrder
from gateway.simulator.settings import SimulatorSettings
from gateway.simulator.still import StillClock
from gateway.simulator.world import World

_GRACE = 2
"""Seconds that calls have to end when the server stops."""


class Simulator:
    """A SEMS cloud on this machine. Stopped and started again, it is the same one, at the same address."""

    def __init__(
        self,
        settings: SimulatorSettings | None = None,
        clock: Clock | None = None,
        catalogue: Catalogue | None = None,
        developer: Catalogue | None = None,
    ) -> None:
        """Take what it is made of; `catalogue` is the classic API's, `developer` the developer platform's."""
        self.settings = settings or SimulatorSettings()
        clock = StillClock(clock or SystemClock())
        fleet = make_fleet(
            self.settings.plants, devices_per_plant=self.settings.devices_per_plant, seed=self.settings.seed
        )
        self.world = World(fleet, clock, seed=self.settings.seed, start=self.settings.start, speed=self.settings.speed)
        self.cloud = Cloud(self.world, self.settings, clock, catalogue, developer)
        self.pusher = Pusher(self.world, self.cloud.tasks, clock, self.settings.calls_remembered)
        self._port = self.settings.port
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end. With port 0 the port is known once it has been started."""
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"http://{host}:{self._port}"

    async def start(self) -> None:
        """Answer calls, on the running loop. Raises OSError when the port can't be had."""
        if self._task is not None:
            return
        listener = self._listen()
        self._port = listener.getsockname()[1]
        self.world.start()
        self.cloud.open()
        config = uvicorn.Config(
            Admin(self.cloud, self.pusher).app,
            interface="asgi3",
            proxy_headers=False,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_GRACE,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve([listener]), name="simulator")
        await self._server.ready.wait()
        if not self._server.started:
            await self.stop()
        elif self.settings.push_url:
            self.pusher.begin(_standing_order(self.settings))

    async def stop(self) -> None:
        """Answer no more. The world goes on."""
        if self._task is None or self._server is None:
            return
        await self.pusher.stop()
        self.cloud.close()
        self._server.should_exit = True
        task, self._task = self._task, None
        await task

    def _listen(self) -> socket.socket:
        address = (self.settings.host, self._port)
        family = socket.AF_INET6 if ":" in self.settings.host else socket.AF_INET
        try:
            listener = socket.create_server(address, family=family)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(
                error.errno, f"the simulator can't listen on {address[0]} port {address[1]}: {reason}"
            ) from error
        # Connections inherit it. asyncio sets it by itself only where a socket names its protocol, and without
        # it every answer waits 40 ms for the client's delayed ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener


def _standing_order(settings: SimulatorSettings) -> PushOrder:
    return PushOrder(
        url=settings.push_url,
        secret=settings.push_secret.get_secret_value(),
        interval=settings.push_interval,
        interfaces=settings.push_interfaces,
        rounds=None,
    )


class _Server(uvicorn.Server):
    """A guest in somebody else's process: signals are not its business."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        try:
            await super().startup(sockets)
        finally:
            self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield
