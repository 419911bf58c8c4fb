"""A limit over a device that obeys, refuses, is not there: what is in force, and what is written."""

import pytest

from gateway.api.registry import installed
from gateway.core.findings import FindingCode
from gateway.core.mailbox import Updates
from gateway.core.model import CommandState, Device, DeviceKind, Range
from gateway.run.app import Gateway
from gateway.run.settings import Config
from gateway.steering.limits.limit import GridLimit
from gateway.steering.limits.settings import LimitSettings
from tests.kit.bench import Bench
from tests.kit.clock import FakeClock, virtual
from tests.kit.journal import event
from tests.steering.fleet.world import CONTROL, Machine, World

SETTINGS = LimitSettings(device="INV", failsafe=1_500)


class House:
    """An inverter with its own export limit, and a limit over it."""

    def __init__(self, data_dir, settings=SETTINGS, **setpoints):
        self.settings = settings
        self.bench = Bench(data_dir, CONTROL, FakeClock())
        takes = setpoints or {"export_limit": Range(0, 10_000)}
        self.device = Device(serial="INV", kind=DeviceKind.INVERTER, rated_power=10_000.0, setpoints=takes)

    async def __aenter__(self):
        await self.bench.__aenter__()
        self.bench.announce(self.device)
        self.runner = self.bench.run(GridLimit, self.settings, "limit:grid")
        self.limit = self.runner.bridge
        self.bench.dispatcher.use({"limit:grid": self.limit, "scripted": self.bench.controller})
        await World.wait(self, 2)
        return self

    async def __aexit__(self, *error):
        await self.bench.__aexit__(*error)

    async def ask(self, value):
        command = self.bench.command("export_limit", value, serial="limit:grid")
        (event,) = await self.bench.dispatcher.submit(command)
        assert event.state is CommandState.ACCEPTED, event
        return command.id

    end = World.end
    wait = World.wait

    @property
    def sent(self):
        return [(c.setpoint, c.value) for c in self.bench.controller.sent if c.serial == "INV"]

    @property
    def state(self):
        return self.bench.router.state("limit:grid").values["limit_state"]


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


@virtual
async def test_a_limit_is_written_to_the_device_and_ends_once_that_has_it(tmp_path):
    async with House(tmp_path) as house:
        await house.wait(100)
        assert house.sent == [], "nobody has said anything"
        end = await house.end(await house.ask(3_000))
        assert end.state is CommandState.SUCCEEDED
        assert house.sent == [("export_limit", 3_000)]
        await house.end(await house.ask("none"))
        assert house.sent[-1] == ("export_limit", "none")


@virtual
async def test_silence_is_failsafe_and_the_same_limit_again_is_a_heartbeat(tmp_path):
    async with House(tmp_path) as house:
        await house.end(await house.ask(3_000))
        for _ in range(20):
            await house.wait(60)
            await house.ask(3_000)
        assert house.sent == [("export_limit", 3_000)], "and costs no write"
        await house.wait(125)
        assert house.sent[-1] == ("export_limit", 1_500)
        assert house.state == "failsafe"
        await house.end(await house.ask(3_000))
        assert house.sent[-1] == ("export_limit", 3_000)
        assert house.state == "limited"
        await house.wait(7_200 + 125)
        assert house.sent[-1] == ("export_limit", "none")
        assert house.state == "unlimited_autonomous"


@virtual
async def test_a_device_without_a_limit_of_its_own_is_limited_by_its_power(tmp_path):
    async with House(tmp_path, active_power_limit=Range(0, 100)) as house:
        await house.end(await house.ask(2_500))
        assert house.sent == [("active_power_limit", 25.0)]


@virtual
async def test_a_device_that_refuses_is_told_again_and_the_command_fails(tmp_path):
    async with House(tmp_path) as house:
        house.bench.controller.answers = [None, *[_refused() for _ in range(3)]]
        await house.end(await house.ask(3_000))
        end = await house.end(await house.ask(2_000))
        assert (end.state, end.detail) == (CommandState.FAILED, "not in the whitelist")
        for _ in range(4):
            await house.wait(40)
            await house.ask(2_000)
        assert house.sent[-1] == ("export_limit", 2_000)


def _refused():
    from gateway.core.errors import RefusedError

    return RefusedError("not in the whitelist")


@virtual
async def test_a_limit_over_a_fleet(tmp_path):
    machines = [Machine(f"PV{n}", sun=8_000.0) for n in range(4)]
    async with World(tmp_path, FakeClock(), machines, {"members": {"devices": ["*"]}}) as world:
        runner = world.bench.run(GridLimit, LimitSettings(device="fleet:north", failsafe=4_000), "limit:grid")
        world.bench.dispatcher.use({"world": world, "fleet:north": world.fleet, "limit:grid": runner.bridge})
        await world.wait(2)
        command = world.bench.command("export_limit", 20_000, serial="limit:grid")
        await world.bench.dispatcher.submit(command)
        assert (await world.end(command.id)).state is CommandState.SUCCEEDED
        assert world.power == pytest.approx(20_000, rel=0.02)
        await world.wait(200)
        assert world.power == pytest.approx(4_000, rel=0.05)


@virtual
async def test_a_limit_that_nobody_ever_set_touches_nothing(tmp_path):
    async with House(tmp_path) as house:
        await house.wait(1_000)
        assert house.sent == []
        assert house.state == "unlimited_autonomous"


@virtual
async def test_a_device_that_is_not_known_yet_is_waited_for(tmp_path):
    async with House(tmp_path, LimitSettings(device="LATER", failsafe=1_500)) as house:
        id_ = await house.ask(3_000)
        await house.wait(20)
        house.bench.announce(house.device, serial="LATER")
        assert (await house.end(id_)).state is CommandState.SUCCEEDED
        assert [(c.serial, c.value) for c in house.bench.controller.sent][-1] == ("LATER", 3_000)


@virtual
async def test_restarts_do_not_put_the_failsafe_off(tmp_path):
    async with House(tmp_path) as house:
        await house.end(await house.ask(3_000))
        for _ in range(4):
            await house.wait(35)
            house.runner.begin_anew()
        await house.wait(5)
        assert house.state == "failsafe"
        assert house.sent[-1] == ("export_limit", 1_500)


@virtual
async def test_a_limit_that_is_accepted_and_not_sent_is_never_written(tmp_path):
    async with House(tmp_path) as house:
        await house.end(await house.ask(3_000))
        waits = house.bench.command("export_limit", 700, serial="limit:grid")
        await house.limit.deliver(Updates(events=[event(waits)]))
        await house.wait(30)
        assert {value for _, value in house.sent} == {3_000}


@virtual
async def test_a_newer_limit_is_written_next_however_long_the_one_before_takes(tmp_path):
    async with House(tmp_path) as house:
        house.bench.controller.gate.clear()
        first = await house.ask(3_000)
        await house.wait(5)
        second = await house.ask(700)
        third = await house.ask(900)
        await house.wait(5)
        assert "a newer one came first" in (await house.end(first)).detail
        assert "a newer one" in (await house.end(second)).detail
        house.bench.controller.gate.set()
        assert (await house.end(third)).state is CommandState.SUCCEEDED
        assert [value for _, value in house.sent] == [3_000, 900]


@virtual
@pytest.mark.parametrize("after", [0, 300])
async def test_a_device_that_takes_no_limit_is_named_as_that_however_late(tmp_path, after):
    async with House(tmp_path, running=Range()) as house:
        await house.wait(after)
        end = await house.end(await house.ask(3_000))
        assert end.state is CommandState.FAILED
        assert "INV takes neither export_limit nor active_power_limit" in end.detail


def test_a_limit_is_made_before_a_loop_runs(tmp_path):
    """As `run` does it. The tests around make it within their loop, so a constructor that asked for one passed."""
    config = tmp_path / "config.yaml"
    config.write_text(
        "gateway: {data_dir: .}\n"
        "bridges: {web: {type: web}}\n"
        "fleets: {north: {members: {devices: ['*']}}}\n"
        "limits: {grid: {device: 'fleet:north', failsafe: 100, import_failsafe: 100, chargers: [EV]}}\n"
    )
    gateway = Gateway(Config.load(config, installed()))
    assert {"fleet:north", "limit:grid"} <= set(gateway.runners)


async def limited(world, watts):
    command = world.bench.command("export_limit", watts, serial="limit:grid")
    (event,) = await world.bench.dispatcher.submit(command)
    assert event.state is CommandState.ACCEPTED, event
    return command.id


class Park(World):
    """A fleet, and a limit over it."""

    async def __aenter__(self):
        await super().__aenter__()
        settings = LimitSettings(device="fleet:north", failsafe=4_000)
        self.grid = self.bench.run(GridLimit, settings, "limit:grid").bridge
        self.bench.dispatcher.use({"world": self, "fleet:north": self.fleet, "limit:grid": self.grid})
        await self.wait(2)
        return self

    @property
    def findings(self):
        return [f for s in self.bench.router.bridges() for f in s.findings if f.code is FindingCode.LIMIT_NOT_HELD]


ALL = {"members": {"devices": ["*"]}}


def inverters(count):
    return [Machine(f"PV{n}", sun=8_000.0) for n in range(count)]


@virtual
async def test_a_fleet_whose_members_come_one_by_one_after_a_restart_is_never_let_go(tmp_path):
    clock, machines = FakeClock(), inverters(10)
    async with Park(tmp_path, clock, machines, ALL) as park:
        assert (await park.end(await limited(park, 20_000))).verified is not None
        await park.wait(30)
        assert park.power == 20_000
    async with Park(tmp_path, clock, machines[:1], ALL) as park:
        for machine in machines[1:]:
            await limited(park, 20_000)
            await park.wait(10)
            assert sum(each.power for each in machines) <= 20_000
            park.machines[machine.device.serial] = machine
            park.bench.router.good_once.add(machine.device.serial, clock.now())
            park.bench.router.announce("world", machine.device)
        for _ in range(20):
            await limited(park, 20_000)
            await park.wait(20)
            assert park.power <= 20_000
        told = [command.value for command in park.told if command.serial == "PV0"]
    assert set(told) <= {20.0}


@virtual
async def test_a_tighter_limit_does_not_wait_for_the_one_before(tmp_path):
    machines = inverters(10)
    async with Park(tmp_path, FakeClock(), machines, ALL) as park:
        await park.end(await limited(park, 60_000))
        machines[0].delay = 50.0
        await limited(park, 40_000)
        await park.wait(3)
        await limited(park, 10_000)
        await park.wait(20)
        assert sum(machine.power for machine in machines[1:]) <= 9_000


@virtual
async def test_a_limit_that_is_exceeded_is_a_finding_and_not_in_force(tmp_path):
    machines = inverters(4)
    machines[0].ignores = True
    async with Park(tmp_path, FakeClock(), machines, ALL) as park:
        id_ = await limited(park, 4_000)
        for _ in range(40):
            await park.wait(30)
            await limited(park, 4_000)
        end = await park.end(id_)
        assert "partial" in end.detail or end.state is not CommandState.SUCCEEDED, end.detail
        (finding,) = park.findings
        assert "4000 W are permitted" in finding.text
        machines[0].ignores = False
        for _ in range(30):
            await park.wait(30)
            await limited(park, 4_000)
        assert park.findings == []


@virtual
@pytest.mark.parametrize("first", ["fleet", "limit"])
async def test_a_battery_that_a_fleet_and_a_limit_steer_is_named_whoever_comes_first(tmp_path, first):
    battery = Machine("BAT", stores=True)
    limit = GridLimit, LimitSettings(device="BAT", import_failsafe=4_200), "limit:grid"
    async with World(tmp_path, FakeClock(), [battery] if first == "fleet" else [], ALL) as world:
        runner = world.bench.run(*limit)
        await world.wait(5)
        world.machines["BAT"] = battery
        world.bench.announce(battery.device)
        await world.wait(30)
        code, bridge, said = {
            "fleet": (FindingCode.STEERED_TWICE, "limit:grid", "BAT is steered by fleet:north too"),
            "limit": (FindingCode.NOT_STEERABLE, "fleet:north", "BAT is steered by limit:grid already"),
        }[world.bench.services.steered["BAT"].partition(":")[0]]
        assert world.bench.services.steered["BAT"].startswith(first)
        (finding,) = [each for s in world.bench.router.bridges() if s.name == bridge for each in s.findings]
        assert (finding.code, finding.text.partition(",")[0]) == (code, said)
        assert runner.bridge.steers("BAT", "battery_mode")


@virtual
async def test_a_limit_over_a_fleet_and_one_that_an_inverter_holds_by_its_own_meter_meet_nobody(tmp_path):
    meter = Machine("INV", sun=8_000.0)
    meter.device.setpoints["export_limit"] = Range(0, 10_000)
    async with World(tmp_path, FakeClock(), [meter], ALL) as world:
        world.bench.run(GridLimit, LimitSettings(device="fleet:north", failsafe=0), "limit:grid")
        world.bench.run(GridLimit, LimitSettings(device="INV", failsafe=0), "limit:house")
        await world.wait(30)
        assert world.bench.services.steered == {"fleet:north": "limit:grid", "INV": "fleet:north"}
        assert not [each for status in world.bench.router.bridges() for each in status.findings]


@virtual
@pytest.mark.parametrize("meter", ["", "METER"])
async def test_what_is_fed_in_beyond_a_limit_that_an_inverter_says_it_holds_is_told_while_it_lasts(tmp_path, meter):
    settings = LimitSettings(device="INV", failsafe=1_500, meter=meter)
    async with House(tmp_path, settings) as house:
        house.bench.announce(house.device, serial="METER", kind=DeviceKind.METER, setpoints={})

        def found():
            return [f for s in house.bench.router.bridges() for f in s.findings if f.code is FindingCode.LIMIT_NOT_HELD]

        async def fed_in(watts):
            house.bench.publish(meter or "INV", grid_power=-watts)
            if meter:
                house.bench.publish("INV", ac_power=9_000.0)
            await house.ask(3_000)
            await house.wait(10)

        await fed_in(5_000.0)
        await house.wait(100)
        assert not found(), "it may be from before"
        await house.ask(3_000)
        await house.wait(30)
        await fed_in(5_000.0)
        (finding,) = found()
        assert finding.text == "5000 W are fed in, and 3000 W are permitted; it says it is done"
        await fed_in(3_040.0)
        assert not found()
        await fed_in(5_000.0)
        assert found()
        await fed_in(-2_000.0)
        assert not found()


@virtual
@pytest.mark.parametrize(
    ("asked", "away", "state", "sent"),
    [
        (3_000, 60, "limited", [3_000]),
        (3_000, 200, "failsafe", [3_000, 1_500]),
        (3_000, 10_000, "unlimited_autonomous", [3_000, "none"]),
        ("none", 60, "init", ["none"]),
    ],
)
async def test_a_limit_that_a_reload_took_out_and_puts_back_goes_on(tmp_path, asked, away, state, sent):
    async with House(tmp_path) as house:
        await house.end(await house.ask(4_000))
        await house.end(await house.ask(asked))
        await house.wait(40)
        before = len(house.sent)
        await house.runner.stop()
        house.bench.router.withdraw("limit:grid", "limit:grid")
        await house.wait(away)
        house.runner = house.bench.run(GridLimit, house.settings, "limit:grid")
        house.limit = house.runner.bridge
        house.bench.dispatcher.use({"limit:grid": house.limit, "scripted": house.bench.controller})
        await house.wait(5)
        assert house.state == state
        assert [*dict.fromkeys(value for _, value in house.sent[before - 1 :])] == sent


@virtual
@pytest.mark.parametrize("setpoint", ["export_limit", "import_limit"])
async def test_a_limit_that_changes_by_itself_is_no_drift(tmp_path, setpoint):
    settings = LimitSettings(device="INV", failsafe=1_500, import_failsafe=1_500)
    async with House(tmp_path, settings) as house:
        command = house.bench.command(setpoint, 3_000, serial="limit:grid")
        house.bench.publish("INV", grid_power=0.0)
        await house.bench.dispatcher.submit(command)
        assert (await house.end(command.id)).state is CommandState.SUCCEEDED
        await house.wait(40)
        shown = []
        for _ in range(6):
            await house.wait(1_500)
            shown.append(house.bench.router.state("limit:grid").values[setpoint])
        assert shown[0] == 1_500
        assert shown[-1] == "none"
        assert not house.bench.router.alarm_book.of("limit:grid")
        assert house.bench.dispatcher.drift.count == 0


@virtual
async def test_a_limit_that_comes_back_while_another_is_on_its_way_is_written_again(tmp_path):
    async with House(tmp_path) as house:
        await house.end(await house.ask(3_000))
        house.bench.controller.gate.clear()
        await house.ask(9_000)
        await house.wait(3)
        await house.ask(3_000)
        await house.wait(3)
        house.bench.controller.gate.set()
        await house.wait(5)
        assert house.sent == [("export_limit", 3_000), ("export_limit", 9_000), ("export_limit", 3_000)]


@virtual
async def test_a_fleet_is_told_what_it_did_before_where_another_limit_is_on_its_way(tmp_path):
    machines = inverters(4)
    async with Park(tmp_path, FakeClock(), machines, ALL) as park:
        await park.end(await limited(park, 4_000))
        machines[0].delay = 1_000.0
        await limited(park, 20_000)
        await park.wait(30)
        assert sum(machine.power for machine in machines[1:]) > 10_000
        await limited(park, 4_000)
        await park.wait(60)
        assert sum(machine.power for machine in machines[1:]) <= 4_000


@virtual
async def test_a_command_that_the_failsafe_overtakes_does_not_end_as_in_force(tmp_path):
    async with House(tmp_path, LimitSettings(device="INV", failsafe=1_500, heartbeat=20)) as house:
        house.bench.controller.gate.clear()
        id_ = await house.ask(3_000)
        await house.wait(25)
        assert house.state == "failsafe"
        house.bench.controller.gate.set()
        assert "a newer one came first" in (await house.end(id_)).detail
        await house.wait(5)
        assert house.sent[-1] == ("export_limit", 1_500)
