"""A plant's SunSpec unit: the control models of its inverters together, read and written by SunSpec's own client."""

import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest
from sunspec2.modbus.modbus import ModbusClientException

from gateway.bridges.modbus.maps.sunspec.facts import PV_STORAGE
from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.controller import Outcome
from gateway.core.model import CommandState, Device, DeviceKind, Range
from gateway.core.points import SETPOINTS
from tests.bridges.modbus.client import write_many
from tests.bridges.modbus.conftest import serving
from tests.bridges.modbus.test_sunspec_client import Scanned
from tests.kit.bench import until
from tests.kit.process import PATIENCE

PLANT = Device(serial="plant-1", kind=DeviceKind.PLANT, name="Hill House", rated_power=8_400.0)
"""Its rated power is that of its PV modules, as discovery has it."""
AC = {"active_power_limit": Range(0, 100), "reactive_power": Range(-60, 60), "power_factor": Range(-1, 1)}


def hybrid(serial, rated, most=None, **changes):
    battery = {"battery_mode": Range(), "battery_power_target": Range(0, most), "running": Range()}
    fields = {"plant": PLANT.serial, "rated_power": rated, "setpoints": {**AC, **battery}}
    return Device(serial=serial, kind=DeviceKind.STORAGE, **(fields | changes))


SMALL = hybrid("9010KETU000W0001", 10_000.0, 5_000.0)
LARGE = hybrid("9020KETU000W0002", 30_000.0, 10_000.0)
PV = Device(
    serial="9030KDTU000W0003", kind=DeviceKind.INVERTER, plant=PLANT.serial, rated_power=20_000.0,
    setpoints={"active_power_limit": Range(20, 100)},
)  # fmt: skip
MIXED = (PLANT, SMALL, LARGE, PV)
MODELS = [1, 203, 120, 121, 122, 123, 701, 702, 703, 704]
STORING = [*MODELS, 124, 713, 802]
CONTROL = ControlSettings(enabled=True, allow=[Rule(devices=["*"], setpoints=list(SETPOINTS))], max_per_minute=100_000)
IN_FORCE = {"active_power_limit": 100.0, "reactive_power": 0.0, "power_factor": 1.0, "running": True,
            "battery_mode": "auto", "battery_power_target": 0.0}  # fmt: skip


class Site:
    """A plant, as pysunspec2 sees it."""

    def __init__(self, served):
        self.served = served
        self.bench = served.bench

    @property
    def unit(self):
        return self.served.bridge.units[PLANT.serial]

    @property
    def told(self):
        return sorted((command.serial, command.setpoint, command.value) for command in self.bench.asked)

    async def scan(self, unit=None):
        return await Scanned(self.served.port, unit or self.unit).scan()

    async def tells(self, *expected):
        await until(lambda: len(self.bench.asked) >= len(expected))
        assert self.told == sorted(expected)

    async def shows(self, client, id_, **expected):
        """Wait until the registers read this."""
        async with asyncio.timeout(PATIENCE):
            while True:
                model = await client.read(id_)
                if {name: model.points[name].cvalue for name in expected} == expected:
                    return
                await asyncio.sleep(0.05)  # each read is a connection, of which a machine has so many a minute

    async def command_state(self):
        """What 6003 of the plant's unit says of its last command."""
        async with self.served.client() as client:
            return (await client.words(6003, unit=self.unit))[0]


@asynccontextmanager
async def site(tmp_path, *devices, maps=("native", "sunspec"), control=CONTROL, values=IN_FORCE, **settings):
    async with serving(tmp_path, devices=devices, control=control, maps=maps, **settings) as served:
        for device in devices:
            its = {point: value for point, value in values.items() if point in device.setpoints}
            await served.publish(
                device.serial, **its, **({"grid_power": 1.0} if device == PLANT else {"ac_power": 1.0})
            )
        await served.publish(PLANT.serial, grid_power=-2_000.0)
        yield Site(served)


@pytest.fixture
async def mixed(tmp_path):
    async with site(tmp_path, *MIXED) as here:
        yield here


async def test_a_plant_shows_the_models_and_ratings_of_its_inverters_together(mixed):
    client = await mixed.scan()
    assert client.ids == STORING
    name, settings, der = client.model(120), client.model(121), client.model(702)
    assert name.DERTyp.cvalue == PV_STORAGE
    assert name.WRtg.cvalue == settings.WMax.cvalue == der.WMax.cvalue == 60_000, "not the 8.4 kW of its modules"
    # Those that take reactive power are rated for 40 kW, and take 60 % of it.
    assert (settings.VArMaxQ1.cvalue, settings.VArMaxQ4.cvalue, der.VarMaxInj.cvalue) == (24_000, -24_000, 24_000)
    assert name.MaxChaRte.cvalue == client.model(124).WChaMax.cvalue == client.model(802).WChaRteMax.cvalue == 15_000
    assert client.model(123).WMaxLimPct.cvalue == 100
    assert (client.model(124).StorCtl_Mod.cvalue, client.model(123).WMaxLim_Ena.cvalue) == (0, 0)


async def test_a_limit_with_its_time_out_is_told_to_each_and_given_back_by_each(mixed):
    client = await mixed.scan()
    await client.set(123, WMaxLimPct=42.5, WMaxLimPct_RvrtTms=1)
    assert not mixed.bench.asked
    await client.set(123, WMaxLim_Ena=1)
    await mixed.tells(*((one.serial, "active_power_limit", 42.5) for one in (SMALL, LARGE, PV)))
    assert {command.revert_after for command in mixed.bench.asked} == {1}
    await until(lambda: len(mixed.bench.controller.sent) == 6)
    await mixed.shows(client, 123, WMaxLimPct=100, WMaxLim_Ena=0)
    for device in (SMALL, LARGE, PV):  # once that is read back, no timer runs
        await mixed.served.publish(device.serial, active_power_limit=100.0)
    await mixed.shows(client, 704, WMaxLimPct=100, WMaxLimPctEna=0, WMaxLimPctRvrtRem=None)


async def test_what_is_left_of_a_time_out_is_that_of_the_first(mixed):
    client = await mixed.scan()
    await client.set(704, WMaxLimPct=50, WMaxLimPctRvrtTms=6_000, WMaxLimPctEna=1)
    await mixed.tells(*((one.serial, "active_power_limit", 50.0) for one in (SMALL, LARGE, PV)))
    other = mixed.bench.command(serial=PV.serial, value=50, revert_after=600)
    await until(lambda: len(mixed.bench.controller.sent) == 3)
    await mixed.bench.dispatcher.submit(other)
    async with asyncio.timeout(PATIENCE):
        while not 0 < ((await client.read(704)).WMaxLimPctRvrtRem.cvalue or 0) <= 600:
            pass


async def test_a_charge_order_is_shared_by_rating_among_those_with_a_battery(mixed):
    client = await mixed.scan()
    await client.set(124, OutWRte=-40, InOutWRte_RvrtTms=600, StorCtl_Mod=2)
    charge = [
        (SMALL.serial, "battery_mode", "charge"), (SMALL.serial, "battery_power_target", 2_000.0),
        (LARGE.serial, "battery_mode", "charge"), (LARGE.serial, "battery_power_target", 4_000.0),
    ]  # fmt: skip
    await mixed.tells(*charge)
    timers = {(command.setpoint, command.revert_after) for command in mixed.bench.asked}
    assert timers == {("battery_mode", 600), ("battery_power_target", None)}
    await until(lambda: mixed.bench.router.state(LARGE.serial).values["battery_mode"] == "charge")
    await mixed.shows(client, 124, StorCtl_Mod=2, OutWRte=-40, InWRte=100)
    await client.set(124, StorCtl_Mod=0)
    await mixed.tells(*charge, (SMALL.serial, "battery_mode", "auto"), (LARGE.serial, "battery_mode", "auto"))
    await until(lambda: mixed.bench.router.state(LARGE.serial).values["battery_mode"] == "auto")
    await mixed.shows(client, 124, StorCtl_Mod=0)


async def test_odd_shares_are_whole_watts_and_read_back_as_written(mixed):
    """33.33 % of 15 kW are 4,999.5 W: nobody is told half a watt, and what was written stays."""
    client = await mixed.scan()
    await client.set(124, ChaGriSet=0, InWRte=-33.33, StorCtl_Mod=1)
    await until(lambda: len(mixed.bench.controller.sent) >= 2 and mixed.bench.asked[3:])
    powers = [value for _, setpoint, value in mixed.told if setpoint == "battery_power_target"]
    assert all(value.is_integer() for value in powers)
    assert sum(powers) in {4_999, 5_000}
    (latches,) = mixed.served.bridge._controls(PLANT.serial)
    await until(lambda: not latches._newest.is_under_way(("battery_mode", "battery_power_target")))
    await mixed.served.publish(PLANT.serial, grid_power=1.0)
    model = await client.read(124)
    assert (model.StorCtl_Mod.cvalue, model.InWRte.cvalue, model.ChaGriSet.cvalue) == (1, -33.33, 0)


@pytest.mark.parametrize("hold", ["refuse", "idle"])
async def test_hold_is_for_every_battery_and_for_no_other(tmp_path, hold):
    async with site(tmp_path, *MIXED, maps=("native", {"map": "sunspec", "hold": hold})) as here:
        client = await here.scan()
        if hold == "refuse":
            with pytest.raises(ModbusClientException, match="3"):
                await client.set(124, OutWRte=0, StorCtl_Mod=2)
            await client.set(124, OutWRte=0, InWRte=0, StorCtl_Mod=3)
        else:
            await client.set(124, OutWRte=0, StorCtl_Mod=2)
        await here.tells((SMALL.serial, "battery_mode", "idle"), (LARGE.serial, "battery_mode", "idle"))


async def test_what_one_does_not_take_is_told_to_none_and_nothing_of_it_stays(mixed):
    client = await mixed.scan()
    await client.set(123, WMaxLimPct=10)
    with pytest.raises(ModbusClientException, match="3"):
        await client.set(123, WMaxLim_Ena=1)  # one of them takes 20 % and more
    await mixed.shows(client, 123, WMaxLim_Ena=0)
    assert not mixed.bench.asked
    assert await mixed.command_state() == 6, "the plant's last command was rejected"


async def test_the_worst_of_them_is_the_plants_and_the_registers_fall_back(mixed):
    client = await mixed.scan()
    mixed.bench.controller.outcomes = [
        Outcome(CommandState.SUCCEEDED), Outcome(CommandState.FAILED, "not now"), Outcome(CommandState.SUCCEEDED),
    ]  # fmt: skip
    await client.set(123, WMaxLimPct=60, WMaxLim_Ena=1)
    await until(lambda: len(mixed.bench.controller.sent) == 3)
    await mixed.shows(client, 123, WMaxLimPct=None, WMaxLim_Ena=None)  # they are not at one, so nothing is in force
    async with mixed.served.client() as raw:
        async with asyncio.timeout(PATIENCE):
            while (await raw.words(6104, unit=mixed.unit))[0] != 4:
                pass
        detail = await raw.text(6026, 32, unit=mixed.unit)
    assert "not now" in detail, "and it says which one it was"
    assert any(one.serial in detail for one in (SMALL, LARGE, PV))


async def test_while_one_is_under_way_what_was_written_is_shown(mixed):
    client = await mixed.scan()
    mixed.bench.controller.gate.clear()
    await client.set(123, WMaxLimPct=60, WMaxLim_Ena=1)
    await until(lambda: len(mixed.bench.controller.sent) == 3)
    await mixed.served.publish(LARGE.serial, ac_power=2.0, active_power_limit=100.0)
    await mixed.shows(client, 123, WMaxLimPct=60, WMaxLim_Ena=1)
    mixed.bench.controller.gate.set()
    await mixed.shows(client, 704, WMaxLimPct=60, WMaxLimPctEna=1)
    await mixed.bench.dispatcher.submit(mixed.bench.command(serial=PV.serial, value=80))
    await mixed.shows(client, 123, WMaxLimPct=None, WMaxLim_Ena=None)  # somebody else has told one of them


@pytest.mark.parametrize("answers", ["accepted", "done"])
async def test_one_that_is_offline_is_told_all_the_same_and_its_end_is_the_plants(tmp_path, answers):
    async with site(tmp_path, *MIXED, answer_writes=answers, answer_timeout=120) as here:
        await here.served.publish(LARGE.serial, status="offline", battery_mode="auto", battery_power_target=0.0)
        client = await here.scan()
        here.bench.controller.outcomes = [Outcome(CommandState.SUCCEEDED), Outcome(CommandState.FAILED, "not heard")]
        await client.set(124, OutWRte=-100)
        if answers == "done":
            with pytest.raises(ModbusClientException, match="4"):
                await client.set(124, StorCtl_Mod=2)
        else:
            await client.set(124, StorCtl_Mod=2)
        await until(lambda: len(here.bench.asked) == 4)
        powers = {serial: value for serial, setpoint, value in here.told if setpoint == "battery_power_target"}
        assert powers == {SMALL.serial: 5_000, LARGE.serial: 10_000}
        async with asyncio.timeout(PATIENCE):
            while await here.command_state() != 4:
                pass


@pytest.mark.parametrize("count", [1, 40])
async def test_a_plant_of_one_and_of_forty(tmp_path, count):
    inverters = [hybrid(f"90{n:02}KETU", 5_000.0 + 1_000 * (n % 3), 2_500.0 + 100 * n) for n in range(count)]
    async with site(tmp_path, PLANT, *inverters) as here:
        client = await here.scan()
        assert client.model(121).WMax.cvalue == sum(one.rated_power for one in inverters)
        await client.set(124, OutWRte=-50, StorCtl_Mod=2)
        await until(lambda: len(here.bench.asked) == 2 * count)
        powers = {serial: value for serial, setpoint, value in here.told if setpoint == "battery_power_target"}
        for n, one in enumerate(inverters):
            assert powers[one.serial] == pytest.approx(1_250 + 50 * n, abs=1)
        await client.set(123, WMaxLimPct=30, WMaxLim_Ena=1)
        await here.shows(client, 704, WMaxLimPct=30, WMaxLimPctEna=1)
        await client.set(123, WMaxLim_Ena=0)
        await here.shows(client, 704, WMaxLimPct=100, WMaxLimPctEna=0)


async def test_with_an_unknown_rating_no_share_is_made_up(tmp_path, caplog):
    unknown = hybrid("9040KETU000W0004", None)
    async with site(tmp_path, PLANT, SMALL, unknown) as here:
        client = await here.scan()
        assert client.model(120).WRtg.cvalue is None
        assert client.model(121).WMax.cvalue is None
        assert client.model(124).WChaMax.cvalue is None
        await client.set(124, OutWRte=-50)
        with pytest.raises(ModbusClientException, match="3"):
            await client.set(124, StorCtl_Mod=2)
        async with here.served.client() as raw:
            assert await raw.refused(write_many(5014, (3_000).to_bytes(4, "big")), unit=here.unit) == 3
        await client.set(704, VarSetMod=4, VarSet=1_000)
        with pytest.raises(ModbusClientException, match="3"):
            await client.set(704, VarSetEna=1)
        assert not here.bench.asked
        await client.set(124, OutWRte=0, InWRte=0, StorCtl_Mod=3)  # standing still needs no rating, nor does a limit
        await here.tells((SMALL.serial, "battery_mode", "idle"), (unknown.serial, "battery_mode", "idle"))
        await client.set(123, WMaxLimPct=30, WMaxLim_Ena=1)
        await until(lambda: len(here.bench.asked) == 4)


async def test_reactive_power_in_vars_is_of_those_that_take_it(mixed):
    client = await mixed.scan()
    await client.set(704, VarSetMod=4, VarSet=4_000, VarSetEna=1)
    await mixed.tells((SMALL.serial, "reactive_power", 10.0), (LARGE.serial, "reactive_power", 10.0))
    await mixed.shows(client, 704, VarSet=4_000, VarSetPct=10, VarSetEna=1)


async def test_what_inverters_measure_is_added_up_and_is_no_power_of_the_grid(mixed):
    status = {"status": "normal", "ac_power": 1_000.0}
    battery = {"battery_power": -500.0, "battery_soc": 40.0, "battery_capacity": 10.0}
    for device, more in (
        (PV, {}),
        (SMALL, battery),
        (LARGE, {**battery, "battery_soc": 70.0, "battery_capacity": 20.0}),
    ):
        await mixed.served.publish(device.serial, **status, **more)
    await mixed.served.publish(PLANT.serial, load_power=900.0)
    client = await mixed.scan()
    der = client.model(701)
    assert (der.W.cvalue, der.InvSt.cvalue) == (3_000, 3)
    assert client.model(203).W.cvalue is None, "what the inverters give is not what the grid takes"
    assert (client.model(713).WHRtg.cvalue, client.model(713).SoC.cvalue) == (30_000, 60)
    assert client.model(802).W.cvalue == -1_000
    await mixed.served.publish(PLANT.serial, grid_power=-2_100.0, ac_power=3_100.0, battery_soc=61.0)
    client = await mixed.scan()
    assert client.model(203).W.cvalue == -2_100
    assert (client.model(701).W.cvalue, client.model(713).SoC.cvalue) == (3_100, 61), "what the plant says itself"


async def test_who_comes_goes_moves_or_loses_its_battery_is_seen_at_the_plant(mixed):
    other = msgspec.structs.replace(PLANT, serial="plant-2", rated_power=None)
    mixed.bench.announce(other)
    await until(lambda: "plant-2" in mixed.served.bridge.units)
    await mixed.served.publish("plant-2", grid_power=1.0)

    async def rated(unit, expected):
        async with asyncio.timeout(PATIENCE):
            while True:
                client = await mixed.scan(unit)
                if 121 not in client.ids or client.model(121).WMax.cvalue == expected:
                    return client

    mixed.bench.announce(LARGE, plant="plant-2")
    await mixed.served.publish(LARGE.serial, ac_power=1.0, **IN_FORCE)
    assert (await rated(mixed.unit, 30_000)).ids == STORING
    moved = await rated(mixed.served.bridge.units["plant-2"], 30_000)
    assert moved.ids == STORING
    mixed.bench.announce(SMALL, rated_power=12_000.0)
    await mixed.served.publish(SMALL.serial, ac_power=1.0)
    await rated(mixed.unit, 32_000)
    mixed.bench.router.withdraw("scripted", SMALL.serial)
    assert (await rated(mixed.unit, 20_000)).ids == MODELS, "no battery is left"


APART = {
    "active_power_limit": 40.0, "reactive_power": 10.0, "power_factor": 0.9, "running": False,
    "battery_mode": "charge", "battery_power_target": 1_000.0, "battery_reserve_soc": 20.0,
}  # fmt: skip
BATTERIES = (*(
    msgspec.structs.replace(one, setpoints={**one.setpoints, "battery_reserve_soc": Range(0, 100)})
    for one in (SMALL, LARGE)
), PLANT)  # fmt: skip
ALL_IN_FORCE = {**IN_FORCE, "battery_reserve_soc": 10.0}
CONTROL_MODELS = (123, 124, 703, 704, 713, 802)
OF_SETPOINT = {
    "active_power_limit": {123: "WMaxLimPct WMaxLim_Ena WMaxLimPct_RvrtTms", 704: "WMaxLimPct WMaxLimPctEna "
        "WMaxLimPctRvrt WMaxLimPctEnaRvrt WMaxLimPctRvrtTms"},
    "reactive_power": {123: "VArWMaxPct VArMaxPct VArPct_Mod VArPct_Ena VArPct_RvrtTms",
        704: "VarSetMod VarSet VarSetPct VarSetEna VarSetEnaRvrt VarSetRvrtTms"},
    "power_factor": {123: "OutPFSet OutPFSet_Ena OutPFSet_RvrtTms", 704: "PFWInjEna PFWInjEnaRvrt PFWInjRvrtTms"},
    "running": {123: "Conn Conn_RvrtTms", 703: "ES"},
    "battery_mode": {124: "StorCtl_Mod InWRte OutWRte ChaGriSet InOutWRte_RvrtTms"},
    "battery_reserve_soc": {124: "MinRsvPct", 802: "SoCRsvMin"},
}  # fmt: skip
"""What reads "not implemented" while the inverters are not at one."""
OTHERS = {123: ("OutPFSet_WinTms", 7), 124: ("InOutWRte_RvrtTms", 900), 704: ("WMaxLimPctRvrtTms", 900)}
"""A register of each model that does nothing by itself; all of 16 bits, or the second half is written."""


async def rewrite(here, client, id_, **changes):
    """Read a whole model, and write all of it by one request: as it was, or with some registers changed."""
    model = client.model(id_)
    start, count = model.model_addr, model.model_len + 2
    words = bytearray(await asyncio.to_thread(client.device.read, start, count))
    for name, value in changes.items():
        point = model.points[name]
        at = 2 * point.offset
        words[at : at + 2 * point.len] = value.to_bytes(2 * point.len, "big")
    await asyncio.to_thread(client.device.write, start, bytes(words))
    await until(lambda: not here.served.bridge._writer._pending and not here.served.bridge._writer._leaving)


async def apart(here, serial, setpoint, value, **more):
    """Have one inverter say something else than the others."""
    known = here.bench.router.state(serial).values
    await here.served.publish(serial, **{**known, setpoint: value, **more})
    await here.served.publish(PLANT.serial, grid_power=1.0)


@pytest.mark.parametrize("setpoint", OF_SETPOINT)
async def test_whole_models_written_back_change_nothing_while_the_inverters_differ(tmp_path, setpoint):
    async with site(tmp_path, *BATTERIES, values=ALL_IN_FORCE) as here:
        client = await here.scan()
        power = {"battery_power_target": 1_000.0} if setpoint == "battery_mode" else {}
        await apart(here, SMALL.serial, setpoint, APART[setpoint], **power)
        for id_, names in OF_SETPOINT[setpoint].items():
            model = await client.read(id_)
            assert {name: model.points[name].cvalue for name in names.split()} == dict.fromkeys(names.split())
        for id_ in CONTROL_MODELS:
            if id_ != 713:
                await rewrite(here, client, id_)
            if id_ in OTHERS:
                name, value = OTHERS[id_]
                await rewrite(here, client, id_, **{name: value})
        asked = {command.setpoint for command in here.bench.asked}
        assert not asked & {setpoint, "battery_power_target"}
        news = [one for one in here.bench.asked if one.value != ALL_IN_FORCE[one.setpoint]]
        assert not news, "what all have is told again, as to a single device: it changes nothing"


async def test_of_a_whole_model_written_back_only_what_was_changed_leaves(tmp_path):
    async with site(tmp_path, *BATTERIES, values=ALL_IN_FORCE) as here:
        client = await here.scan()
        await apart(here, SMALL.serial, "active_power_limit", 40.0)
        await rewrite(here, client, 123, VArWMaxPct=1_000, VArPct_Ena=1)
        await until(lambda: here.bench.asked)
        news = [one for one in here.bench.asked if one.value != ALL_IN_FORCE[one.setpoint]]
        assert {(one.serial, one.setpoint, one.value) for one in news} == {
            (SMALL.serial, "reactive_power", 10.0),
            (LARGE.serial, "reactive_power", 10.0),
        }
        assert "active_power_limit" not in {one.setpoint for one in here.bench.asked}


async def test_what_one_is_released_from_stays_with_the_other(tmp_path):
    async with site(tmp_path, *BATTERIES, values=ALL_IN_FORCE) as here:
        client = await here.scan()
        await client.set(124, OutWRte=-50, StorCtl_Mod=2)
        await until(lambda: here.bench.router.state(LARGE.serial).values["battery_mode"] == "charge")
        await here.shows(client, 124, StorCtl_Mod=2, OutWRte=-50)
        own = await here.scan(here.served.bridge.units[SMALL.serial])
        await own.set(124, StorCtl_Mod=0)
        await here.shows(client, 124, StorCtl_Mod=None, OutWRte=None, InWRte=None, ChaGriSet=None)
        before = len(here.bench.asked)
        await rewrite(here, client, 124, InOutWRte_RvrtTms=900)
        later = {one.setpoint for one in here.bench.asked[before:]}
        assert later <= {"battery_reserve_soc"}, "the reserve that all have"
        await client.set(124, StorCtl_Mod=0)  # who means it is heard
        await until(lambda: here.bench.router.state(LARGE.serial).values["battery_mode"] == "auto")
        await here.shows(client, 124, StorCtl_Mod=0, OutWRte=100, InWRte=100)


async def test_powers_that_are_no_shares_are_no_sum(tmp_path):
    """Both charge, and one was told otherwise: the sum, written again, would tell both something new."""
    async with site(tmp_path, *BATTERIES, values={**ALL_IN_FORCE, "battery_mode": "charge"}) as here:
        await apart(here, SMALL.serial, "battery_power_target", 1_000.0)
        client = await here.scan()
        await here.shows(client, 124, StorCtl_Mod=None, OutWRte=None)
        async with here.served.client() as raw:
            assert await raw.words(5012, 4, unit=here.unit) == [0, 1, 0x8000, 0]
            await apart(here, LARGE.serial, "battery_power_target", 2_000.0)
            assert await raw.words(5012, 4, unit=here.unit) == [0, 1, 0, 3_000]
            await here.shows(client, 124, StorCtl_Mod=2, OutWRte=-20)
            await apart(here, LARGE.serial, "battery_mode", "auto")
            assert await raw.words(5012, 4, unit=here.unit) == [0x8000, 0, 0x8000, 0], "a power without a mode"


async def test_without_a_mode_that_is_read_var_is_of_wmax_as_ever(tmp_path):
    async with site(tmp_path, *BATTERIES, values=ALL_IN_FORCE) as here:
        client = await here.scan()
        for id_, value, enable in ((704, "VarSetPct", "VarSetEna"), (123, "VArWMaxPct", "VArPct_Ena")):
            await apart(here, SMALL.serial, "reactive_power", 5.0 + id_ / 100)
            before = len(here.bench.asked)
            await client.read(id_)
            await client.set(id_, **{value: 20, enable: 1})
            await until(lambda: len(here.bench.asked) == before + 2)  # noqa: B023
            assert {one.value for one in here.bench.asked} == {20.0}
            await here.shows(client, id_, **{value: 20, enable: 1})


@pytest.mark.parametrize("hold", ["refuse", "idle"])
async def test_a_share_of_less_than_a_watt_is_none(tmp_path, hold):
    async with site(tmp_path, *BATTERIES, maps=({"map": "sunspec", "hold": hold},), values=ALL_IN_FORCE) as here:
        client = await here.scan()
        await client.set(124, OutWRte=-0.01)  # 1.5 W: the small one's would be half a watt
        if hold == "refuse":
            with pytest.raises(ModbusClientException, match="3"):
                await client.set(124, StorCtl_Mod=2)
            await client.set(124, OutWRte=-0.02, StorCtl_Mod=2)
            await until(lambda: len(here.bench.asked) == 4)
            assert [v for _, s, v in here.told if s == "battery_power_target"] == [1.0, 2.0]
        else:
            await client.set(124, StorCtl_Mod=2)
            await here.tells((SMALL.serial, "battery_mode", "idle"), (LARGE.serial, "battery_mode", "idle"))
