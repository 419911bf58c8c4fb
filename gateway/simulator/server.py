"""The simulator as something that can be started and stopped."""

import asyncio
from typing import TYPE_CHECKING

import msgspec

from gateway.core.clock import Clock, SystemClock
from gateway.http.server import HttpServer, listen
from gateway.sems.catalogue import Catalogue
from gateway.sems.recording import Recording
from gateway.simulator.admin import Admin
from gateway.simulator.cloud import Cloud
from gateway.simulator.faults import FaultOrder
from gateway.simulator.fleet import make_fleet
from gateway.simulator.frozen_clock import FrozenClock
from gateway.simulator.pushes import Pusher, PushOrder
from gateway.simulator.settings import SimulatorSettings
from gateway.simulator.world import World

if TYPE_CHECKING:
    from gateway.simulator.batch import BatchCloud, BatchSettings


class Simulator:
    """A SEMS cloud on this machine. Stopped and started again, it is the same one, at the same address."""

    def __init__(
        self,
        settings: SimulatorSettings | None = None,
        clock: Clock | None = None,
        catalogue: Catalogue | None = None,
        recording: Recording | None = None,
        batch: "BatchSettings | None" = None,
        *,
        option: str = "--port",
    ) -> None:
        """Take what it is made of; `catalogue` is the classic API's.

        Raises ValueError for settings whose `faults` are none.
        `option` is named where the port can't be had.
        With a recording, its API serves what was recorded; without `batch` there is no Batch Remote Control API.
        """
        self.settings = settings or SimulatorSettings()
        still = FrozenClock(clock or SystemClock())
        fleet = make_fleet(
            self.settings.plants, devices_per_plant=self.settings.devices_per_plant, seed=self.settings.seed
        )
        self.world = World(
            fleet,
            still,
            seed=self.settings.seed,
            start=self.settings.start,
            speed=self.settings.speed,
            upload_interval=self.settings.upload_interval,
            step=self.settings.physics_step,
        )
        self.cloud = Cloud(self.world, self.settings, still, catalogue, recording)
        self.batch = None if batch is None else self._batch_cloud(batch, still)
        self.pusher = Pusher(self.world, self.cloud.tasks, still, self.settings.calls_remembered)
        self._admin = Admin(self.cloud, self.pusher)
        self.fleet = self._admin.truth
        """What its inverters really do, for who runs it in the same process."""
        self._faults: FaultOrder | None = msgspec.convert(self.settings.faults, FaultOrder)
        """What is wrong from the start, until it has begun."""
        self._port = self.settings.port
        self._option = option
        self._server: HttpServer | None = None
        self._task: asyncio.Task[None] | None = None

    def _batch_cloud(self, settings: "BatchSettings", still: FrozenClock) -> "BatchCloud":
        from gateway.simulator.batch import BatchCloud  # noqa: PLC0415 - brings Kafka, which most do without

        made = BatchCloud(self.world, self.cloud.tasks, still, settings)
        self.cloud.result_faults = made.faults
        return made

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end. With port 0 the port is known once it has been started."""
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"http://{host}:{self._port}"

    async def start(self) -> None:
        """Answer calls, on the running loop. Raises OSError when the port can't be had."""
        if self._task is not None:
            return
        listener = listen(self.settings.host, self._port, self._option)
        self._port = listener.getsockname()[1]
        self.world.start()
        if self._faults is not None:
            self.cloud.spoil(self._faults)
            self._faults = None
        self.cloud.open()
        self._server = HttpServer(self._admin.app)
        self._task = asyncio.create_task(self._server.run_on(listener), name="simulator")
        await self._server.ready.wait()
        if not self._server.started:
            await self.stop()
            return
        if self.batch is not None:
            await self.batch.start()
        if self.settings.push_url:
            self.pusher.begin(_standing_order(self.settings, self.settings.push_url))
        if self.settings.telemetry_url:
            self.pusher.begin(_standing_order(self.settings, self.settings.telemetry_url))

    async def stop(self) -> None:
        """Answer no more. The world goes on."""
        if self._task is None or self._server is None:
            return
        await self.pusher.stop()
        if self.batch is not None:
            await self.batch.stop()
        self.cloud.close()
        self._server.should_exit = True
        task, self._task = self._task, None
        await task


def _standing_order(settings: SimulatorSettings, url: str) -> PushOrder:
    return PushOrder(
        url=url,
        secret=settings.push_secret.get_secret_value(),
        interval=settings.push_interval,
        interfaces=settings.push_interfaces,
        rounds=None,
    )
