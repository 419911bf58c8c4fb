"""SunSpec's own client, pysunspec2: scans every unit, reads every model, and sets what can be set."""

import asyncio
import random

import msgspec
import pytest
from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP
from sunspec2.modbus.modbus import ModbusClientException

from gateway.bridges.modbus.maps.sunspec import basic, battery, der, inverter, meter, weather
from gateway.bridges.modbus.maps.sunspec.points import Model, Type
from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.model import Device, DeviceKind, Range
from gateway.core.points import POINTS, SETPOINTS
from gateway.core.points import Type as PointType
from tests.bridges.modbus.client import RawClient, read
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import INVERTER, until
from tests.kit.process import PATIENCE

CONTROL = ControlSettings(enabled=True, allow=[Rule(devices=["*"], setpoints=list(SETPOINTS))], max_per_minute=100_000)
SINGLE = Device(
    serial="5000EH", kind=DeviceKind.INVERTER, model="GW3000-XS", rated_power=3_000.0,
    setpoints={"active_power_limit": Range(0, 100), "running": Range()},
)  # fmt: skip
LARGE = Device(
    serial="250KHT", kind=DeviceKind.INVERTER, model="GW250K-HT", rated_power=250_000.0,
    setpoints={"active_power_limit": Range(0, 100), "power_factor": Range(-1, 1), "reactive_power": Range(-60, 60)},
)  # fmt: skip
OTHERS = tuple(
    Device(serial=f"{kind}-1", kind=kind, name=f"A {kind}", rated_power=20_000.0)
    for kind in DeviceKind
    if kind not in {DeviceKind.INVERTER, DeviceKind.STORAGE}
)
METER = Device(serial="meter-2", kind=DeviceKind.METER, model="GM1000")
PLANT = Device(serial="plant-2", kind=DeviceKind.PLANT)
DEVICES = (INVERTER, SINGLE, LARGE, *OTHERS, METER)

MODELS = {
    model.id: model
    for module in (basic, battery, der, inverter, meter, weather)
    for model in vars(module).values()
    if isinstance(model, Model)
}
CONVERTED = {("kWh", "Wh"): 1000, ("kWh", "WH"): 1000, ("", "Pct"): 100}
SPANS = {
    "V": (200, 450),
    "A": (0, 15),
    "Hz": (49, 51),
    "kWh": (1, 5000),
    "%": (0, 100),
    "W/m²": (0, 1200),
    "°": (0, 359),
}


def readings(device, seed=1):
    """Every point there is, with values that a device of this rating may have."""
    chance = random.Random(f"{device.serial}{seed}")
    rated = device.rated_power or 10_000
    values = {}
    for point in POINTS.values():
        if point.type is PointType.ENUM:
            values[point.id] = "normal" if point.id == "status" else chance.choice(point.options)
        elif point.type is PointType.TEXT:
            values[point.id] = f"{point.id} {seed}"
        elif point.type is PointType.BOOLEAN:
            values[point.id] = True
        elif point.id in {"power_factor", "ac_power_factor"}:
            values[point.id] = round(chance.uniform(0.8, 0.99), 3)
        elif point.id == "battery_capacity":
            values[point.id] = round(rated / 500, 2)
        elif point.type is PointType.INTEGER:
            values[point.id] = chance.randrange(1, 1000)
        elif point.unit in {"W", "var", "VA"}:
            values[point.id] = round(chance.uniform(0 if point.low == 0 else -rated, rated), 1)
        else:
            low, high = SPANS.get(point.unit, (0, 50))
            values[point.id] = round(chance.uniform(low, high), 2)
    return values


class Scanned:
    """A device as pysunspec2 sees it. It blocks, so it works in a thread."""

    def __init__(self, port, unit):
        self.device = SunSpecModbusClientDeviceTCP(slave_id=unit, ipaddr="127.0.0.1", ipport=port, timeout=120)

    async def scan(self, **how):
        await asyncio.to_thread(self.device.scan, **how)
        return self

    @property
    def ids(self):
        return [model.model_id for model in self.device.model_list]

    def model(self, id_):
        (model,) = self.device.models[id_]
        return model

    async def read(self, id_):
        await asyncio.to_thread(self.model(id_).read)
        return self.model(id_)

    async def set(self, id_, **values):
        """Write points one after another, a request each."""
        for name, value in values.items():
            group, _, point = name.rpartition("__")
            model = self.model(id_)
            found = (model.groups[group] if group else model).points[point]
            found.cvalue = value
            await asyncio.to_thread(model.write)


def points_of(model):
    """All points of a scanned model after ID and L, in the order of their registers."""

    def walk(group):
        yield from group.points.values()
        for inner in group.groups.values():
            for one in inner if isinstance(inner, list) else [inner]:
                yield from walk(one)

    return list(walk(model))[2:]


def compare(model, values):
    """Compare every point that shows a point of the gateway as it is. Returns how many there were."""
    compared = 0
    found = points_of(model)
    ours = inverter.MPPT if model.model_id == 160 and model.N.cvalue == 4 else MODELS[model.model_id]
    assert len(found) == len(ours.points)
    for point, seen in zip(ours.points, found, strict=True):
        known = POINTS.get(point.shows)
        value = values.get(point.shows)
        if known is None or value is None:
            continue
        where = f"{model.model_id} {point.name}"
        if point.type is Type.STRING:
            assert seen.cvalue == str(value)[: 2 * point.size], where
        elif point.shows == "fault_code" and not str(value).isdigit():
            assert seen.cvalue is None, where  # the model has a number there, and the device reports a text
        else:
            got = seen.cvalue  # which finds its scale factor
            factor = seen.sf_value if seen.sf_value is not None else point.exponent
            wanted = value * CONVERTED.get((known.unit, point.unit), 1)
            tolerance = abs(wanted) * 1e-6 if point.type is Type.FLOAT32 else 10.0**factor * 0.5 + 1e-9
            assert got == pytest.approx(wanted, abs=tolerance), where
        compared += 1
    return compared


@pytest.fixture
async def served(tmp_path):
    async with serving(tmp_path, devices=DEVICES, control=CONTROL, maps=("sunspec",)) as served:
        yield served


async def publish(served, device, **values):
    await served.publish(device.serial, **(readings(device) | values))
    return readings(device) | values


async def scanned(served, device, **how):
    return await Scanned(served.port, served.bridge.units[device.serial]).scan(**how)


EXPECTED_IDS = {
    INVERTER.serial: [1, 103, 120, 121, 122, 123, 160, 701, 702, 703, 704, 124, 713, 802],
    SINGLE.serial: [1, 101, 120, 121, 122, 123, 160, 701, 702, 703, 704],
    LARGE.serial: [1, 103, 120, 121, 122, 123, 160, 701, 702, 703, 704],
    "battery-1": [1, 713, 802],
    "meter-1": [1, 203],
    "meter-2": [1, 201],
    "plant-1": [1, 203, 120, 121, 122, 123, 701, 702, 703, 704, 124, 713, 802],
    "fleet-1": [1, 103, 120, 121, 122, 123, 701, 702, 703, 704],
    "weather_station-1": [1, 307, 302, 303],
}


async def test_every_unit_is_scanned_and_shows_what_was_published(served):
    compared = {}
    for device in DEVICES:
        values = await publish(served, device)
        client = await scanned(served, device)
        assert client.ids == EXPECTED_IDS.get(device.serial, [1])
        for model in client.device.model_list:
            assert not model.error_info
            assert model.len == model.model_len or model.model_len + 2 == model.len
            compared[device.serial] = compared.get(device.serial, 0) + compare(model, values)
        common = client.model(1)
        assert (common.SN.cvalue, common.Mn.cvalue) == (device.serial, "GoodWe")
        assert common.Md.cvalue == (device.model or device.name)
        assert common.Opt.cvalue == device.kind
    assert compared[INVERTER.serial] > 40
    assert compared["meter-1"] >= 8
    assert compared["battery-1"] >= 8
    assert compared["weather_station-1"] == 6


async def test_what_follows_from_points(served):
    values = await publish(
        served, INVERTER, status="normal", battery_power=-1500.0, battery_soc=50.0, active_power_limit=100.0
    )
    client = await scanned(served, INVERTER)
    amps = sum(values[f"l{n}_current"] for n in (1, 2, 3))
    assert client.model(103).A.cvalue == pytest.approx(amps, abs=0.006)
    assert client.model(701).A.cvalue == pytest.approx(amps, abs=0.006)
    assert client.model(103).Hz.cvalue == values["l1_frequency"]
    assert client.model(103).St.cvalue == 4
    assert client.model(701).InvSt.cvalue == 3
    assert client.model(122).StorConn.cvalue == 7
    assert client.model(122).Tms.cvalue == pytest.approx(served.bench.clock.now().timestamp() - 946_684_800, abs=60)
    assert client.model(124).ChaState.cvalue == 50
    assert client.model(124).ChaSt.cvalue == client.model(802).ChaSt.cvalue == 4
    assert client.model(120).WRtg.cvalue == client.model(121).WMax.cvalue == client.model(702).WMax.cvalue == 10_000
    assert client.model(124).WChaMax.cvalue == client.model(702).WChaRteMax.cvalue == 5_000
    modules = client.model(160).groups["module"]
    assert [module.ID.cvalue for module in modules] == [1, 2, 3, 4, 5, 6]
    names = ["MPPT 1", "MPPT 2", "StCha 3", "StDisCha 4", "MPPT 3", "MPPT 4"]
    assert [module.IDStr.cvalue for module in modules] == names
    for n, string in enumerate([*modules[:2], *modules[4:]], 1):
        assert string.DCW.cvalue == pytest.approx(values[f"pv{n}_voltage"] * values[f"pv{n}_current"], abs=0.5)
    assert [module.DCW.cvalue for module in modules[2:4]] == [1500, 0]


async def test_what_is_not_there_is_not_implemented(served):
    await served.publish(INVERTER.serial, ac_power=500.0)
    client = await scanned(served, INVERTER)
    model = client.model(103)
    assert model.W.cvalue == 500
    assert [model.points[name].cvalue for name in ("AphA", "PhVphA", "Hz", "VA", "PF", "TmpCab", "St")] == [None] * 7
    assert not model.WH.cvalue
    assert client.model(701).TotWhInj.cvalue is None
    assert client.model(802).SoC.cvalue is None


async def test_signs(served):
    values = {"grid_power": 700.0, "grid_import_total": 12.5, "grid_export_total": 3.25}
    for serial in ("meter-1", "meter-2", "plant-1"):
        await served.publish(serial, **values)
        client = await Scanned(served.port, served.bridge.units[serial]).scan()
        model = client.device.model_list[1]
        assert model.W.cvalue == pytest.approx(700, abs=5)
        assert (model.TotWhImp.cvalue, model.TotWhExp.cvalue) == (12_500, 3_250)
    await served.publish(INVERTER.serial, battery_power=-800.0, battery_current=-2.0, ac_power=-300.0)
    client = await scanned(served, INVERTER)
    assert (client.model(802).W.cvalue, client.model(802).A.cvalue) == (-800, -2)
    assert client.model(103).W.cvalue == client.model(701).W.cvalue == -300


async def test_floats_by_option(tmp_path):
    async with serving(
        tmp_path, devices=(INVERTER, SINGLE, METER, PLANT), maps=[{"map": "sunspec", "as_float": True}]
    ) as served:
        for device, id_ in ((INVERTER, 113), (SINGLE, 111), (METER, 211), (PLANT, 213)):
            values = await publish(served, device)
            client = await scanned(served, device)
            assert id_ in client.ids
            assert not any(model.error_info for model in client.device.model_list)
            assert compare(client.model(id_), values) >= 8


async def test_scanning_again_and_after_a_restart_finds_the_same(tmp_path):
    found = []
    for seed in range(2):
        async with serving(tmp_path, devices=DEVICES, maps=("native", "sunspec")) as served:
            for again in range(2):
                shapes = {}
                for device in (INVERTER, LARGE, METER):
                    await served.publish(device.serial, **readings(device, seed * 2 + again))
                    client = await scanned(served, device)
                    shapes[device.serial] = [
                        (model.model_id, model.model_addr, model.model_len, point.pdef["name"], point.value)
                        for model in client.device.model_list
                        for point in model.points.values()
                        if point.pdef["type"] == "sunssf"
                    ]
                found.append((dict(served.bridge.units), shapes))
    assert all(one == found[0] for one in found)


# stale data


async def test_a_stale_device_can_be_scanned_by_its_headers_and_controlled(served):
    served.bench.publish(INVERTER.serial, age=3600, ac_power=500.0, battery_soc=50.0, active_power_limit=80.0)
    await until(lambda: served.bridge._devices[INVERTER.serial].updates > 1)
    client = await scanned(served, INVERTER, full_model_read=False)
    assert client.ids == EXPECTED_IDS[INVERTER.serial]
    assert not any(model.error_info for model in client.device.model_list)
    for id_ in (103, 122, 160, 701, 713, 802):
        with pytest.raises(ModbusClientException, match="Modbus exception 11"):
            await client.read(id_)
    for id_ in (1, 120, 121, 123, 702, 703, 704, 124):
        await client.read(id_)
    assert client.model(123).WMaxLimPct.cvalue == 80
    assert client.model(124).ChaState.cvalue is None
    await client.set(123, WMaxLimPct=60, WMaxLim_Ena=1)
    await until(lambda: [command.value for command in served.bench.controller.sent] == [60])


async def test_a_read_across_models_is_answered_while_it_touches_no_measurement(served):
    client = await RawClient.connect(served.port)
    try:
        unit = served.bridge.units[INVERTER.serial]
        assert (await client.raw(40_000, 72, unit=unit))[:4] == b"SunS"
        assert await client.refused(read(40_000, 73), unit=unit) == 0x0B
        assert await client.refused(read(40_121, 2), unit=unit) == 0x0B
        await client.raw(40_122, 62, unit=unit)
        await served.publish(INVERTER.serial, ac_power=1.0)
        for address in range(40_000, 40_778, 125):
            await client.raw(address, min(125, 40_778 - address), unit=unit)
        assert await client.refused(read(40_777, 2), unit=unit) == 2
        assert await client.refused(read(39_999, 1), unit=unit) == 2
    finally:
        await client.close()


async def test_with_sentinels_a_stale_device_is_scanned_whole(tmp_path):
    async with serving(tmp_path, devices=(INVERTER,), maps=("sunspec",), stale="sentinel") as served:
        served.bench.publish(INVERTER.serial, age=3600, **readings(INVERTER))
        await until(lambda: served.bridge._devices[INVERTER.serial].updates > 1)
        client = await scanned(served, INVERTER)
        assert client.ids == EXPECTED_IDS[INVERTER.serial]
        assert [client.model(103).points[name].cvalue for name in ("W", "A", "Hz")] == [None] * 3
        off, offline, disconnected = 1, 0, 1
        assert (client.model(103).St.cvalue, client.model(103).StVnd.cvalue) == (off, offline)
        assert (client.model(701).InvSt.cvalue, client.model(802).State.cvalue) == (0, disconnected)
        total = readings(INVERTER)["energy_total"] * 1000
        assert client.model(103).WH.cvalue == client.model(701).TotWhInj.cvalue == pytest.approx(total)
        assert client.model(802).SoC.cvalue is None
        assert client.model(160).groups["module"][0].DCW.cvalue is None
        assert client.model(120).WRtg.cvalue == 10_000


# control


async def test_a_limit_through_123_and_its_time_out(served):
    await publish(served, INVERTER, active_power_limit=100.0)
    client = await scanned(served, INVERTER)
    await client.set(123, WMaxLimPct=42.5, WMaxLimPct_RvrtTms=1)
    assert served.bench.controller.sent == []
    assert (await client.read(123)).WMaxLimPct.cvalue == 42.5
    await client.set(123, WMaxLim_Ena=1)
    await until(lambda: len(served.bench.controller.sent) == 2)
    assert [command.value for command in served.bench.controller.sent] == [42.5, 100.0]
    await publish(served, INVERTER, active_power_limit=100.0)
    async with asyncio.timeout(PATIENCE):
        while True:  # the order to go back is shown until it has ended
            model = await client.read(123)
            if (model.WMaxLimPct.cvalue, model.WMaxLim_Ena.cvalue) == (100, 0):
                break


async def test_a_limit_through_704(served):
    for device in (INVERTER, SINGLE, LARGE):
        await publish(served, device, active_power_limit=100.0)
        client = await scanned(served, device)
        served.bench.controller.sent.clear()
        await client.set(704, WMaxLimPct=35, WMaxLimPctRvrtTms=600, WMaxLimPctEna=1)
        await until(lambda: served.bench.controller.sent)
        (command,) = served.bench.controller.sent
        assert (command.serial, command.setpoint, command.value) == (device.serial, "active_power_limit", 35)
        assert (command.revert_after, command.revert_value) == (600, None)
        model = await client.read(704)
        assert (model.WMaxLimPct.cvalue, model.WMaxLimPctEna.cvalue, model.WMaxLimPctRvrtTms.cvalue) == (35, 1, 600)
        await client.set(704, WMaxLimPctEna=0)
        await until(lambda: len(served.bench.controller.sent) == 2)
        assert served.bench.controller.sent[1].value == 100


async def test_power_factor_and_reactive_power_through_704(served):
    await publish(served, LARGE, power_factor=1.0, reactive_power=0.0)
    client = await scanned(served, LARGE)
    await client.set(704, PFWInj__PF=0.9, PFWInj__Ext=1, PFWInjEna=1)
    await until(lambda: len(served.bench.controller.sent) == 1)
    await client.set(704, VarSetPct=-20, VarSetEna=1)
    await until(lambda: len(served.bench.controller.sent) == 2)
    assert [(command.setpoint, command.value) for command in served.bench.controller.sent] == [
        ("power_factor", -0.9),
        ("reactive_power", -20),
    ]


async def test_storage_through_124(tmp_path):
    able = msgspec.structs.replace(INVERTER, setpoints={**INVERTER.setpoints, "battery_reserve_soc": Range()})
    async with serving(tmp_path, control=CONTROL, maps=("sunspec",), devices=(able,)) as served:
        await served.publish(battery_mode="idle", battery_power_target=0.0)
        client = await scanned(served, able)
        await client.set(124, OutWRte=-50, InOutWRte_RvrtTms=300, StorCtl_Mod=2)
        mode, target = await until(lambda: len(served.bench.asked) == 2 and served.bench.asked)
        assert (mode.setpoint, mode.value, mode.revert_after) == ("battery_mode", "charge", 300)
        assert (target.setpoint, target.value, target.revert_after) == ("battery_power_target", 2_500, None)
        await client.set(124, MinRsvPct=25)
        reserve = (await until(lambda: served.bench.asked[2:]))[0]
        assert (reserve.setpoint, reserve.value) == ("battery_reserve_soc", 25)
        await client.set(124, StorCtl_Mod=0)
        back = (await until(lambda: served.bench.asked[3:]))[0]
        assert (back.setpoint, back.value) == ("battery_mode", "auto")


async def test_a_reserve_that_the_cloud_does_not_have_is_refused(served):
    await publish(served, INVERTER)
    client = await scanned(served, INVERTER)
    for id_, point in ((124, "MinRsvPct"), (802, "SoCRsvMin")):
        with pytest.raises(ModbusClientException, match="2"):
            await client.set(id_, **{point: 25})


async def test_what_a_device_does_not_take_is_refused(served):
    await publish(served, SINGLE)
    client = await scanned(served, SINGLE)
    for id_, point, value in ((123, "OutPFSet_Ena", 1), (704, "VarSetEna", 1), (121, "WMax", 100)):
        with pytest.raises(ModbusClientException, match="2"):
            await client.set(id_, **{point: value})
    meter_ = msgspec.structs.replace(METER)
    assert (await scanned(served, meter_, full_model_read=False)).ids == [1, 201]
