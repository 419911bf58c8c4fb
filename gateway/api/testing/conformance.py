"""The checks. Each runs on a loop and in a directory of its own, against the gateway's real core."""

import asyncio
import base64
import tempfile
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import quote

import msgspec
from pydantic import BaseModel, SecretStr

from gateway.api.bridge import Bridge, BridgeSettings
from gateway.api.capabilities import HistorySink, Sink
from gateway.api.testing.bench import CLOSED, DEVICE, NAME, SETPOINT, Bench
from gateway.api.testing.far_side import PATIENCE, Manner, eventually, far_side
from gateway.api.testing.watch import Held, Logged, LoopWatch, opened
from gateway.core.controller import Controller, Outcome
from gateway.core.errors import GatewayError, NotSentError, RefusedError, UnsureError
from gateway.core.model import Alarm, CommandState, DeviceKind, Origin, Severity
from gateway.core.points import POINTS, SETPOINTS, Type
from gateway.run.supervisor import Runner

TURNS: Final = (0, 1, 2, 3, 5, 8, 13, 21)
"""After how many turns of the loop a start is cancelled."""
ROUNDS: Final = 5
DEVICES: Final = 10
BLOCKED: Final = 0.05
"""Seconds for which a callback may hold up the loop."""
SEND_WITHIN: Final = 1.0
"""Seconds that a controller is given to send a command."""
SLACK: Final = 30.0
"""Seconds more than that before it counts as hung: a machine may be busy."""


class ConformanceError(AssertionError):
    """A bridge does not hold what a bridge must. The message says what, check by check."""


class Arrival(msgspec.Struct, frozen=True):
    """What a sink's far side got, or shows: a device and the number of its `pv_power`."""

    serial: str
    number: float


def _check(check: Callable[[Any, Path], Coroutine[Any, Any, None]]) -> Callable[[Any], None]:
    """Return a check as a plain test, which runs it on a loop and in a directory of its own."""

    def test(self: "Conformance") -> None:
        with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
            asyncio.run(check(self, Path(directory)))

    test.__name__, test.__doc__ = check.__name__, check.__doc__
    return test


class Conformance:
    """What every bridge must hold. Subclass it; what is not overridden is not asked of the bridge.

    The methods that begin with `test_` are the checks. They need no pytest; it finds them in a class called `Test…`.
    """

    bridge: ClassVar[type[Bridge]]
    settings: ClassVar[Mapping[str, Any]] = {}
    """As in the configuration, without `type`. For what `far_side` and `settings_at` do not say."""
    complete_log: ClassVar[bool] = True
    """Whether `arrived` tells each message, so that a doubled one can be told; else it is what stands there now."""

    # what a bridge's author says

    @asynccontextmanager
    async def far_side(self) -> AsyncIterator[Mapping[str, Any]]:
        """Run what the bridge speaks to; gives out the settings that reach it. Without one, `settings` alone count."""
        yield {}

    def settings_at(self, port: int) -> Mapping[str, Any] | None:
        """Return settings with the far side at a port of 127.0.0.1; None where the bridge calls nobody."""
        del port
        return None

    async def arrived(self, bridge: Any) -> Sequence[Arrival] | None:
        """Return, of a sink, what its far side got so far, oldest first; None where the kit can't look."""
        del bridge
        return None

    async def ask(self, bridge: Any, serial: str, setpoint: str, value: float) -> bool:
        """Ask an origin for a setpoint as its users do, and wait for the answer, a refusal too; False: it is none."""
        del bridge, serial, setpoint, value
        return False

    # how they are run

    def _settings(self, said: Mapping[str, Any] | None = None) -> BridgeSettings:
        return self.bridge.Settings.model_validate({**self.settings, **(said or {})})

    def _is(self, capability: type) -> bool:
        return issubclass(self.bridge, capability)

    @asynccontextmanager
    async def _bench(self, directory: Path, **options: Any) -> AsyncIterator[tuple[Bench, Logged]]:
        """Have a core; at its end the bridge must have stopped as it should."""
        with Logged() as logged:
            async with Bench(directory, **options) as bench:
                yield bench, logged
        _demand(not (unclean := logged.has("did not stop cleanly")), f"stop() raised or hung: {unclean}")
        _demand(not (failed := logged.has("task failed")), f"a task ended badly after the bridge: {failed}")

    async def _started(self, bench: Bench, settings: BridgeSettings) -> Runner:
        runner = bench.make(self.bridge, settings)
        runner.start()
        await self._up(bench)
        return runner

    @staticmethod
    async def _up(bench: Bench) -> None:
        await eventually(lambda: any(s.up for s in bench.router.bridges()), "the bridge reports that it is up")

    # construction

    @_check
    async def test_the_constructor_does_nothing(self, directory: Path) -> None:
        """No file, socket, process, thread or task, and nothing asked of the gateway."""
        settings = self._settings(self.settings_at(9))
        async with self._bench(directory) as (bench, _):
            bench.make(self.bridge, settings)  # the first one imports what it needs, and reads what it keeps for all
            tasks, held = asyncio.all_tasks(), Held.now()
            with opened() as events:
                bench.make(self.bridge, settings)
            _demand(not events, f"the constructor opens or begins something; do that in start(): {events}")
            _demand(asyncio.all_tasks() == tasks, "the constructor starts a task; spawn it in start()")
            _demand(not Held.now().more_than(held), "the constructor opens something that stays; do that in start()")
            called = sorted(bench.witness.called)
            _demand(not called, f"the constructor calls its context ({', '.join(called)}); do that in start()")

    # lifecycle

    @_check
    async def test_it_starts_and_stops_again_and_again(self, directory: Path) -> None:
        """What it began is over after each stop, and nothing is left."""
        async with self.far_side() as said, self._bench(directory) as (bench, _):
            settings = self._settings(said)
            bench.announce()
            held: list[Held] = []
            for _ in range(3):
                tasks = asyncio.all_tasks()
                runner = await self._started(bench, settings)
                bench.publish(DEVICE.serial, 1.0)
                await runner.stop()
                runner.report(up=False)
                await self._nothing_runs(tasks)
                held.append(Held.now())
            await eventually(
                lambda: not Held.now().more_than(held[0]),
                f"descriptors and threads are no more than after the first stop: {held}",
                SLACK,
            )

    @staticmethod
    async def _nothing_runs(before: set[asyncio.Task[Any]]) -> None:
        def left() -> list[str]:
            return [str(task.get_coro()) for task in asyncio.all_tasks() - before if not task.done()]

        try:
            await eventually(lambda: not left(), "", SLACK)
        except TimeoutError:
            raise ConformanceError(f"tasks run on after stop(): {left()}") from None

    @_check
    async def test_a_start_that_fails_is_made_good_by_the_next(self, directory: Path) -> None:
        """Wherever a start fails, the stop after it cleans up."""
        async with self.far_side() as said, self._bench(directory) as (bench, _):
            settings = self._settings(said)
            for method, counts in (("spawn", (1, 2)), ("report", (1,))):
                for count in counts:
                    tasks = asyncio.all_tasks()
                    runner = bench.make(self.bridge, settings)
                    witness = bench.witness
                    witness.fails = {method: count}
                    runner.start()
                    await eventually(bench.router.bridges, "it was started")
                    if witness.called[method] >= count:
                        runner.begin_anew()
                    witness.fails = {}
                    await self._up(bench)
                    await runner.stop()
                    runner.report(up=False)
                    await self._nothing_runs(tasks)

    @_check
    async def test_a_start_may_be_cancelled_at_any_time(self, directory: Path) -> None:
        """As the supervisor does, when the gateway ends early."""
        async with self.far_side() as said, self._bench(directory) as (bench, _):
            settings = self._settings(said)
            tasks = asyncio.all_tasks()
            for turns in TURNS:
                runner = bench.make(self.bridge, settings)
                runner.start()
                for _ in range(turns):
                    await asyncio.sleep(0)
                await runner.stop()
                await self._nothing_runs(tasks)
            runner = await self._started(bench, settings)

    @_check
    async def test_a_far_side_that_is_of_no_use_ends_nothing(self, directory: Path) -> None:
        """Away, silent, rude or babbling: the bridge stays, and stops when it is told to."""
        if self.settings_at(9) is None:
            return
        tasks = asyncio.all_tasks()
        with Logged() as logged:
            await asyncio.gather(*(self._useless(_below(directory, manner), manner) for manner in Manner))
        await self._nothing_runs(tasks)
        ended = [*logged.has("traceback"), *logged.has("did not stop cleanly")]
        _demand(not ended, f"a far side that is of no use ends the bridge, or keeps it from stopping: {ended}")

    async def _useless(self, directory: Path, manner: Manner) -> None:
        async with far_side(manner) as other, Bench(directory) as bench:
            bench.announce()
            runner = bench.make(self.bridge, self._settings(self.settings_at(other.port)))
            runner.start()
            bench.publish(DEVICE.serial, 1.0)
            if manner is Manner.AWAY:
                await eventually(bench.router.bridges, "the bridge reports how it does")
            else:
                await eventually(lambda: other.met, "the bridge calls the port that `settings_at` names")
            for _ in range(20):
                await asyncio.sleep(0.005)  # it gets some turns with what the far side says
            await runner.stop()

    # the loop

    @_check
    async def test_it_never_holds_up_the_loop(self, directory: Path) -> None:
        """No callback of the loop takes longer than BLOCKED seconds, however busy the machine is."""
        async with self.far_side() as said, self._bench(directory) as (bench, _):
            settings = self._settings(said)
            devices = _devices()
            bench.announce(*devices)
            late: Counter[str] = Counter()
            worst: dict[str, float] = {}
            for number in range(3):
                with LoopWatch(BLOCKED) as watch:
                    runner = await self._started(bench, settings)
                    for device in devices:
                        bench.publish(device.serial, float(number))
                    await asyncio.sleep(0.02)
                    await runner.stop()
                    runner.report(up=False)
                if number:  # the first time, modules are imported
                    late.update(watch.late.keys())
                    worst |= watch.worst
            # Once may be the collector's doing, or the disk's; what blocks by its making does so each time.
            again = [f"{name}: {worst[name] * 1000:.0f} ms" for name, times in late.items() if times > 1]
            _demand(not again, f"the loop is held up for more than {BLOCKED * 1000:.0f} ms by {again}")

    # sinks

    @_check
    async def test_a_sink_takes_whatever_there_is(self, directory: Path) -> None:
        """Every kind of device, every point, alarms, steps of commands, and devices that are gone."""
        if not self._is(Sink):
            return
        async with self.far_side() as said, self._bench(directory) as (bench, logged):
            runner = await self._started(bench, self._settings(said))
            now = bench.clock.now()
            for kind in DeviceKind:
                device = msgspec.structs.replace(DEVICE, serial=f"9010{kind.upper()}", kind=kind, rated_power=None)
                bench.announce(device)
                bench.publish(
                    device.serial, more={point.id: _sample(point.type, point.options) for point in POINTS.values()}
                )
                bench.publish(device.serial, 0.0, more=dict.fromkeys(POINTS))
                alarm = Alarm(serial=device.serial, id="1", code="E1", text="ü", severity=Severity.FAULT, raised=now)
                bench.router.alarms("kit", device.serial, [alarm])
            bench.announce()
            await bench.dispatcher.submit(bench.command(), bench.command(id="other", setpoint="running", value=True))
            for kind in DeviceKind:
                bench.router.withdraw("kit", f"9010{kind.upper()}")
            await self._calm(bench, runner)
            _demand(not (trouble := logged.has("traceback")), f"deliver() raised: {trouble}")

    @staticmethod
    async def _calm(bench: Bench, runner: Runner) -> None:
        """Wait until the mail is delivered, and see that the bridge is still up."""
        bench.publish(DEVICE.serial, 0.0)
        for _ in range(20):
            await asyncio.sleep(0.005)
        statuses = [s for s in bench.router.bridges() if s.name == runner.name]
        _demand(all(s.up for s in statuses), f"the bridge went down: {[s.detail for s in statuses]}")

    @_check
    async def test_nothing_is_lost_or_doubled(self, directory: Path) -> None:
        """The newest of each device arrives, once; with history, each; also after a restart."""
        if not self._is(Sink):
            return
        async with self.far_side() as said, self._bench(directory) as (bench, _):
            devices = _devices()
            bench.announce(*devices)
            runner = await self._started(bench, self._settings(said))
            if await self.arrived(runner.bridge) is None:
                return
            number = 0.0
            for _ in range(ROUNDS):
                for device in devices:
                    number += 1
                    bench.publish(device.serial, number)
                await asyncio.sleep(0)
            newest = {device.serial: number - len(devices) + n for n, device in enumerate(devices, 1)}
            await self._has(runner, newest)
            arrived = await self.arrived(runner.bridge) or ()
            doubled = [one for one, times in Counter(arrived).items() if times > 1] if self.complete_log else []
            _demand(not doubled, f"arrived more than once: {doubled}")
            if isinstance(runner.bridge, HistorySink):
                for device in devices:
                    numbers = [one.number for one in arrived if one.serial == device.serial]
                    count = len(set(numbers))
                    _demand(count == ROUNDS, f"{ROUNDS} snapshots of {device.serial}, but {count} arrived: {numbers}")
                    _demand(numbers == sorted(numbers), f"not in order: {numbers}")
            # What is published while it is down arrives once it is up again.
            runner.begin_anew()
            for device in devices:
                bench.publish(device.serial, newest[device.serial] + 100)
            await self._has(runner, {serial: n + 100 for serial, n in newest.items()})

    async def _has(self, runner: Runner, newest: Mapping[str, float]) -> None:
        async def last() -> dict[str, float]:
            return {one.serial: one.number for one in await self.arrived(runner.bridge) or ()}

        try:
            async with asyncio.timeout(PATIENCE):
                while not (await last()).items() >= newest.items():
                    await asyncio.sleep(0.005)
        except TimeoutError:
            there = await last()
            wrong = {serial: (there.get(serial), number) for serial, number in newest.items()}
            raise ConformanceError(f"device: (what arrived, what should): {wrong}") from None

    # origins

    @_check
    async def test_what_policy_refuses_is_refused_and_what_it_permits_is_carried_out_once(
        self, directory: Path
    ) -> None:
        """An origin asks policy, in its own name, and a refusal does not end it."""
        await self._refused(_below(directory, "refused"))
        await self._permitted(_below(directory, "permitted"))

    async def _refused(self, directory: Path) -> None:
        async with self.far_side() as said, self._bench(directory, control=CLOSED) as (bench, _):
            bench.announce()
            bench.publish(DEVICE.serial, 1.0)
            runner = await self._started(bench, self._settings(said))
            if not await self.ask(runner.bridge, DEVICE.serial, SETPOINT, 50.0):
                return
            await self._calm(bench, runner)
            _demand(not bench.carried.sent, "what policy refuses was carried out")
            _demand_own(bench)

    async def _permitted(self, directory: Path) -> None:
        async with self.far_side() as said, self._bench(directory) as (bench, _):
            bench.announce()
            bench.publish(DEVICE.serial, 1.0)
            runner = await self._started(bench, self._settings(said))
            if not await self.ask(runner.bridge, DEVICE.serial, SETPOINT, 50.0):
                return
            await eventually(lambda: bench.carried.sent, "what was asked for, and policy permits, is carried out")
            await self._calm(bench, runner)
            sent = [(one.serial, one.setpoint, one.value) for one in bench.carried.sent]
            times = len(bench.witness.submitted)
            _demand(times == 1, f"asked for once, submitted {times} times, so it may be carried out as often")
            _demand(sent == [(DEVICE.serial, SETPOINT, 50.0)], f"asked for once, carried out: {sent}")
            _demand_own(bench)

    # controllers

    @_check
    async def test_a_controller_gets_what_was_judged_and_answers_in_time(self, directory: Path) -> None:
        """It sends nothing by itself, and fails by the errors that the gateway understands."""
        if not self._is(Controller):
            return
        said = self.settings_at(9)
        async with far_side(Manner.SILENT) as other, self._bench(directory) as (bench, logged):
            if said is not None:
                said = self.settings_at(other.port)
            bench.announce()
            runner = bench.make(self.bridge, self._settings(said))
            runner.start()
            bridge = runner.bridge
            await eventually(lambda: bench.router.bridges() or bench.witness.called, "it was started")
            if not isinstance(bridge, Controller):
                return
            for setpoint in SETPOINTS:
                bridge.takes(DEVICE.serial, setpoint)
            sent = self._sends(bridge)
            bench.dispatcher.use({NAME: bridge})
            await bench.dispatcher.submit(bench.command(setpoint="running", value=False))
            _demand(not sent, "a command that policy refuses came to the controller")
            await self._fails_well(bench, bridge)
            _demand(not logged.has("traceback"), "the bridge ended by it")

    @staticmethod
    def _sends(bridge: Controller) -> list[str]:
        """Return the ids of commands that come to a bridge from now on."""
        sent: list[str] = []
        send = bridge.send

        async def noting(command: Any, in_force: Any, timeout: float) -> str:
            sent.append(command.id)
            return await send(command, in_force, timeout)

        bridge.send = noting  # type: ignore[method-assign]
        return sent

    @staticmethod
    async def _fails_well(bench: Bench, bridge: Controller) -> None:
        """Have a command sent to a far side that says nothing: it must end in time, and say what is known."""
        command = bench.command(id="silent")
        try:
            async with asyncio.timeout(SEND_WITHIN + SLACK):
                receipt = await bridge.send(command, {}, SEND_WITHIN)
        except (NotSentError, RefusedError, UnsureError):
            receipt = ""
        except TimeoutError:
            raise ConformanceError("send() does not end within the time it is given") from None
        except Exception as error:
            raise ConformanceError(
                f"send() raises {type(error).__name__}: {error}; only NotSentError, RefusedError and UnsureError say "
                "whether the command may have left"
            ) from error
        asking = asyncio.create_task(_answer(bridge, command, receipt))
        await asyncio.sleep(0.05)
        asking.cancel()
        done, _ = await asyncio.wait({asking}, timeout=SLACK)
        _demand(bool(done), "result() can't be cancelled")
        if not asking.cancelled():
            _demand(not (wrong := asking.result()), wrong)

    # secrets

    @_check
    async def test_secrets_are_not_shown(self, directory: Path) -> None:
        """Not in a text of settings or bridge, not in logs, states and findings; not when the far side is no good."""
        async with self.far_side() as said:
            settings = [self._settings(said)]
            if (at := self.settings_at(9)) is not None:
                settings.append(self._settings(at))
            for number, one in enumerate(settings):
                secrets = set(_secrets(one))
                await self._shows_none(_below(directory, str(number)), one, secrets)

    async def _shows_none(self, directory: Path, settings: BridgeSettings, secrets: set[str]) -> None:
        async with self._bench(directory) as (bench, logged):
            bench.announce()
            runner = bench.make(self.bridge, settings)
            runner.start()
            await eventually(bench.router.bridges, "the bridge reports how it does")
            bench.publish(DEVICE.serial, 1.0)
            await asyncio.sleep(0.05)
            texts = {
                "repr of the settings": repr(settings) + str(settings) + settings.model_dump_json(),
                "repr of the bridge": repr(runner.bridge) + str(runner.bridge),
                "what it reports": repr(bench.router.bridges()),
            }
            await runner.stop()
            texts["the log"] = logged.text
        for where, text in texts.items():
            shown = [secret[:2] + "…" for secret in secrets if any(form in text for form in _forms(secret))]
            _demand(not shown, f"secrets ({', '.join(shown)}) are in {where}")


async def _answer(bridge: Controller, command: Any, receipt: str) -> str:
    """Return what is wrong with how a controller answers for a command; "" for nothing."""
    try:
        outcome = await bridge.result(command, receipt)
    except GatewayError:
        return ""
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return f"result() raises {type(error).__name__}: {error}; raise NotSentError where it can't be asked"
    if not isinstance(outcome, Outcome):
        return f"result() returns {outcome!r}, no Outcome"
    return "result() says that it succeeded, of a far side that said nothing" * (
        outcome.state is CommandState.SUCCEEDED
    )


def conforms(
    bridge: type[Bridge] | type[Conformance] | Conformance, settings: Mapping[str, Any] | None = None
) -> list[str]:
    """Run every check on a bridge, or on a `Conformance` that says more of it; return their names.

    Not from within a running loop. Raises ConformanceError that names each check that failed, and why.
    """
    subject: Any = bridge
    if isinstance(bridge, type) and not issubclass(bridge, Conformance):
        subject = type(f"Test{bridge.__name__}", (Conformance,), {"bridge": bridge, "settings": settings or {}})
    if isinstance(subject, type):
        subject = subject()
    names = [name for name in dir(subject) if name.startswith("test_")]
    troubles = []
    for name in names:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                getattr(subject, name)()
        except Exception as error:  # noqa: BLE001 - each check is told, whatever it ended by
            troubles.append(f"{name}: {type(error).__name__}: {error}")
    if troubles:
        raise ConformanceError("\n".join(troubles))
    return names


def _below(directory: Path, name: str) -> Path:
    (directory / name).mkdir()
    return directory / name


def _demand(holds: bool, text: str) -> None:
    if not holds:
        raise ConformanceError(text)


def _demand_own(bench: Bench) -> None:
    others = {str(one.origin) for one in bench.witness.submitted if Origin(one.origin).bridge != NAME}
    _demand(not others, f"it asks in the name of others: {others}; the origin is Origin.of(context.name, …)")


def _devices() -> list[Any]:
    return [msgspec.structs.replace(DEVICE, serial=f"9010KETU{n:03}W0001") for n in range(DEVICES)]


def _sample(type_: Type, options: Sequence[str]) -> float | int | str | bool:
    match type_:
        case Type.FLOAT:
            return -12.5
        case Type.INTEGER:
            return 3
        case Type.BOOLEAN:
            return True
        case Type.ENUM:
            return options[0]
        case Type.TEXT:
            return "Grüße"


def _secrets(value: object) -> Iterator[str]:
    """Yield the secrets in settings, however deep."""
    if isinstance(value, SecretStr):
        if secret := value.get_secret_value():
            yield secret
    elif isinstance(value, BaseModel):
        for one in dict(value).values():
            yield from _secrets(one)
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _secrets(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _secrets(one)


def _forms(secret: str) -> set[str]:
    """Return a secret as it may be written."""
    return {secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode()}
