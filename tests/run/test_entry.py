"""What a bridge hands in: whatever it forgot, the gateway keeps and shows plain texts alone."""

import asyncio

import msgspec

from gateway.bridges.local import LocalSettings
from gateway.commands.requests import RequestError
from gateway.core.controller import Outcome
from gateway.core.errors import GatewayError, NotSentError, RefusedError
from gateway.core.findings import FindingCode
from gateway.core.model import Alarm, Command, CommandEvent, CommandState, Origin, Reason, Snapshot
from gateway.core.text import CUT, MAX_DETAIL, MAX_ID, MAX_NAME, MAX_ORIGIN, MAX_TEXT
from tests.kit.bench import INVERTER, Bench, Silent
from tests.kit.clock import NOON
from tests.kit.terminal import HOSTILE, harm

NAME = "House" + HOSTILE
COMMAND = Command(
    id="1", serial="S1", setpoint="running", value=True, origin=Origin("test"), created=NOON, expires=NOON
)


def clean(text, limit):
    return not harm(text) and "\n" not in text and 0 < len(text) <= limit


def careless(bench):
    return bench.run(Silent, LocalSettings(), "careless")


def test_names_values_alarms_and_troubles_are_made_plain(tmp_path):
    async def test():
        async with Bench(tmp_path) as bench:
            runner = careless(bench)
            now = bench.clock.now()
            odd = msgspec.structs.replace(INVERTER, serial="S1", name=NAME, model=NAME, plant=NAME, time_zone=NAME)
            runner.announce(odd)
            values = {"status": NAME, "ac_power": 5.0}
            runner.publish(Snapshot(serial="S1", time=now, source="careless", interval=60, values=values))
            runner.alarms("S1", [Alarm(serial="S1", id=NAME, code=NAME, text=NAME, raised=now)])
            runner.report(up=False, detail=NAME)
            runner.find(FindingCode.VALUE_UNREADABLE, "S1", NAME, f"a: 1\n{NAME}")
            state = bench.router.state("S1")
            assert clean(state.device.name, MAX_NAME)
            assert clean(state.device.model, MAX_NAME)
            assert state.device.plant == "", "the id of another plant it could become"
            assert clean(state.values["status"], MAX_TEXT)
            assert state.values["ac_power"] == 5.0
            (alarm,) = bench.router.alarm_book
            assert clean(alarm.text, MAX_TEXT)
            assert clean(alarm.code, MAX_NAME)
            (status,) = (one for one in bench.router.bridges() if one.name == "careless")
            assert clean(status.detail, MAX_DETAIL)
            (finding,) = status.findings
            assert clean(finding.text, 8 * MAX_DETAIL)
            assert finding.remedy.startswith("a: 1\n"), "lines to paste stay lines"
            assert not harm(finding.remedy)

    asyncio.run(test())


def test_what_is_no_serial_number_names_no_device(tmp_path):
    async def test():
        async with Bench(tmp_path) as bench:
            runner = careless(bench)
            before = len(bench.router.announced())
            for serial in (NAME, "S\x1b[2J", "S\u202e1", " S1", "S" * (MAX_ID + 1), ""):
                runner.announce(msgspec.structs.replace(INVERTER, serial=serial))
            assert len(bench.router.announced()) == before

    asyncio.run(test())


def test_a_command_can_not_pass_for_another_by_what_it_loses(tmp_path):
    async def test():
        async with Bench(tmp_path) as bench:
            runner = careless(bench)
            hidden = f"{INVERTER.serial[:4]}\u200b{INVERTER.serial[4:]}"
            bench.announce()
            for changes, reason in (
                ({"serial": hidden}, Reason.UNKNOWN_DEVICE),
                ({"serial": f"{INVERTER.serial}\u202e"}, Reason.UNKNOWN_DEVICE),
                ({"setpoint": "running\u200b"}, Reason.UNKNOWN_SETPOINT),
                ({"setpoint": NAME}, Reason.UNKNOWN_SETPOINT),
                ({"setpoint": "battery_mode", "value": "char\u200bge"}, Reason.BAD_VALUE),
            ):
                (event,) = await runner.submit(bench.command(**changes, origin=Origin.of("careless", detail=NAME)))
                assert (event.state, event.reason) == (CommandState.REJECTED, reason), changes
                shown = event.command
                assert not harm(f"{shown.serial}{shown.setpoint}{shown.value}{event.detail}")
                assert clean(shown.origin, MAX_ORIGIN)
        assert bench.controller.sent == []

    asyncio.run(test())


def test_a_reason_is_one_line_also_when_it_is_read_again(tmp_path):
    async def test():
        async with Bench(tmp_path) as bench:
            runner = careless(bench)
            halted = await runner.halt(Origin.of("cli", detail=NAME), NAME)
            assert clean(halted.reason, 500)
            assert clean(halted.by, MAX_ORIGIN)

    asyncio.run(test())


def test_what_errors_results_and_steps_repeat_is_one_line():
    for error in (GatewayError(NAME), NotSentError(NAME, 5.0), RefusedError(NAME)):
        assert clean(str(error), MAX_DETAIL)
    assert clean(Outcome(CommandState.FAILED, NAME).detail, MAX_DETAIL)
    assert str(GatewayError(f"{'x' * 2000}")).endswith(CUT)
    assert clean(RequestError(Reason.BAD_REQUEST, "x", NAME).setpoint, MAX_NAME)
    step = CommandEvent(command=COMMAND, state=CommandState.FAILED, time=COMMAND.created, detail=NAME)
    assert clean(step.detail, MAX_DETAIL)
