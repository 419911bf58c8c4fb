"""The conformance kit finds what it is there for: each of these bridges does one thing wrong."""

import asyncio
import base64
import os
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from gateway.api import BridgeSettings, Command, Origin, Secret, new_command_id
from gateway.api.testing import POINT, Arrival, Conformance, ConformanceError, conforms
from gateway.api.testing.watch import LoopWatch


class Settings(BridgeSettings):
    secret: Secret = Secret.__origin__("not-to-be-seen")


class Good:
    """A sink and an origin that does all as it should."""

    api_version = "1.0"
    Settings: ClassVar = Settings

    def __init__(self, settings, context):
        self.settings, self.context = settings, context
        self.got = []

    async def start(self):
        pass

    async def stop(self):
        pass

    async def deliver(self, updates):
        self.got += [Arrival(s.device.serial, s.values[POINT]) for s in updates.states.values() if POINT in s.values]

    def command(self, serial, setpoint, value, origin=""):
        now = self.context.clock.now()
        return Command(
            id=new_command_id(), serial=serial, setpoint=setpoint, value=value,
            origin=origin or Origin.of(self.context.name), created=now, expires=now + timedelta(minutes=1),
        )  # fmt: skip

    async def set(self, *asked):
        return await self.context.submit(self.command(*asked))


class Opens(Good):
    def __init__(self, settings, context):
        super().__init__(settings, context)
        with Path(os.devnull).open("rb"):
            pass


class Threads(Good):
    def __init__(self, settings, context):
        super().__init__(settings, context)
        threading.Thread(target=int).start()


class Announces(Good):
    def __init__(self, settings, context):
        super().__init__(settings, context)
        context.report(up=None)


class LeavesATask(Good):
    async def start(self):
        self.task = asyncio.create_task(asyncio.sleep(1000))


class LeavesAFile(Good):
    kept: ClassVar = []

    async def start(self):
        self.kept.append(os.open(os.devnull, os.O_RDONLY))


class StopsBadly(Good):
    ready = False

    async def start(self):
        await asyncio.sleep(0.01)
        self.ready = True

    async def stop(self):
        if not self.ready:
            raise RuntimeError("it never started")


class Sleeps(Good):
    async def deliver(self, updates):
        time.sleep(0.08)  # noqa: ASYNC251 - that is the fault
        await super().deliver(updates)


class Chokes(Good):
    async def deliver(self, updates):
        if updates.alarms:
            raise KeyError("alarm")
        await super().deliver(updates)


class Doubles(Good):
    async def deliver(self, updates):
        await super().deliver(updates)
        await super().deliver(updates)


class Loses(Good):
    async def deliver(self, updates):
        updates.states.pop(next(iter(updates.states), ""), None)
        await super().deliver(updates)


class Pretends(Good):
    async def set(self, *asked):
        return await self.context.submit(self.command(*asked, Origin("cli")))


class Repeats(Good):
    async def set(self, *asked):
        await super().set(*asked)
        return await super().set(*asked)


class FallsOver(Good):
    async def set(self, *asked):
        (event,) = await super().set(*asked)
        if event.state == "rejected":
            self.context.report(up=False, detail="refused")


class Logs(Good):
    async def start(self):
        self.context.log.info("hello", token=base64.b64encode(b"not-to-be-seen").decode())


class Shows(Good):
    def __repr__(self):
        return self.settings.secret.get_secret_value()


class Hangs(Good):
    def takes(self, serial, setpoint):
        return True

    async def send(self, command, in_force, timeout):
        raise ValueError("no error that says anything")

    async def result(self, command, receipt):
        await asyncio.sleep(1000)


def subject(bridge):
    class Subject(Conformance):
        async def arrived(self, it):
            return it.got

        async def ask(self, it, *asked):
            await it.set(*asked)
            return True

    Subject.bridge = bridge
    return Subject()


@pytest.mark.parametrize(
    ("bridge", "check", "says"),
    [
        (Opens, "the_constructor_does_nothing", "open '/dev/null'"),
        (Threads, "the_constructor_does_nothing", "thread Thread"),
        (Announces, "the_constructor_does_nothing", "report"),
        (StopsBadly, "a_start_may_be_cancelled_at_any_time", "it never started"),
        (Sleeps, "it_never_holds_up_the_loop", "feed"),
        (Chokes, "a_sink_takes_whatever_there_is", "alarm"),
        (Doubles, "nothing_is_lost_or_doubled", "more than once"),
        (Pretends, "what_policy_refuses_is_refused_and_what_it_permits_is_carried_out_once", "in the name of others"),
        (Repeats, "what_policy_refuses_is_refused_and_what_it_permits_is_carried_out_once", "submitted 2 times"),
        (FallsOver, "what_policy_refuses_is_refused_and_what_it_permits_is_carried_out_once", "went down"),
        (Logs, "secrets_are_not_shown", "the log"),
        (Shows, "secrets_are_not_shown", "repr of the bridge"),
        (Hangs, "a_controller_gets_what_was_judged_and_answers_in_time", "raises ValueError"),
    ],
)
def test_what_is_wrong_is_found(bridge, check, says):
    with pytest.raises(ConformanceError, match=says):
        getattr(subject(bridge), f"test_{check}")()


@pytest.mark.parametrize(
    ("bridge", "check"),
    [(LeavesATask, "it_starts_and_stops_again_and_again"), (LeavesAFile, "it_starts_and_stops_again_and_again")],
)
def test_what_is_left_behind_is_found(bridge, check, monkeypatch):
    monkeypatch.setattr("gateway.api.testing.conformance.SLACK", 0.5)  # it will never go
    with pytest.raises((ConformanceError, TimeoutError), match=r"run on after stop|descriptors"):
        getattr(subject(bridge), f"test_{check}")()
    for descriptor in LeavesAFile.kept:
        os.close(descriptor)
    LeavesAFile.kept.clear()


def test_what_never_arrives_is_found(monkeypatch):
    monkeypatch.setattr("gateway.api.testing.conformance.PATIENCE", 0.5)
    with pytest.raises(ConformanceError, match="what should"):
        subject(Loses).test_nothing_is_lost_or_doubled()


def test_one_that_is_good_passes_all_and_one_that_is_not_is_told_with_every_check_that_fails():
    assert len(conforms(subject(Good))) == 11
    assert len(conforms(Good, {})) == 11
    with pytest.raises(ConformanceError) as caught:
        conforms(Announces)
    assert str(caught.value).startswith("test_the_constructor_does_nothing: ")


def test_a_watch_that_ends_in_a_callback_which_takes_long_looks_at_nothing_any_more():
    """What it looked at is closed by then: on a busy machine a check failed with a bad descriptor."""

    async def work():
        with LoopWatch(0.0):
            await asyncio.sleep(0)  # the rest runs in a callback that the watch has seen begin

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(work())
