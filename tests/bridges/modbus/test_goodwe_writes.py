"""Writing GoodWe's settings: what a register asks for, what waits for another, and what reads back."""

import struct

import msgspec
import pytest

from gateway.bridges.modbus.maps.goodwe.panel import Panel, Sequence
from gateway.commands.policy.policy import ControlSettings
from gateway.core.controller import Outcome
from gateway.core.errors import RefusedError
from gateway.core.model import CommandState, DeviceState, Quality, Range
from gateway.core.points import SETPOINTS
from tests.bridges.modbus.client import write_many, write_one
from tests.bridges.modbus.conftest import serving
from tests.bridges.modbus.test_writes import ALLOW_ALL, sent
from tests.kit.bench import INVERTER, until

UNIT = 247
ABLE = msgspec.structs.replace(
    INVERTER,
    setpoints={
        **{setpoint: Range() for setpoint in SETPOINTS},
        "export_limit": Range(0, 10_000),
        "battery_power_target": Range(0, 5_000),
        "battery_target_soc": Range(10, 100),
    },
)
BATTERY_ONLY = msgspec.structs.replace(
    INVERTER, setpoints={s: ABLE.setpoints[s] for s in ("battery_mode", "battery_power_target", "battery_target_soc")}
)
ALL_DAY = "0000173b"


class Panelled:
    """A unit as a client sees it, and what its writes have become."""

    def __init__(self, served, client):
        self.served = served
        self.client = client

    async def write(self, address, *words):
        if len(words) == 1:
            return await self.client.ask(write_one(address, *words), unit=UNIT)
        return await self.client.ask(write_many(address, struct.pack(f">{len(words)}H", *words)), unit=UNIT)

    async def settled(self):
        """Wait until nothing that was written is still to become a command."""
        await until(lambda: not self.served.bridge._writer._pending)

    async def write_hex(self, address, text):
        await self.client.ask(write_many(address, bytes.fromhex(text)), unit=UNIT)

    async def refused(self, address, *words):
        pdu = (
            write_one(address, *words)
            if len(words) == 1
            else write_many(address, struct.pack(f">{len(words)}H", *words))
        )
        return await self.client.refused(pdu, unit=UNIT)

    async def words(self, address, count=1):
        return await self.client.words(address, count, unit=UNIT)

    async def sent(self, *expected):
        """Wait for what has been asked for since the last call, in any order."""
        known = getattr(self, "_known", 0)
        found = (await sent(self.served, known + len(expected)))[known:]
        assert sorted(found, key=str) == sorted(expected, key=str)
        self._known = known + len(expected)
        await until(lambda: all(self.in_force(setpoint) == value for setpoint, value in expected))

    def in_force(self, setpoint):
        return self.served.bench.router.state(INVERTER.serial).values.get(setpoint)

    async def publish(self, **values):
        await self.served.publish(**values)


async def panelled(tmp_path, device=ABLE, **settings):
    return serving(
        tmp_path,
        **{"control": ALLOW_ALL, "devices": (device,), "maps": ("goodwe",), "units": {device.serial: UNIT}} | settings,
    )


@pytest.fixture
async def unit(tmp_path):
    async with await panelled(tmp_path) as served, served.client() as client:
        yield Panelled(served, client)


@pytest.fixture
async def battery(tmp_path):
    async with await panelled(tmp_path, BATTERY_ONLY) as served, served.client() as client:
        yield Panelled(served, client)


@pytest.mark.parametrize(
    ("register", "word", "setpoint", "value"),
    [
        (47000, 0, "work_mode", "general"),
        (47000, 2, "work_mode", "backup"),
        (47000, 5, "work_mode", "self_use"),
        (47010, 1, "running", False),
        (47010, 0, "running", True),
        (45484, 505, "active_power_limit", 50.5),
        (47510, 4000, "export_limit", 4000),
        (47511, 8, "battery_mode", "idle"),
    ],
)
async def test_a_setting_asks_for_its_setpoint_and_reads_back_at_once(unit, register, word, setpoint, value):
    unit.served.bench.controller.gate.clear()
    await unit.write(register, word)
    assert await unit.words(register) == [word]
    unit.served.bench.controller.gate.set()
    await unit.sent((setpoint, value))
    assert await unit.words(register) == [word]


@pytest.mark.parametrize(
    ("register", "words"),
    [
        (47000, [6]),
        (47000, [0xFFFF]),
        (47010, [2]),
        (45484, [1001]),
        (47509, [2]),
        (47510, [0xFFFF]),
        (47511, [0]),
        (47511, [4]),
        (47511, [6, 100]),
        (47511, [0xFFFE, 100]),
        (47533, [0]),
    ],
)
async def test_what_a_setting_does_not_take_is_03(unit, register, words):
    before = await unit.words(register, len(words))
    assert await unit.refused(register, *words) == 0x03
    assert await unit.words(register, len(words)) == before
    assert not unit.served.bench.controller.sent


@pytest.mark.parametrize("register", [35001, 35140, 36025, 37007, 45200, 47001, 47513, 47571, 47600, 47908])
async def test_what_is_no_setting_is_02(unit, register):
    assert await unit.refused(register, 1) == 0x02
    assert await unit.refused(register, 1, 1) == 0x02


async def test_a_request_is_done_as_a_whole_or_not_at_all(unit):
    assert await unit.refused(47509, 1, 5000, 4, 1000) == 0x03
    assert await unit.refused(47511, 11, 1000, 1) == 0x02
    assert not unit.served.bench.controller.sent
    await unit.write(47509, 1, 5000, 11, 1000)
    await unit.sent(("export_limit", 5000), ("battery_mode", "charge"), ("battery_power_target", 1000))


async def test_the_export_limit_acts_while_its_switch_is_on(unit):
    await unit.write(47509, 1, 3000)
    await unit.sent(("export_limit", 3000))
    await unit.write(47509, 0)
    await unit.sent(("export_limit", "none"))
    assert await unit.words(47509, 2) == [0, 3000]
    await unit.write(47510, 2000)
    assert await unit.words(47509, 2) == [0, 2000]
    await unit.write(47509, 1)
    await unit.sent(("export_limit", 2000))
    assert await unit.words(47509, 2) == [1, 2000]
    await unit.write(47510, 12_000)
    await unit.sent(("export_limit", 10_000))
    assert await unit.words(47509, 2) == [1, 12_000]


async def test_the_export_limit_of_others_shows(unit):
    await unit.publish(export_limit=4000)
    assert await unit.words(47509, 2) == [1, 4000]
    await unit.write(47510, 3000)
    await unit.sent(("export_limit", 3000))
    await unit.publish(export_limit=3000)
    await until(lambda: not unit.served.bench.dispatcher._open)
    await unit.publish(export_limit=10_000)
    assert await unit.words(47509, 2) == [1, 10_000]
    await unit.publish(export_limit="none")
    assert await unit.words(47509) == [0]


async def test_switching_the_limit_off_needs_no_rated_power(tmp_path):
    device = msgspec.structs.replace(ABLE, setpoints={"export_limit": Range()}, rated_power=None)
    async with await panelled(tmp_path, device) as served, served.client() as client:
        unit = Panelled(served, client)
        await unit.write(47509, 0)
        await unit.sent(("export_limit", "none"))
        await unit.write(47509, 1)  # there is no limit yet to switch on, but it may follow
        await unit.settled()
        assert await unit.words(47509) == [0]
        await unit.sent()


async def test_power_waits_for_the_mode(unit):
    await unit.write(47512, 2500)
    assert await unit.words(47511, 2) == [1, 2500]
    assert not unit.served.bench.controller.sent
    await unit.write(47511, 11)
    await unit.sent(("battery_mode", "charge"), ("battery_power_target", 2500))
    await unit.write(47512, 1000)
    await unit.sent(("battery_mode", "charge"), ("battery_power_target", 1000))
    assert await unit.words(47511, 2) == [11, 1000]


async def test_mode_and_then_power(unit):
    await unit.write(47511, 12)
    await unit.write(47512, 1000)
    await unit.sent(("battery_mode", "discharge"), ("battery_power_target", 1000))
    await unit.write(47512, 2000)
    await unit.sent(("battery_mode", "discharge"), ("battery_power_target", 2000))
    await unit.write(47511, 1)
    await unit.sent(("battery_mode", "auto"))
    assert await unit.words(47511, 2) == [1, 2000]


@pytest.mark.parametrize("mode", [2, 3, 11, 12])
async def test_a_mode_that_moves_nothing_holds_the_battery(unit, mode):
    """As the library has it: 2 takes from PV alone, the others 0 W."""
    await unit.write(47511, mode)
    await unit.write(47512, 0)
    await unit.sent(("battery_mode", "idle"))
    await unit.publish(battery_mode="idle")
    assert await unit.words(47511, 2) == [mode, 0]


@pytest.mark.parametrize(("mode", "order"), [(2, "charge"), (3, "discharge"), (11, "charge"), (12, "discharge")])
async def test_more_power_than_the_battery_has_is_all_it_has(unit, mode, order):
    await unit.write(47511, mode)
    await unit.write(47512, 10_000)
    await unit.sent(("battery_mode", order), ("battery_power_target", 5000))
    assert await unit.words(47511, 2) == [mode, 10_000]


async def test_what_was_read_can_be_written_back_with_one_value_changed(unit):
    await unit.publish(export_limit="none")
    words = await unit.words(47509, 4)
    assert words[:2] == [0, 0xFFFF]
    words[3] = 1000
    await unit.write(47509, *words)
    await unit.settled()
    assert await unit.words(47511, 2) == [1, 1000]
    await unit.sent(("export_limit", "none"))


async def test_the_same_order_again_is_asked_for_again(unit):
    for _ in range(2):
        await unit.write(47511, 2, 1000)
        await unit.sent(("battery_mode", "charge"), ("battery_power_target", 1000))


async def test_automatic_ends_an_order_and_else_does_nothing(unit):
    for mode in (1, 7):
        await unit.write(47511, mode, 0)
        assert await unit.words(47511, 2) == [mode, 0]
        await unit.settled()
    await unit.publish(battery_mode="discharge", battery_power_target=500)
    assert await unit.words(47511, 2) == [12, 500]
    assert not unit.served.bench.controller.sent
    await unit.write(47511, 1, 0)
    await unit.sent(("battery_mode", "auto"))


async def test_an_order_does_not_end_at_the_charge_that_another_was_to_reach(unit):
    await unit.publish(battery_target_soc=80)
    await unit.write(47511, 12, 500)
    await unit.sent(("battery_mode", "discharge"), ("battery_power_target", 500), ("battery_target_soc", "none"))
    await unit.write(47511, 11, 500)
    await unit.sent(("battery_mode", "charge"), ("battery_power_target", 500))


async def test_a_whole_day_of_eco_is_an_order(unit):
    await unit.write_hex(47547, f"{ALL_DAY}ff7fffce00550000")
    assert not unit.served.bench.controller.sent
    await unit.write(47000, 3)
    await unit.sent(
        ("work_mode", "eco"),
        ("battery_mode", "charge"),
        ("battery_power_target", 5000),
        ("battery_target_soc", 85),
    )
    await unit.write(47511, 1, 0)
    await unit.write_hex(47547, f"{ALL_DAY}f97f00c800640fff")
    await unit.sent(("battery_mode", "discharge"), ("battery_power_target", 2000), ("battery_target_soc", "none"))
    assert await unit.words(47547, 6) == [0, 0x173B, 0xF97F, 200, 100, 0x0FFF]
    await unit.write(47533, 1)
    await unit.sent(("battery_mode", "auto"))
    assert await unit.words(47547, 3) == [0x3000, 0x3000, 0]
    assert await unit.words(47533) == [0]


async def test_leaving_eco_ends_its_order(unit):
    await unit.write_hex(47547, f"{ALL_DAY}ff7fff9c00640000")
    await unit.write(47000, 3)
    await unit.sent(("work_mode", "eco"), ("battery_mode", "charge"), ("battery_power_target", 5000))
    await unit.write(47000, 0)
    await unit.sent(("work_mode", "general"), ("battery_mode", "auto"))


@pytest.mark.parametrize(
    ("register", "text"),
    [
        (47547, "0600173bff7fff9c00640000"),
        (47547, f"{ALL_DAY}ff3fff9c00640000"),
        (47547, f"{ALL_DAY}ff7f000000640000"),
        (47547, f"{ALL_DAY}ff7f006500640000"),
        (47547, f"{ALL_DAY}ff7fff9c00640001"),
        (47547, f"{ALL_DAY}fc7fff9c00640000"),
        (47553, f"{ALL_DAY}ff7fff9c00640000"),
        (47565, f"{ALL_DAY}ff7fff9c00640000"),
    ],
)
async def test_a_timetable_is_03(unit, register, text):
    pdu = write_many(register, bytes.fromhex(text))
    assert await unit.client.refused(pdu, unit=UNIT) == 0x03


async def test_a_schedule_that_is_off_is_kept(unit):
    await unit.write_hex(47553, "0600080000" + "7f" + "ff9c00640000")
    assert await unit.words(47553, 2) == [0x0600, 0x0800]


async def test_a_device_without_work_modes_takes_the_order_of_a_schedule(battery):
    assert await battery.refused(47000, 3) == 0x02
    await battery.write_hex(47547, f"{ALL_DAY}ff7fffce00640000")
    for _ in range(2):
        await battery.write(47000, 3)
        await battery.sent(("battery_mode", "charge"), ("battery_power_target", 5000))
    assert await battery.words(47000) == [3]
    await battery.write(47000, 0)
    await battery.sent(("battery_mode", "auto"))
    assert await battery.refused(47000, 2) == 0x02


async def test_an_order_of_somebody_else_ends_the_schedule(battery):
    await battery.write_hex(47547, f"{ALL_DAY}ff7fffce00640000")
    await battery.write(47000, 3)
    await battery.sent(("battery_mode", "charge"), ("battery_power_target", 5000))
    await battery.publish(battery_mode="discharge")
    while await battery.words(47547) != [0x3000]:
        pass  # until the end of our own command is known
    assert await battery.words(47511) == [12]


async def test_a_setpoint_the_device_does_not_take_is_02_also_where_it_would_only_wait(tmp_path):
    device = msgspec.structs.replace(ABLE, setpoints={"running": Range()})
    async with await panelled(tmp_path, device) as served, served.client() as client:
        unit = Panelled(served, client)
        for register, word in ((47000, 1), (47510, 1), (47511, 11), (47512, 1), (45484, 1)):
            assert await unit.refused(register, word) == 0x02
        await unit.write(47511, 1, 0)
        await unit.write(47010, 1)
        await unit.sent(("running", False))


async def test_a_battery_of_unknown_size_is_told_the_mode_alone(tmp_path):
    device = msgspec.structs.replace(ABLE, rated_power=None)
    async with await panelled(tmp_path, device) as served, served.client() as client:
        unit = Panelled(served, client)
        await unit.write_hex(47547, f"{ALL_DAY}ff7fffce00640000")
        await unit.write(47000, 3)
        await unit.sent(("work_mode", "eco"), ("battery_mode", "charge"))


async def test_off_grid_takes_what_goes_with_it(unit):
    await unit.write(45252, 1)
    await unit.write(45248, 4)
    assert (await unit.words(45252), await unit.words(45248)) == ([1], [4])
    assert not unit.served.bench.controller.sent


async def test_a_write_is_01_while_control_is_off(tmp_path):
    async with await panelled(tmp_path, control=ControlSettings()) as served, served.client() as client:
        assert await Panelled(served, client).refused(47510, 1000) == 0x01


@pytest.mark.parametrize("how", ["failed", "refused", "unknown"])
async def test_what_was_not_done_no_longer_reads_back(unit, how):
    await unit.publish(export_limit=4000, ac_power=1)
    controller = unit.served.bench.controller
    if how == "refused":
        controller.answers = [RefusedError("not now")]
    else:
        controller.outcomes = [Outcome(CommandState(how), "no")]
    controller.gate.clear()
    await unit.write(47510, 3000)
    assert await unit.words(47510) in ([3000], [4000] if how == "refused" else [3000])
    controller.gate.set()
    while await unit.words(47510) != [4000]:
        pass


async def test_a_step_of_an_unknown_device_is_nothing(unit):
    await unit.served.bench.dispatcher.submit(unit.served.bench.command(serial="NOBODY"))
    await unit.write(47010, 1)
    await unit.sent(("running", False))


def test_a_panel_keeps_what_is_written_until_something_else_is_in_force():
    panel = Panel()

    def learn(**values):
        panel.learn(DeviceState(device=ABLE, quality=Quality.GOOD, time=None, source="", values=values))

    learn()
    assert not panel.takes("fuel")
    assert panel.takes("running")
    panel.keep(Sequence().then({47000: 2}))
    learn(work_mode=None)
    assert panel.words[47000] == 2
    learn(work_mode="backup")
    assert panel.words[47000] == 2
    learn(work_mode="eco")
    assert panel.words[47000] == 3
