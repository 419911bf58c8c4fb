"""A limit over a device that obeys, refuses, is not there: what is in force, and what is written."""

import pytest

from gateway.core.model import CommandState, Device, DeviceKind, Range
from gateway.steering.limits.limit import GridLimit, LimitSettings
from tests.kit.bench import Bench
from tests.kit.clock import FakeClock, virtual
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
async def test_a_limit_that_expired_while_another_was_under_way_is_never_written(tmp_path):
    async with House(tmp_path) as house:
        house.bench.controller.gate.clear()
        first = await house.ask(3_000)
        await house.wait(5)
        late = house.bench.command("export_limit", 700, serial="limit:grid", ttl=10.0)
        await house.bench.dispatcher.submit(late)
        await house.wait(30)
        house.bench.controller.gate.set()
        assert (await house.end(late.id)).state is CommandState.EXPIRED
        await house.end(first)
        await house.wait(60)
        assert {value for _, value in house.sent} <= {3_000, 1_500}, "the limit, and the failsafe in the long wait"
