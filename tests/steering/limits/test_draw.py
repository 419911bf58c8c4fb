"""An import limit over a house: what its battery and its charger are told, and what is said where that is not enough.

The scenarios are those of LPC's public test specification; its states are tried in test_machine.
"""

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.controller import Outcome
from gateway.core.errors import RefusedError
from gateway.core.findings import FindingCode
from gateway.core.model import CommandState, Device, DeviceKind, Range, Snapshot
from gateway.steering.limits.draw import OFF, OFF_LEAST, TOLERANCE, Kept, Sight, decide
from gateway.steering.limits.limit import GridLimit
from gateway.steering.limits.settings import LimitSettings
from tests.kit.bench import Bench
from tests.kit.clock import FakeClock, virtual
from tests.steering.fleet.world import CONTROL, Machine, World

SETTINGS = LimitSettings(device="INV", import_failsafe=4_200, chargers=["EV"])
BATTERY = {"battery_mode": Range(), "battery_power_target": Range(0, 5_000)}


class Home:
    """A house with a meter, a battery and a charger, all of which do what they are told at once."""

    def __init__(self, data_dir, settings=SETTINGS, **changes):
        self.bench = Bench(data_dir, CONTROL, FakeClock())
        self.settings = settings
        self.load, self.sun, self.car = 1_000.0, 0.0, 0.0
        self.is_full = self.is_empty = self.is_silent = False
        self.charges = 0.0
        """W with which the battery charges by itself, e.g. at a cheap hour."""
        self.refuses = set()
        """Setpoints."""
        self.set = {"battery_mode": "auto", "battery_power_target": "none", "charging": True}
        self.sent = []
        inverter = {"serial": "INV", "kind": DeviceKind.STORAGE, "rated_power": 10_000.0, "setpoints": BATTERY}
        self.inverter = Device(**(inverter | changes))
        self.charger = Device(serial="EV", kind=DeviceKind.EV_CHARGER, setpoints={"charging": Range()})

    @property
    def battery(self):
        told = self.set["battery_power_target"]
        match self.set["battery_mode"]:
            case "discharge":
                return 0.0 if self.is_empty else told
            case "charge":
                return -told
            case "idle":
                return 0.0
        return -self.charges

    @property
    def draw(self):
        return self.load + (self.car if self.set["charging"] else 0.0) - self.sun - self.battery

    async def __aenter__(self):
        await self.bench.__aenter__()
        self.bench.announce(self.inverter)
        self.bench.announce(self.charger)
        self.runner = self.bench.run(GridLimit, self.settings, "limit:grid")
        self.limit = self.runner.bridge
        self.bench.dispatcher.use({"limit:grid": self.limit, "home": self})
        self.reading = asyncio.create_task(self.read())
        await self.wait(2)
        return self

    async def __aexit__(self, *error):
        self.reading.cancel()
        await self.bench.__aexit__(*error)

    async def read(self):
        while True:
            if not self.is_silent:
                told = {key: self.set[key] for key in BATTERY}
                values = {"grid_power": self.draw, "battery_power": self.battery, **told}
                self.publish("INV", values)
                self.publish("EV", {"ev_power": self.car if self.set["charging"] else 0.0})
            self.bench.router.age()
            await asyncio.sleep(10)

    def publish(self, serial, values):
        now = self.bench.clock.now()
        self.bench.router.publish(Snapshot(serial=serial, time=now, source="home", interval=10.0, values=values))

    async def wait(self, seconds):
        await asyncio.sleep(seconds)

    async def ask(self, value):
        command = self.bench.command("import_limit", value, serial="limit:grid")
        (event,) = await self.bench.dispatcher.submit(command)
        assert event.state is CommandState.ACCEPTED, event
        return command.id

    async def stay(self, value, seconds):
        """Have somebody there who says the same again and again."""
        for _ in range(seconds // 60):
            await self.ask(value)
            await self.wait(60)

    end = World.end

    @property
    def shown(self):
        return self.bench.router.state("limit:grid").values

    @property
    def findings(self):
        return [f for s in self.bench.router.bridges() for f in s.findings if f.code is FindingCode.LIMIT_NOT_HELD]

    # as a controller

    def takes(self, serial, setpoint):
        return serial in ("INV", "EV")

    async def send(self, command, in_force, timeout):
        if command.setpoint in self.refuses:
            raise RefusedError("not in the whitelist")
        self.set |= {**in_force, command.setpoint: command.value}
        self.sent.append((command.serial, command.setpoint, command.value))
        return ""

    async def result(self, command, receipt):
        return Outcome(CommandState.SUCCEEDED, "done")


@virtual
async def test_what_is_within_the_limit_is_left_alone(tmp_path):
    async with Home(tmp_path) as home:
        home.car = 3_000.0
        await home.wait(300)
        assert home.shown["import_limit_state"] == "unlimited_autonomous"
        end = await home.end(await home.ask(4_500))
        assert end.state is CommandState.SUCCEEDED
        assert end.detail.startswith("in force")
        await home.stay(4_500, 600)
        assert home.sent == [], "nobody is told anything"
        assert home.shown["import_limit_state"] == "limited"
        assert home.shown["import_excess"] == 0


@virtual
async def test_a_battery_that_charges_from_the_grid_is_stopped_until_the_limit_ends(tmp_path):
    async with Home(tmp_path) as home:
        home.charges = 5_000.0
        await home.wait(20)
        end = await home.end(await home.ask(4_200))
        assert end.state is CommandState.SUCCEEDED
        assert (home.battery, home.draw) == (0.0, 1_000.0)
        await home.stay(4_200, 900)
        assert home.battery == 0, "it would charge again if it were let go"
        await home.end(await home.ask("none"))
        await home.wait(10)
        assert home.set["battery_mode"] == "auto"
        assert home.battery == -5_000
        assert home.shown["import_limit_state"] == "unlimited_controlled"


@virtual
async def test_where_the_house_draws_too_much_the_battery_gives_what_is_missing_and_no_more(tmp_path):
    async with Home(tmp_path) as home:
        home.load = 7_000.0
        await home.wait(20)
        end = await home.end(await home.ask(4_200))
        assert end.state is CommandState.SUCCEEDED
        assert (home.battery, home.draw) == (2_800.0, 4_200.0)
        home.load = 5_000.0
        await home.stay(4_200, 240)
        assert (home.battery, home.draw) == (800.0, 4_200.0)
        home.load = 1_000.0
        await home.stay(4_200, 240)
        assert home.set["battery_mode"] == "auto", "nothing is missing, so it is its own master again"


@virtual
async def test_what_the_battery_can_not_give_a_charger_waits_for(tmp_path):
    async with Home(tmp_path) as home:
        home.load, home.car = 3_000.0, 11_000.0
        await home.wait(20)
        end = await home.end(await home.ask(4_200))
        assert end.state is CommandState.SUCCEEDED
        assert home.set["charging"] is False
        assert home.draw <= 4_200
        await home.stay(4_200, 600)
        assert home.set["battery_mode"] == "auto"
        assert home.set["charging"] is False
        await home.end(await home.ask("none"))
        await home.wait(10)
        assert home.set["charging"] is True


@virtual
async def test_a_battery_that_gives_nothing_counts_as_none(tmp_path):
    async with Home(tmp_path) as home:
        home.is_empty, home.load, home.car = True, 3_000.0, 3_000.0
        await home.wait(20)
        end = await home.end(await home.ask(4_200))
        assert end.state is CommandState.SUCCEEDED
        assert (home.battery, home.draw) == (0.0, 3_000.0)


@virtual
async def test_what_nothing_here_can_hold_is_said_with_its_watts(tmp_path):
    async with Home(tmp_path) as home:
        home.is_empty, home.load, home.car = True, 9_000.0, 2_000.0
        await home.wait(20)
        end = await home.end(await home.ask(4_200))
        assert end.state is CommandState.SUCCEEDED
        assert end.detail.startswith("partial: 4800 W more are drawn than it permits")
        assert home.shown["import_excess"] == 4_800
        (finding,) = home.findings
        assert finding.subject == "INV"
        assert finding.text.startswith("4800 W more")
        home.load = 4_000.0
        await home.stay(4_200, 120)
        assert home.findings == []
        assert home.shown["import_excess"] == 0


@virtual
async def test_a_battery_that_refuses_is_said_and_told_again(tmp_path):
    async with Home(tmp_path) as home:
        home.load = 7_000.0
        home.refuses = {"battery_mode"}
        await home.wait(20)
        end = await home.end(await home.ask(4_200))
        assert end.detail.startswith("partial: 2800 W more are drawn")
        assert "not in the whitelist" in end.detail
        home.refuses = set()
        await home.stay(4_200, 600)
        assert home.draw == 4_200


@virtual
async def test_a_charger_that_refuses_is_said_with_its_watts_and_told_again(tmp_path):
    async with Home(tmp_path) as home:
        home.is_empty, home.load, home.car = True, 1_000.0, 11_000.0
        home.refuses = {"charging"}
        await home.wait(20)
        end = await home.end(await home.ask(4_200))
        assert end.detail.startswith("partial: 7800 W more are drawn")
        assert "EV: not in the whitelist" in end.detail
        home.refuses = set()
        await home.stay(4_200, 600)
        assert home.draw == 1_000


@virtual
async def test_what_waits_in_vain_is_not_told_again_and_again(tmp_path):
    async with Home(tmp_path) as home:
        home.is_empty, home.load, home.car = True, 9_000.0, 2_000.0
        await home.wait(20)
        await home.end(await home.ask(4_200))
        told = len(home.sent)
        await home.stay(4_200, 1_200)
        assert len(home.sent) == told


@virtual
async def test_a_battery_that_can_not_be_let_go_is_said(tmp_path):
    async with Home(tmp_path) as home:
        home.load = 7_000.0
        await home.wait(20)
        await home.end(await home.ask(4_200))
        home.refuses = {"battery_mode"}
        end = await home.end(await home.ask("none"))
        assert (end.state, end.detail) == (CommandState.FAILED, "INV can't be let go: not in the whitelist")
        home.refuses = set()
        await home.stay("none", 120)
        assert home.set["battery_mode"] == "auto"


@virtual
async def test_where_nothing_is_measured_nothing_that_is_steered_draws(tmp_path):
    async with Home(tmp_path) as home:
        home.car = 2_000.0
        await home.wait(200)
        await home.end(await home.ask(4_200))
        home.is_silent = True
        while home.bench.router.state("INV").quality == "good":
            await home.stay(4_200, 60)
            home.bench.router.age()
        await home.stay(4_200, 60)
        assert home.set["battery_mode"] == "idle"
        assert home.set["charging"] is False
        assert (await home.end(await home.ask(4_100))).state is CommandState.FAILED
        assert home.shown["import_excess"] is None
        (finding,) = home.findings
        assert "not known what is drawn" in finding.text
        home.is_silent = False
        await home.stay(4_200, 180)
        assert home.set["battery_mode"] == "auto"


@virtual
async def test_silence_is_failsafe_and_nobody_for_long_enough_lets_go(tmp_path):
    async with Home(tmp_path) as home:
        home.load = 6_000.0
        await home.wait(20)
        await home.end(await home.ask(6_500))
        assert home.sent == []
        await home.wait(300)
        assert home.shown["import_limit_state"] == "failsafe"
        assert home.shown["import_limit"] == 4_200
        assert home.draw == 4_200
        await home.wait(7_200)
        assert home.shown["import_limit_state"] == "unlimited_autonomous"
        assert home.set["battery_mode"] == "auto"


@virtual
async def test_a_restart_goes_on_and_still_lets_go(tmp_path):
    async with Home(tmp_path) as home:
        home.load, home.car = 7_000.0, 9_000.0
        await home.wait(20)
        await home.end(await home.ask(4_200))
        assert home.set["battery_mode"] == "discharge"
        assert home.set["charging"] is False
        home.runner.begin_anew()
        await home.wait(30)
        assert home.set["battery_mode"] == "discharge"
        await home.end(await home.ask("none"))
        await home.wait(30)
        assert home.set["battery_mode"] == "auto"
        assert home.set["charging"] is True


@virtual
async def test_what_was_told_is_let_go_of_where_the_limit_itself_is_not_known_any_more(tmp_path):
    kept = Kept(told={"EV": {"charging": False}, "GONE": {"charging": False}})
    (tmp_path / "limit-grid-told.json").write_bytes(msgspec.json.encode(kept))
    home = Home(tmp_path)
    home.set["charging"] = False
    async with home:
        await home.wait(10)
        assert home.set["charging"] is True
        assert not home.limit._draw.holds


@virtual
async def test_who_tells_the_battery_otherwise_meanwhile_is_overruled(tmp_path):
    async with Home(tmp_path) as home:
        home.charges = 5_000.0
        await home.wait(20)
        await home.end(await home.ask(4_200))
        commands = [home.bench.command(*each, serial="INV") for each in
                    (("battery_mode", "charge"), ("battery_power_target", 5_000.0))]  # fmt: skip
        await home.bench.dispatcher.submit(*commands)
        await home.wait(5)
        assert ("INV", "battery_mode", "charge") in home.sent
        await home.stay(4_200, 240)
        assert home.battery == 0


@virtual
async def test_both_directions_have_states_of_their_own_and_one_heartbeat(tmp_path):
    settings = LimitSettings(device="INV", import_failsafe=4_200, failsafe=1_500)
    takes = BATTERY | {"export_limit": Range(0, 10_000)}
    async with Home(tmp_path, settings, setpoints=takes) as home:
        await home.end(await home.ask(5_000))
        for _ in range(10):
            command = home.bench.command("export_limit", 3_000.0, serial="limit:grid")
            await home.bench.dispatcher.submit(command)
            await home.wait(60)
        assert (home.shown["limit_state"], home.shown["export_limit"]) == ("limited", 3_000)
        assert (home.shown["import_limit_state"], home.shown["import_limit"]) == ("limited", 5_000)
        assert home.sent == [("INV", "export_limit", 3_000.0)]
        await home.wait(130)
        assert home.shown["limit_state"] == home.shown["import_limit_state"] == "failsafe"
        assert home.sent[-1] == ("INV", "export_limit", 1_500.0)


@virtual
async def test_batteries_of_a_fleet_charge_no_more_than_a_limit_permits(tmp_path):
    machines = [Machine(f"B{n}", stores=True) for n in range(4)]
    for machine in machines:
        machine.set |= {"battery_mode": "charge", "battery_power_target": 5_000.0}
    async with World(tmp_path, FakeClock(), machines, {"members": {"devices": ["*"]}}) as world:
        runner = world.bench.run(GridLimit, LimitSettings(device="fleet:north", import_failsafe=0), "limit:grid")
        world.bench.dispatcher.use({"world": world, "fleet:north": world.fleet, "limit:grid": runner.bridge})
        await world.wait(60)
        assert world.power == -20_000
        command = world.bench.command("import_limit", 4_000, serial="limit:grid")
        await world.bench.dispatcher.submit(command)
        assert (await world.end(command.id)).state is CommandState.SUCCEEDED
        assert world.power >= -4_000


POWERS = st.floats(-20_000, 20_000)


@given(
    limit=st.floats(0, 20_000), load=POWERS, battery=POWERS, most=st.floats(0, 10_000),
    ordered=st.one_of(st.none(), st.floats(0, 10_000)), stays=st.booleans(), cars=st.lists(st.floats(0, 11_000)),
)  # fmt: skip
def test_a_battery_never_charges_for_a_limit_and_no_watt_is_kept_quiet(
    limit, load, battery, most, ordered, stays, cars
):
    charging = {f"EV{n}": power for n, power in enumerate(cars)}
    sight = Sight(load - battery + sum(cars), battery, most, charging)
    found = decide(limit, sight, ordered, stays=stays)
    assert found.battery is None or 0 <= found.battery <= max(most, ordered or 0.0)
    over = sight.draw - limit
    if over <= TOLERANCE:
        assert (list(found.wait), found.missing) == ([], 0)
        if found.battery is None and ordered is not None:
            assert load + sum(cars) <= limit + TOLERANCE, "what it gave is needed no more"
        return
    saved = sum(charging[serial] for serial in found.wait)
    given_more = max(0.0, found.battery - battery) if found.battery != ordered else 0.0
    near = max(OFF_LEAST, OFF * (ordered or 0.0))  # as near to its order a battery counts as giving it
    assert found.missing >= over - saved - given_more - near
    assert found.missing == 0 or len(found.wait) == len(cars), "all is tried before something is missing"


@pytest.mark.parametrize(
    ("given", "wrong"),
    [({}, "name failsafe"), ({"failsafe": -1}, "failsafe"), ({"import_failsafe": -1}, "import_failsafe")],
)
def test_settings_that_limit_nothing_are_refused(given, wrong):
    with pytest.raises(ValueError, match=wrong):
        LimitSettings.model_validate({"device": "INV"} | given)
