"""Setpoints through both platforms, over real HTTP; and what only a made-up SEMS does, without."""

import asyncio
from datetime import timedelta

import pytest

from gateway.bridges.open_api.control import Control
from gateway.core.errors import NotSentError, RefusedError
from gateway.core.model import REVERT, Command, CommandState
from gateway.sems.budget import Priority
from gateway.sems.catalogue import Use
from gateway.sems.errors import NoDataError, SemsRefusedError, TimedOutError
from tests.bridges.open_api.kit import (
    CHARGER,
    CLASSIC,
    DEVELOPER,
    HOUSE,
    LOGGER,
    World,
    called,
    cloud,
    connected,
    ended,
    order,
    target,
)
from tests.kit.bench import until
from tests.kit.clock import virtual

BOTH = pytest.mark.parametrize("login", [CLASSIC, DEVELOPER], ids=["classic", "developer"])
SETPOINTS = [("active_power_limit", 33.0), ("running", False), ("reactive_power", 20.0), ("power_factor", 0.95),
             ("export_limit", 500.0), ("work_mode", "eco")]  # fmt: skip


@BOTH
async def test_commands_change_the_inverter_and_are_read_back(tmp_path, login):
    async with cloud() as simulator, connected(tmp_path, simulator, login) as bench:
        for setpoint, value in SETPOINTS:
            (event,) = await ended(bench, bench.command(setpoint, value, serial=HOUSE))
            assert event.state is CommandState.SUCCEEDED, (setpoint, event.detail)
            assert getattr(simulator.world.setpoints(HOUSE), setpoint) == value
            if login is CLASSIC:
                await until(lambda s=setpoint, v=value: bench.router.state(HOUSE).values[s] == v)


@BOTH
async def test_the_battery_obeys_mode_power_and_target_together(tmp_path, login):
    async with cloud() as simulator, connected(tmp_path, simulator, login) as bench:
        commands = [
            bench.command("battery_power_target", 2_000, serial=HOUSE),
            bench.command("battery_mode", "discharge", serial=HOUSE),
        ]
        assert [e.state for e in await ended(bench, *commands)] == [CommandState.SUCCEEDED] * 2
        in_force = simulator.world.setpoints(HOUSE)
        assert (in_force.battery_mode, in_force.battery_power_target) == ("discharge", 2_000)


async def test_an_ev_charger_starts_and_stops(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator, DEVELOPER) as bench:
        for value in (True, False):
            (event,) = await ended(bench, bench.command("charging", value, serial=CHARGER))
            assert event.state is CommandState.SUCCEEDED
            assert simulator.world.setpoints(CHARGER).charging is value


@BOTH
async def test_a_sec1000_takes_the_limits_of_its_whole_plant(tmp_path, login):
    async with cloud() as simulator, connected(tmp_path, simulator, login) as bench:
        (event,) = await ended(bench, bench.command("active_power_limit", 50.0, serial=LOGGER))
        assert event.state is CommandState.SUCCEEDED
        # The simulator keeps them there, and has the plant's inverters share them.
        assert simulator.world.setpoints(LOGGER).active_power_limit == 50.0
        await until(lambda: bench.router.state(LOGGER).values["active_power_limit"] == 50.0)


@BOTH
async def test_a_device_that_does_not_obey_is_failed_with_what_sems_says(tmp_path, login):
    async with cloud() as simulator, connected(tmp_path, simulator, login) as bench:
        simulator.cloud.spoil(order({"devices": {HOUSE: {"obedience": "refuses"}}}))
        (event,) = await ended(bench, bench.command(value=50, serial=HOUSE))
        assert event.state is CommandState.FAILED
        assert event.detail


@BOTH
async def test_an_answer_that_is_lost_is_found_out_by_reading_back_and_nothing_is_sent_twice(tmp_path, login):
    name = "SetActivePowerLimit" if login is CLASSIC else "ControlTask.ActivePowerLimit"
    async with cloud() as simulator, connected(tmp_path, simulator, login) as bench:
        lost = {"answer": "http_500", "interfaces": [name], "times": 1, "executed": True}
        simulator.cloud.spoil(order({"answers": [lost]}))
        (event,) = await ended(bench, bench.command(value=44, serial=HOUSE))
        assert (event.state, event.detail) == (CommandState.SUCCEEDED, "read back")
        assert called(simulator).count(name) == 1


async def test_an_answer_that_is_lost_with_the_command_ends_as_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.bridges.open_api.control.READ_BACK_PAUSE", 0.01)
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        lost = {"answer": "truncated", "interfaces": ["SetActivePowerLimit"], "times": 1, "executed": False}
        simulator.cloud.spoil(order({"answers": [lost]}))
        (event,) = await ended(bench, bench.command(value=44, serial=HOUSE))
        assert event.state is CommandState.UNKNOWN
        assert "100.0 is read back" in event.detail


async def test_an_ems_is_taken_over_once_before_the_first_battery_command(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator, DEVELOPER, take_dispatch=True) as bench:
        await ended(bench, bench.command("active_power_limit", 50, serial=HOUSE))
        assert "ControlTask.EmsDispatchMode" not in called(simulator)
        for mode in ("charge", "discharge"):
            (event,) = await ended(bench, bench.command("battery_mode", mode, serial=HOUSE))
            assert event.state is CommandState.SUCCEEDED
        order_ = [i for i in called(simulator) if i in {"ControlTask.EmsDispatchMode", "ControlTask.BatteryCD"}]
        assert order_ == ["ControlTask.EmsDispatchMode", "ControlTask.BatteryCD", "ControlTask.BatteryCD"]


async def test_result_without_receipt_of_a_device_gone_is_unknown(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        outcome = await bench.runners[0].bridge.result(bench.command(serial="gone"), "")
        assert outcome.state is CommandState.UNKNOWN


# without a network


class Bench:
    """Control over a made-up SEMS with one storage system and one charger."""

    def __init__(self, api, **options):
        self.world = World([target("p", "plant"), target("s", "storage"), target("e", "ev_charger")], api)
        self.unsettled = []
        self.control = Control(
            self.world.sems.catalogue, self.world.sems, self.world.desk, self.world.plants,
            invalidate=lambda serial, setpoints: self.unsettled.append((serial, setpoints)), **options,
        )  # fmt: skip

    async def ready(self):
        await self.world.discovery.round()
        self.world.sems.calls.clear()
        return self

    def command(self, setpoint="active_power_limit", value=50.0, **changes):
        now = self.world.clock.now()
        fields = {"id": "1", "serial": "s", "setpoint": setpoint, "value": value, "origin": "test", "created": now,
                  "expires": now + timedelta(minutes=1)}  # fmt: skip
        return Command(**(fields | changes))

    def script(self, **answers):
        """Use → data, exception, or a list of either in turn."""

        def spoil(interface, args):
            answer = answers.get(interface.use)
            return answer.pop(0) if isinstance(answer, list) else answer

        self.world.sems.spoil = spoil

    def asked(self, use):
        return [c for c in self.world.sems.calls if self.world.sems.catalogue.interface(c[1]).use is use]


@virtual
async def test_a_battery_command_says_when_it_begins_and_ends():
    bench = await Bench("developer").ready()
    bench.script(control={"taskId": "t"})
    command = bench.command("battery_mode", "charge")
    in_force = {"battery_power_target": 1000.0, "battery_target_soc": None}
    assert await bench.control.send(command, in_force, 10) == "t"
    ((_, name, args, _),) = bench.world.sems.calls
    sent = bench.world.sems.catalogue.interface(name).parameters(args, "battery_mode")["items"][0]["data"]
    assert sent["CDEndTime"] - sent["CDStartTime"] in {3600, 3601}
    assert abs(sent["CDStartTime"] - bench.world.clock.now().timestamp()) < 2
    assert (sent["BatteryCDMode"], sent["BatteryCDTargetSOC"]) == (2, 100)
    assert bench.unsettled == [("s", {"battery_mode", "battery_power_target", "battery_target_soc"})]
    await bench.control.send(bench.command("battery_mode", "discharge"), in_force, 10)
    assert bench.world.sems.calls[-1][2]["battery_target_soc"] == 0


@virtual
async def test_a_revert_goes_before_everything():
    bench = await Bench("open_api").ready()
    bench.script(control={"task_id": "t"})
    await bench.control.send(bench.command(origin=REVERT, is_revert=True), {}, 10)
    await bench.control.send(bench.command(), {}, 10)
    assert [c[3] for c in bench.world.sems.calls] == [Priority.REVERT, Priority.CONTROL]


@virtual
async def test_of_several_results_the_devices_own_counts():
    bench = await Bench("developer").ready()
    others = {"sn": "other", "status": 2, "message": "no"}
    bench.script(result=[{"results": [others]}, {"results": [others, {"sn": "s", "status": 0}]},
                         {"results": [others, {"sn": "s", "status": "1", "message": "ok"}]}])  # fmt: skip
    outcome = await bench.control.result(bench.command(), "t")
    assert (outcome.state, outcome.detail) == (CommandState.SUCCEEDED, "ok")


@virtual
async def test_parameters_are_read_by_a_task_that_is_asked_about_until_it_is_done():
    bench = await Bench("developer").ready()
    pending, done = (
        {"results": [{"sn": "s", "status": s, "parameters": {"ActivePowerLimit": "50.4"}}]} for s in (0, 1)
    )
    bench.script(parameters_task={"taskId": "r"}, parameters=[pending, pending, done])
    outcome = await bench.control.result(bench.command(), "")
    assert (outcome.state, outcome.detail) == (CommandState.SUCCEEDED, "read back")
    assert [c[2]["receipt"] for c in bench.asked(Use.PARAMETERS)] == ["r"] * 3


@virtual
async def test_a_power_factor_is_not_the_same_as_another_near_it():
    bench = await Bench("open_api").ready()
    bench.script(parameters={"PowerFactor": "0.9"})
    outcome = await bench.control.result(bench.command("power_factor", 0.95), "")
    assert outcome.state is CommandState.UNKNOWN
    bench.script(parameters={"PowerFactor": "0.9501"})
    outcome = await bench.control.result(bench.command("power_factor", 0.95), "")
    assert outcome.state is CommandState.SUCCEEDED


@virtual
async def test_without_parameters_what_is_measured_counts():
    bench = await Bench("open_api").ready()
    bench.script(parameters=SemsRefusedError("100006", "not supported"), live={"active_power_limit": 50})
    outcome = await bench.control.result(bench.command(), "")
    assert outcome.state is CommandState.SUCCEEDED
    bench = await Bench("developer").ready()
    failed = {"results": [{"sn": "s", "status": 2}]}
    bench.script(parameters_task={"taskId": "r"}, parameters=failed, live={"deviceData": []})
    outcome = await bench.control.result(bench.command(), "")
    assert outcome.state is CommandState.UNKNOWN
    assert len(bench.asked(Use.LIVE)) == 4


@virtual
async def test_a_task_without_an_id_is_an_unsure_answer_and_what_is_unknown_is_refused():
    bench = await Bench("open_api").ready()
    bench.script(control={})
    with pytest.raises(NoDataError):
        await bench.control.send(bench.command(), {}, 10)
    for command in (bench.command(serial="gone"), bench.command("charging", True)):
        with pytest.raises(RefusedError):
            await bench.control.send(command, {}, 10)


@pytest.mark.parametrize(
    ("answers", "error", "says"),
    [
        ({"dispatch": SemsRefusedError("1", "no right")}, RefusedError, "no right"),
        ({"dispatch": {"taskId": "d"}, "result": {"results": [{"sn": "L", "status": 2, "message": "not now"}]}},
         RefusedError, "not now"),
        ({"dispatch": TimedOutError("nothing came")}, NotSentError, "nothing came"),
        ({"dispatch": {"taskId": "d"}, "result": {"results": [{"sn": "L", "status": 0}]}}, NotSentError, "in time"),
    ],
)  # fmt: skip
@virtual
async def test_without_dispatch_no_battery_command_is_sent(answers, error, says):
    bench = await Bench("developer", take_dispatch=True, loggers={"s": "L"}).ready()
    bench.script(**answers)
    command = bench.command("battery_mode", "charge")
    with pytest.raises(error, match=says):
        await asyncio.wait_for(bench.control.send(command, {}, 10), 120)
    assert not bench.asked(Use.CONTROL)


@virtual
async def test_dispatch_is_asked_of_the_data_logger():
    bench = await Bench("developer", take_dispatch=True, loggers={"s": "L"}).ready()
    done = {"results": [{"sn": "L", "status": 1}]}
    bench.script(dispatch={"taskId": "d"}, result=done, control={"taskId": "t"})
    for n in "12":
        assert await bench.control.send(bench.command("battery_mode", "charge", id=n), {}, 10) == "t"
    assert [call[2]["serial"] for call in bench.asked(Use.DISPATCH)] == ["L"], "once, and not the inverter's"


@virtual
async def test_without_a_known_data_logger_nothing_is_sent_and_the_setting_is_named():
    bench = await Bench("developer", take_dispatch=True).ready()
    with pytest.raises(RefusedError, match=r"which data logger s reports through.*`loggers: \{s: <serial"):
        await bench.control.send(bench.command("battery_mode", "charge"), {}, 10)
    assert not bench.world.sems.calls


@virtual
async def test_the_only_data_logger_of_the_plant_is_it():
    bench = await Bench("developer", take_dispatch=True).ready()
    bench.world.plants.put(target("H", "homekit"))
    bench.script(dispatch={"taskId": "d"}, result={"results": [{"sn": "H", "status": 1}]}, control={"taskId": "t"})
    await bench.control.send(bench.command("battery_mode", "charge"), {}, 10)
    assert [call[2]["serial"] for call in bench.asked(Use.DISPATCH)] == ["H"]
    bench.world.plants.put(target("I", "sec1000"))
    with pytest.raises(RefusedError, match="has 2 of them"):
        await bench.control.send(bench.command("battery_mode", "charge", id="2"), {}, 10)


@virtual
async def test_a_result_is_not_known_before_the_devices_are():
    bench = Bench("open_api")
    for receipt in ("", "t"):
        with pytest.raises(NotSentError, match="not known yet"):
            await bench.control.result(bench.command(), receipt)
    bench.world.plants.looked_for = True
    outcome = await bench.control.result(bench.command(), "")
    assert (outcome.state, outcome.detail) == (CommandState.UNKNOWN, "the device is known no more")
    assert not bench.asked(Use.RESULT)
