"""A plant that obeys, or does not, and a gateway's core that can be killed between any two of its moves."""

import asyncio
import math
from collections import deque
from typing import NamedTuple

from gateway.commands.dispatch import Dispatcher
from gateway.commands.policy.policy import ControlSettings, Policy, Rule
from gateway.core.controller import Outcome
from gateway.core.errors import NotSentError, RefusedError, UnsureError
from gateway.core.model import CommandState, Device, DeviceKind, Range
from gateway.core.places import Places
from gateway.core.router import Router
from gateway.journal.journal import Journal, JournalError, _history

DEVICES = tuple(
    Device(
        serial=serial,
        kind=DeviceKind.STORAGE,
        rated_power=10_000.0,
        setpoints={
            "active_power_limit": Range(0, 100),
            "battery_mode": Range(),
            "battery_power_target": Range(0, 5_000),
            "running": Range(),
        },
    )
    for serial in ("one", "two")
)
PERMITTED = ("active_power_limit", "battery_mode", "battery_power_target")
MOST = 80.0
"""What policy lets the limit be at most."""


class Execution(NamedTuple):
    """What the plant did."""

    command: object
    controller: str
    at: float
    wall: object
    life: int
    handed: float
    """When the bridge was given it."""


class World:
    """Outlives the gateway: what is in force, who did what, and how the cloud behaves next."""

    def __init__(self, clock):
        self.clock = clock
        self.force = {}
        self.executions: list[Execution] = []
        self.sends = deque()
        """How the next calls go; obeyed when empty."""
        self.results = deque()
        self.commits = deque()
        """What befalls the next commits of the journal."""
        self.lied = set()
        """Ids of commands that the far side has said something untrue about."""
        self.tampered = set()
        """Setpoints that somebody else has set."""
        self.receipts = {}
        self.handed = {}
        """Id → controllers that were given the command."""

    def execute(self, commands, order, controller, core, handed):
        """Carry out what one call brings: commands, and the `order` that they are part of, as it was set before."""
        serial = commands[0].serial
        for setpoint, value in {**order, **{command.setpoint: command.value for command in commands}}.items():
            self.force[serial, setpoint] = value
            self.tampered.discard((serial, setpoint))
        now = self.clock.monotonic(), self.clock.now(), core.number, handed
        self.executions += (Execution(command, controller, *now) for command in commands)

    def executed(self, id_):
        return any(e.command.id == id_ for e in self.executions)


async def forever():
    await asyncio.Event().wait()


class Cloud:
    """One way to the plant. It keeps to `timeout`, as a bridge must.

    "a" has receipts of its own, which the journal is given before anything leaves; "b" is given its by the far side.
    """

    def __init__(self, name, core):
        self.name = name
        self.core = core
        self.world = core.world
        self.receipts_first = name == "a"

    def takes(self, serial, setpoint):
        return True

    async def send(self, command, in_force, timeout):
        world, core = self.world, self.core
        if core.dead:
            await forever()
        how = world.sends.popleft() if world.sends else "obeys"
        together = core.together(command)
        handed = world.clock.monotonic()
        deadline = handed + timeout
        if how == "away":
            raise NotSentError("away")
        if how == "busy":
            raise NotSentError("out of budget", retry_after=7.0)
        if how == "dies":
            core.die()
            await forever()
        receipt = ""
        if self.receipts_first:
            receipt = self._receipt(command)
            ids = [each.id for each in together]
            try:
                await core.dispatcher.keep_receipt(receipt, *ids)
            except JournalError as error:
                raise NotSentError(str(error)) from error
            if core.dead:
                await forever()
            if not core.dispatcher.may_leave(*ids):
                raise NotSentError("its time was over before it could be sent")
        for each in together:
            world.handed.setdefault(each.id, []).append(self.name)
        if how == "refuses":
            raise RefusedError("not yours")
        if how == "lost":
            raise UnsureError("no answer")
        if how == "bug":
            raise ValueError("a bug")
        if how == "hangs":
            await forever()
        if how == "deaf":
            world.lied.update(each.id for each in together)
            return receipt or self._receipt(command)
        if how == "late":
            await asyncio.sleep(min(20.0, timeout * 0.9))
            if core.dead:
                await forever()
            if world.clock.monotonic() >= deadline:
                raise NotSentError("too late")
        world.execute(together, in_force, self.name, core, handed)
        if how == "obeys, then dies":
            core.die()
            await forever()
        if how == "obeys, no answer":
            raise UnsureError("the answer was lost")
        if how == "obeys, then hangs":
            await forever()
        return receipt or ("" if how == "obeys, no receipt" else self._receipt(command))

    def _receipt(self, command):
        receipt = f"{self.name}/{len(self.world.receipts)}"
        self.world.receipts[receipt] = command.id
        return receipt

    async def result(self, command, receipt):
        if self.core.dead:
            await forever()
        how = self.world.results.popleft() if self.world.results else "says"
        if how == "away":
            raise NotSentError("away", 3.0)
        if how == "unsure":
            raise UnsureError("no answer")
        if how == "bug":
            raise ValueError("a bug")
        if how == "refuses":
            raise RefusedError("no such task")
        if how == "hangs":
            await forever()
        if how == "slow":
            await asyncio.sleep(15.0)
        if how == "silent":
            return Outcome(CommandState.UNKNOWN, "SEMS does not say")
        if how == "failed":
            if self.world.executed(command.id):
                self.world.lied.add(command.id)
            return Outcome(CommandState.FAILED, "did not obey")
        if self.world.executed(command.id) or (receipt and not self.receipts_first):
            return Outcome(CommandState.SUCCEEDED, "done", verified=how == "verified")
        return Outcome(CommandState.UNKNOWN, "never heard of it")


class MortalJournal(Journal):
    """The real one, whose commits fail or are the last thing that happens."""

    def __init__(self, path, core):
        super().__init__(path, clock=core.world.clock)
        self.core = core

    async def _on(self, thread, work):
        core = self.core
        if core.dead:
            await forever()
        is_commit = getattr(getattr(work, "func", None), "__name__", "") == "commit"
        fault = core.world.commits.popleft() if is_commit and core.world.commits else ""
        if fault == "full":
            raise JournalError("disk full")
        if fault == "slow":
            await asyncio.sleep(9.0)
        if fault == "dies before":
            core.die()
            await forever()
        found = await Journal._on(thread, work)
        if fault == "dies after":
            core.die()
            await forever()
        return found


class Core:
    """One life of the gateway's core."""

    def __init__(self, world, directory, number, *, enabled=True, on_step=lambda _: None):
        self.world = world
        self.number = number
        self.enabled = enabled
        self.dead = False
        self.died = asyncio.Event()
        clock = world.clock
        control = ControlSettings(
            enabled=enabled,
            allow=[
                Rule(devices=["*"], setpoints=["active_power_limit"], origins=["test"], max=MOST),
                Rule(devices=["*"], setpoints=[s for s in PERMITTED if s != "active_power_limit"], origins=["test"]),
            ],
            max_per_minute=100_000,
            refresh_within=60.0,
            verify_within=40.0,
        )
        self.router = Router(clock)
        self.policy = Policy(control, clock, self.router.state)
        self.journal = MortalJournal(directory / "journal.sqlite", self)
        self.dispatcher = Dispatcher(self.router, self.policy, self.journal, clock)
        # One at a time, so that commands of fleets wait for each other.
        executor = self.dispatcher._executor
        executor._places = Places(executor._start_lane, lambda: 1)
        self.dispatcher.use({"a": Cloud("a", self), "b": Cloud("b", self)})
        self.began_at, self.began_wall = clock.monotonic(), clock.now()
        self.ended_at = math.inf
        step = self.router.command_step

        def command_step(event):
            if not self.dead:
                on_step(event)
            step(event)

        self.router.command_step = command_step

    async def start(self):
        for device in DEVICES:
            self.router.announce("source", device)
        await self.journal.open()
        await self.dispatcher.start()

    def together(self, command):
        """Return what one call carries: a command, and what came with it for the same order."""
        return [command, *(entry.command for entry in self.dispatcher._open[command.id].companions)]

    async def stop(self):
        """End in good order."""
        self.ended_at = min(self.ended_at, self.world.clock.monotonic())
        await self.dispatcher.stop()
        await self.journal.close()

    def die(self):
        """Nothing more is done by this life. `bury` it."""
        self.ended_at = min(self.ended_at, self.world.clock.monotonic())
        self.dead = True
        self.died.set()

    async def bury(self, tell=lambda _: None):
        """Take away what a killed process leaves behind in ours; `tell` gets every step that its journal has."""
        self.die()
        mine = asyncio.current_task()
        others = [task for task in asyncio.get_running_loop().tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self.journal._writing.shutdown()
        self.journal._reading.shutdown()
        if self.journal._store._reader is not None:
            tell(self.journal._store.read(_everything))
        self.journal._store.close()


def _everything(db):
    ids = [row[0] for row in db.execute("SELECT id FROM command")]
    return [event for id_ in ids for event in _history(db, command_id=id_)]
