"""A gateway's own core round one bridge: router, policy, journal, dispatcher and supervisor, all of them the real ones.

Between the bridge and its context stands a witness, which knows what was called, and can let a call fail.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self, cast

from gateway.api.bridge import Bridge, BridgeSettings
from gateway.commands.dispatch import Dispatcher
from gateway.commands.policy.halt import Halting
from gateway.commands.policy.policy import ControlSettings, Policy, Rule
from gateway.core.clock import SystemClock
from gateway.core.controller import Outcome
from gateway.core.model import Command, CommandState, Device, DeviceKind, Origin, Range, Snapshot, Value
from gateway.core.points import SETPOINTS
from gateway.core.router import Router
from gateway.journal.journal import Journal
from gateway.run.supervisor import Runner, Services

NAME: Final = "under-test"
"""The bridge's, in the configuration."""
SETPOINT: Final = "active_power_limit"
POINT: Final = "pv_power"
DEVICE: Final = Device(
    serial="9010KETU000W0001",
    kind=DeviceKind.STORAGE,
    name="House",
    model="GW10K-ET",
    plant="plant-1",
    rated_power=10_000.0,
    setpoints=dict.fromkeys(SETPOINTS, Range()) | {SETPOINT: Range(0, 100)},
)
CLOSED: Final = ControlSettings()
OPEN: Final = ControlSettings(
    enabled=True, allow=[Rule(devices=["*"], setpoints=[SETPOINT])], max_per_minute=100_000
)  # fmt: skip
SOURCE: Final = "kit"


class Carried:
    """A controller that carries out whatever it gets, and remembers it."""

    def __init__(self) -> None:
        self.sent: list[Command] = []

    def takes(self, serial: str, setpoint: str) -> bool:  # noqa: ARG002
        """See `Controller.takes`."""
        return True

    async def send(self, command: Command, in_force: Mapping[str, Value], timeout: float) -> str:  # noqa: ARG002
        """See `Controller.send`."""
        self.sent.append(command)
        return "receipt"

    async def result(self, command: Command, receipt: str) -> Outcome:  # noqa: ARG002
        """See `Controller.result`."""
        return Outcome(CommandState.SUCCEEDED)


class Witness:
    """The bridge's context, looked at."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.called: Counter[str] = Counter()
        self.submitted: list[Command] = []
        self.fails: dict[str, int] = {}
        """Method → the how-manieth call of it raises OSError."""

    def __getattr__(self, name: str) -> Any:
        """Return what the real context has."""
        found = getattr(self._context, name)
        if not callable(found) or name in {"clock", "log"}:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self.called[name] += 1
            if name == "submit":
                self.submitted += args
            if self.fails.get(name) == self.called[name]:
                if asyncio.iscoroutine(args[0] if args else None):
                    args[0].close()
                raise OSError("the conformance kit lets this fail")
            return found(*args, **kwargs)

        return call


class Bench:
    """One core. Used as an async context manager; what it runs is stopped at its end."""

    def __init__(self, data_dir: Path, control: ControlSettings = OPEN) -> None:
        self.data_dir = data_dir
        self.clock = SystemClock()
        self.router = Router(self.clock)
        self.carried = Carried()
        self._journal = Journal(data_dir / "journal.sqlite", clock=self.clock)
        self._halting = Halting(self.clock, data_dir / "halt.json", self._journal.note)
        policy = Policy(control, self.clock, self.router.state, self._halting)
        self.dispatcher = Dispatcher(self.router, policy, self._journal, self.clock)
        self.dispatcher.use({"carried": self.carried})
        self._services = Services("kit", data_dir, self.clock, self.router, policy, self.dispatcher)
        self._runners: list[Runner] = []
        self.witness: Witness
        """Of the bridge that was made last."""

    async def __aenter__(self) -> Self:
        """Open the journal."""
        await self._journal.open()
        self._halting.load()
        await self.dispatcher.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop all that runs."""
        for runner in self._runners:
            await runner.stop()
        await self.dispatcher.stop()
        await self._journal.close()

    def make(self, bridge: type[Bridge], settings: BridgeSettings) -> Runner:
        """Return a supervisor with a new bridge in it, that is not started yet."""

        def made(settings: BridgeSettings, context: Any) -> Bridge:
            self.witness = Witness(context)
            return bridge(settings, cast("Any", self.witness))

        runner = Runner(NAME, NAME, cast("type[Bridge]", made), settings, self._services)
        self._runners.append(runner)
        return runner

    def announce(self, *devices: Device) -> None:
        """Make devices known, by a source that is not the bridge under test."""
        for device in devices or (DEVICE,):
            self.router.announce(SOURCE, device)

    def publish(self, serial: str, number: float = 0.0, more: Mapping[str, Value] | None = None) -> None:
        """Publish values of a device: its `pv_power`, and more of them."""
        now = self.clock.now()
        values = {**(more or {}), POINT: number}
        self.router.publish(Snapshot(serial=serial, time=now, source=SOURCE, interval=60.0, values=values))

    def command(self, **changes: Any) -> Command:
        """Return a command of somebody else's."""
        now = self.clock.now()
        fields: dict[str, Any] = {
            "id": f"kit-{now.timestamp()}",
            "serial": DEVICE.serial,
            "setpoint": SETPOINT,
            "value": 50.0,
            "origin": Origin("kit"),
            "created": now,
            "expires": now + timedelta(minutes=1),
        }
        return Command(**(fields | changes))
