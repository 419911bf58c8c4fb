"""What setpoints mean, at every door: set, changed, cleared and reverted, and what power flows then.

A whole gateway over real sockets against the simulated cloud; the clients are those people use where there are any.
"""

import asyncio
import json
import math
import struct
from contextlib import asynccontextmanager
from functools import partial

import goodwe
import httpx
import paho.mqtt.publish
import pytest
from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP
from typer.testing import CliRunner

from gateway.api.registry import installed
from gateway.bridges.mqtt.sparkplug.schema import DataType, Payload
from gateway.cli import app
from gateway.run.app import Gateway
from gateway.run.settings import Config
from gateway.simulator import Simulator, SimulatorSettings
from tests.bridges.modbus.client import ModbusError, RawClient, read, write_many, write_one
from tests.kit.bench import until
from tests.kit.clock import NOON
from tests.kit.mosquitto import mosquitto
from tests.kit.ports import free_port
from tests.kit.process import PATIENCE
from tests.simulator.kit import HOUSE, HOUSE_SERIAL, PARK
from tests.system.conftest import AC_POWER

BATTERY, INVERTER = HOUSE_SERIAL, PARK.devices[0].serial
UNITS = {BATTERY: 247, INVERTER: 3}
OF = {BATTERY: HOUSE.id, INVERTER: PARK.id}
TOKEN = "a-token-of-the-walk-through-all-doors"
CONFIG = """\
gateway: {{id: walk}}
bridges:
  sems: {{type: open_api, {login}, url: "{url}", poll_interval: 1, calls_per_hour: 10000000}}
  mqtt: {{type: mqtt, host: 127.0.0.1, port: {mqtt}, home_assistant: {{enabled: true}}}}
  host:
    {{type: mqtt, host: 127.0.0.1, port: {mqtt}, payload: sparkplug, sparkplug: {{group: sems, node: walk}}}}
  web: {{type: web, port: {web}, tokens: {{walk: {{token: {token}, write: true}}}}}}
  modbus:
    type: modbus
    port: {modbus}
    maps: [native, sunspec, goodwe, own.csv]
    units: {{9010KETU218W0001: 247, 9050KMTU220W0001: 3}}
control:
  enabled: true
  max_per_minute: 1000
  writes_per_day: 100000
  verify_within: 0
  allow: [{{devices: ["*"], setpoints: {setpoints}}}]
"""
SETPOINTS = [
    "running", "active_power_limit", "reactive_power", "power_factor", "export_limit", "work_mode", "battery_mode",
    "battery_power_target", "battery_target_soc", "battery_reserve_soc",
]  # fmt: skip
DEVELOPER = "platform: developer, client_id: demo, client_secret: demo"
CLASSIC = "account: demo, password: demo"
OWN = """\
address,type,scale,point,access
20000,uint16,1,running,RW
20001,int16,0.1,active_power_limit,RW
20002,int16,0.1,reactive_power,RW
20003,int16,0.001,power_factor,RW
20004,uint32,1,export_limit,RW
20006,uint16,1,work_mode,RW
20007,uint16,1,battery_mode,RW
20008,uint32,1,battery_power_target,RW
20010,uint16,1,battery_target_soc,RW
20011,uint16,1,battery_reserve_soc,RW
"""
WORDS = {
    "battery_mode": ["idle", "charge", "discharge", "auto"],
    "work_mode": ["general", "off_grid", "backup", "eco", "peak_shaving", "self_use"],
}

pytestmark = pytest.mark.system


class Walk:
    """The gateway, the cloud, and what stands at both ends."""

    def __init__(self, file, gateway, simulator, ports):
        self.file, self.gateway, self.simulator, self.ports = file, gateway, simulator, ports

    def told(self, serial, setpoint):
        self.simulator.tasks.settle()
        return self.simulator.world.setpoints(serial).said()[setpoint]

    def power(self, serial, point):
        """W, now: of the device, or at the grid connection of its plant."""
        self.simulator.tasks.settle()
        return self.simulator.world.report(OF[serial] if point == "grid_power" else serial).values[point]

    async def comes(self, serial, setpoint, value):
        """Wait until the device was told this."""
        await until(lambda: self.told(serial, setpoint) == value)

    async def flows(self, serial, point, fits):
        await until(lambda: fits(self.power(serial, point)))

    async def shows(self, serial, setpoint, value):
        """Wait until the gateway shows it."""
        await until(lambda: self.gateway.router.state(serial).values.get(setpoint) == value)


@asynccontextmanager
async def walking(tmp_path, login=DEVELOPER):
    morning = NOON.replace(hour=8)
    calls = {"calls_per_hour": 0, "developer_calls_per_hour": 0}
    simulator = Simulator(SimulatorSettings(port=0, start=morning, device_delay=0, **calls))
    await simulator.start()
    simulator.tasks = simulator.cloud.tasks
    async with mosquitto(tmp_path) as broker:
        ports = {"mqtt": broker.port, "web": free_port(), "modbus": free_port()}
        (tmp_path / "own.csv").write_text(OWN)
        file = tmp_path / "config.yaml"
        text = CONFIG.format(login=login, url=simulator.url, token=TOKEN, setpoints=json.dumps(SETPOINTS), **ports)
        file.write_text(text)
        gateway = Gateway(Config.load(file, installed()))
        await gateway.start()
        mailbox = gateway.router.attach("walk")
        walk = Walk(file, gateway, simulator, ports)
        walk.events = []

        async def collect():
            while True:
                walk.events.extend((await mailbox.take()).events)

        collecting = asyncio.create_task(collect())
        try:
            await until(lambda: all((s := gateway.router.state(serial)) and s.quality == "good" for serial in UNITS))
            await until(lambda: all(bridge.up for bridge in gateway.router.bridges()))
            for serial in UNITS:  # a unit is written to once it shows its device: until then it answers 0A
                await laid_out(walk, serial)
            yield walk
        finally:
            collecting.cancel()
            await gateway.stop()
            await simulator.stop()


# doors: (walk, serial, setpoint, value, revert_after) → done


async def by_mqtt(walk, serial, setpoint, value, after=None):
    """An object of several; `none` as JSON's null."""
    body = {setpoint: None if value == "none" else value} | ({"revert_after": after} if after else {})
    await publish(walk, f"sems/{serial}/set", json.dumps(body))


async def by_topic(walk, serial, setpoint, value, after=None):
    """One value in a topic of its own; `none` as a text."""
    body = json.dumps({"value": value, "revert_after": after}) if after else str(value).lower()
    await publish(walk, f"sems/{serial}/set/{setpoint}", body)


async def by_sparkplug(walk, serial, setpoint, value, after=None):
    assert not after, "Sparkplug has no dead-man's timer"
    payload = Payload(timestamp=1, seq=0)
    metric = payload.metrics.add(name=setpoint, timestamp=1)
    if value == "none":
        metric.is_null = True
    elif isinstance(value, bool):
        metric.datatype, metric.boolean_value = DataType.BOOLEAN, value
    elif isinstance(value, str):
        metric.datatype, metric.string_value = DataType.STRING, value
    else:
        metric.datatype, metric.double_value = DataType.DOUBLE, value
    await publish(walk, f"spBv1.0/sems/DCMD/walk/{serial}", payload.SerializeToString())


async def by_home_assistant(walk, serial, setpoint, value, after=None):
    """As its entities send it: the number, select or switch, and the button that clears."""
    assert not after, "Home Assistant has no dead-man's timer"
    body = json.dumps({"value": value})  # what command_template makes of it; the button's press is a value too
    await publish(walk, f"sems/{serial}/set/{setpoint}", body)


async def by_http(walk, serial, setpoint, value, after=None):
    body = {"setpoint": setpoint, "value": None if value == "none" else value}
    body |= {"revert_after": after} if after else {}
    async with httpx.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        url = f"http://127.0.0.1:{walk.ports['web']}/api/v1/devices/{serial}/set"
        answer = await http.post(url, json=body)
    assert answer.status_code in (200, 202), answer.text


async def by_terminal(walk, serial, setpoint, value, after=None):
    """The command line, through the local socket."""
    words = ["send", str(walk.file), serial, setpoint, *(["--revert-after", str(after)] if after else [])]
    done = await asyncio.to_thread(CliRunner().invoke, app, [*words, "--", str(value).lower()])
    assert done.exit_code == 0, done.output


SCALES = {"running": 1, "active_power_limit": 10, "reactive_power": 10, "power_factor": 1000, "export_limit": 0.1,
          "work_mode": 1, "battery_mode": 1, "battery_power_target": 0.1, "battery_target_soc": 10,
          "battery_reserve_soc": 10}  # fmt: skip
PLACES = dict(zip([*SCALES][:-1], range(9), strict=True)) | {"battery_reserve_soc": 10}
NONES = {"export_limit": 0xFFFE, "battery_power_target": 0xFFFE}


async def by_native(walk, serial, setpoint, value, after=None):
    assert not after, "the native map has no dead-man's timer"
    number = NONES.get(setpoint, 0x7FFF) if value == "none" else raw(setpoint, value, SCALES[setpoint])
    await modbus(walk, serial, write_one(5800 + PLACES[setpoint], number))


async def by_csv(walk, serial, setpoint, value, after=None):
    assert not after, "a map of one's own has no dead-man's timer"
    rows = {line.split(",")[3]: line.split(",") for line in OWN.splitlines()[1:]}
    address, type_, scale = rows[setpoint][:3]
    nones = {"uint32": 0xFFFF_FFFE, "uint16": 0xFFFE, "int16": 0x7FFF}
    number = nones[type_] if value == "none" else raw(setpoint, value, 1 / float(scale))
    long = type_ == "uint32"
    pdu = write_many(int(address), number.to_bytes(4, "big")) if long else write_one(int(address), number)
    await modbus(walk, serial, pdu)


def raw(setpoint, value, scale):
    number = WORDS[setpoint].index(value) if setpoint in WORDS else value
    return round(number * scale) & (0xFFFF if scale != 1 or number < 0 else 0xFFFF_FFFF)


async def publish(walk, topic, payload):
    await asyncio.to_thread(paho.mqtt.publish.single, topic, payload, 1, False, "127.0.0.1", walk.ports["mqtt"])


async def modbus(walk, serial, pdu):
    client = await RawClient.connect(walk.ports["modbus"])
    try:
        return await client.ask(pdu, unit=UNITS[serial])
    finally:
        await client.close()


async def laid_out(walk, serial):
    """Wait until the Modbus bridge shows what the router knows."""
    client = await RawClient.connect(walk.ports["modbus"])

    async def shows_power():
        try:
            answer = await client.ask(read(AC_POWER, 2), unit=UNITS[serial])
        except ModbusError:
            return False
        return not math.isnan(struct.unpack(">f", answer[2:])[0])

    try:
        async with asyncio.timeout(PATIENCE):
            while not await shows_power():
                await asyncio.sleep(0.05)
    finally:
        await client.close()


async def by_sunspec(walk, serial, setpoint, value, after=None):
    """pysunspec2."""
    device = walk.__dict__.setdefault("scanned", {}).get(serial)
    if device is None:
        device = SunSpecModbusClientDeviceTCP(
            slave_id=UNITS[serial], ipaddr="127.0.0.1", ipport=walk.ports["modbus"], timeout=120
        )
        await asyncio.to_thread(device.scan)
        walk.scanned[serial] = device
    for id_, point, cvalue in SUNSPEC[setpoint](value, after):
        await asyncio.to_thread(write_point, device.models[id_][0].points[point], cvalue)


def write_point(point, value):
    point.cvalue = value
    point.write()


def switched(point, enable, timer, neutral, value, after):
    if value == neutral and not after:
        return [(123, enable, 0)]
    return [(123, timer, after or 0), (123, point, value), (123, enable, 1)]


def stored(value, after):
    if value == "auto":
        return [(124, "StorCtl_Mod", 0)]
    mode, rate = {"charge": (2, "OutWRte"), "discharge": (1, "InWRte")}[value]
    return [(124, "InOutWRte_RvrtTms", after or 0), (124, rate, -60), (124, "StorCtl_Mod", mode)]


SUNSPEC = {
    "running": lambda value, after: [(123, "Conn_RvrtTms", after or 0), (123, "Conn", int(value))],
    "active_power_limit": partial(switched, "WMaxLimPct", "WMaxLim_Ena", "WMaxLimPct_RvrtTms", 100),
    # OutPFSet has the EEI's sign: over-excited is < 0.
    "power_factor": lambda value, after: switched(
        "OutPFSet", "OutPFSet_Ena", "OutPFSet_RvrtTms", 1, 1 if value == 1 else -value, after
    ),
    "reactive_power": partial(switched, "VArWMaxPct", "VArPct_Ena", "VArPct_RvrtTms", 0),
    "battery_mode": stored,
    "battery_reserve_soc": lambda value, _: [(124, "MinRsvPct", 0 if value == "none" else value)],
}


async def by_goodwe(walk, serial, setpoint, value, after=None):
    """The library `goodwe`, as it writes settings."""
    assert not after, "GoodWe's registers have no dead-man's timer"
    inverter = await goodwe.connect(
        "127.0.0.1", walk.ports["modbus"], family="ET", comm_addr=UNITS[serial], timeout=120, retries=0
    )
    try:
        match setpoint:
            case "export_limit" if value == "none":
                await inverter.write_setting("grid_export", 0)
            case "export_limit":
                await inverter.write_setting("grid_export_limit", value)
                await inverter.write_setting("grid_export", 1)
            case "battery_mode":
                mode = {"auto": 1, "idle": 8, "charge": 11, "discharge": 12}[value]
                await inverter.set_ems_mode(goodwe.EMSMode(mode), 3000 if mode > 8 else None)
            case "work_mode":
                await inverter.write_setting("work_mode", WORDS["work_mode"].index(value))
    finally:
        await inverter._protocol.close()


DOORS = {
    door.__name__.removeprefix("by_"): door
    for door in (by_mqtt, by_topic, by_sparkplug, by_home_assistant, by_http, by_terminal, by_native, by_csv,
                 by_sunspec, by_goodwe)
}  # fmt: skip
TIMERS = {"mqtt", "topic", "http", "terminal", "sunspec"}
"""Doors that have a dead-man's timer."""


def near(watts, slack=150.0):
    return lambda power: abs(power - watts) <= slack


# setpoint → device, steps: value → point and what flows; the last clears, and is what a revert comes to
STEPS = {
    "running": (INVERTER, [(False, "ac_power", near(0)), (True, "ac_power", lambda w: w > 20_000)]),
    "active_power_limit": (
        INVERTER,
        [(30.0, "ac_power", near(15_000)), (20.0, "ac_power", near(10_000)), (100.0, "ac_power", lambda w: w > 20_000)],
    ),
    "reactive_power": (
        INVERTER,
        [
            (30.0, "ac_reactive_power", near(15_000)),
            (-30.0, "ac_reactive_power", near(-15_000)),
            (0.0, "ac_reactive_power", lambda var: abs(var) < 2_000),
        ],
    ),
    "power_factor": (
        INVERTER,
        [
            (0.9, "ac_reactive_power", lambda var: var > 10_000),
            (-0.9, "ac_reactive_power", lambda var: var < -10_000),
            (1.0, "ac_reactive_power", lambda var: abs(var) < 2_000),
        ],
    ),
    "export_limit": (
        INVERTER,
        [
            (5_000.0, "grid_power", near(-5_000)),
            (8_000.0, "grid_power", near(-8_000)),
            ("none", "grid_power", lambda w: w < -50_000),
        ],
    ),
    "work_mode": (
        BATTERY,
        [("backup", "battery_power", near(-5_000)), ("general", "battery_power", lambda w: w > -4_900)],
    ),
    "battery_mode": (
        BATTERY,
        [
            ("charge", "battery_power", lambda w: w < -2_800),
            ("discharge", "battery_power", lambda w: w > 2_800),
            ("auto", "battery_power", lambda w: -2_700 < w < 2_700),
        ],
    ),
    "battery_reserve_soc": (
        BATTERY,
        [(100.0, "battery_power", lambda w: w <= 0), (50.0, "battery_power", bool), ("none", "battery_power", bool)],
    ),
}


def able(door, setpoint):
    if door == "goodwe":
        return setpoint in {"battery_mode", "work_mode"}  # the inverter of 50 kW is none that this library can read
    return door != "sunspec" or setpoint in SUNSPEC


async def test_each_setpoint_is_set_changed_cleared_and_reverted_at_each_door(tmp_path):
    """Door by door, at one gateway: what the door before left is what this one begins with."""
    async with walking(tmp_path) as walk:
        for door in DOORS:
            for setpoint, (serial, steps) in STEPS.items():
                if able(door, setpoint):
                    await set_changed_and_cleared(walk, door, setpoint, serial, steps)
            if door in TIMERS:
                await all_reverted(walk, door)


async def set_changed_and_cleared(walk, door, setpoint, serial, steps):
    for value, point, fits in steps:
        await DOORS[door](walk, serial, setpoint, value)
        await walk.comes(serial, setpoint, value)
        if fits is not bool:
            await walk.flows(serial, point, fits)
        await walk.shows(serial, setpoint, value)


async def all_reverted(walk, door):
    """Each setpoint has its own timer; they run at the same time, and come back one after the other."""
    timed = {name: of for name, of in STEPS.items() if name != "battery_reserve_soc" and able(door, name)}
    for setpoint, (serial, steps) in timed.items():
        await DOORS[door](walk, serial, setpoint, steps[0][0], 2)
        await walk.comes(serial, setpoint, steps[0][0])
    for setpoint, (serial, steps) in timed.items():
        cleared, _, _ = steps[-1]
        await walk.comes(serial, setpoint, cleared)
    for serial, steps in timed.values():
        _, point, fits = steps[-1]
        await walk.flows(serial, point, fits)


# C9, C12, C13, C14 of the trials


async def ended(walk, command_id):
    """Return how a command that was given by MQTT has ended."""
    await until(lambda: any(e.command.id == command_id and e.state.final for e in walk.events))
    return next(e for e in walk.events if e.command.id == command_id and e.state.final)


async def give(walk, serial, id_, **values):
    """Set several setpoints by one request; return how each has ended."""
    await publish(walk, f"sems/{serial}/set", json.dumps({"id": id_, **values}))
    setpoints = [name for name in values if name in SETPOINTS]
    ids = [id_] if len(setpoints) == 1 else [f"{id_}/{name}" for name in setpoints]
    return [await ended(walk, each) for each in ids]


SELF_USE = range(-2_700, -1_500)
"""W of the battery that morning, without an order: it stores the surplus."""


def itself(watts):
    return round(watts) in SELF_USE


@pytest.mark.parametrize("login", [DEVELOPER, CLASSIC], ids=["developer", "classic"])
async def test_c9_a_battery_is_handed_back(tmp_path, login):
    """A dead-man's timer, StorCtl_Mod 0, 47511 = 1 and `auto`: after each the battery follows its own control."""
    async with walking(tmp_path, login) as walk:
        await walk.flows(BATTERY, "battery_power", itself)
        for door, after in (("mqtt", 2), ("sunspec", None), ("goodwe", None), ("topic", None)):
            await DOORS[door](walk, BATTERY, "battery_mode", "charge", after)
            await walk.flows(BATTERY, "battery_power", lambda watts: watts < -2_900)
            if not after:
                await DOORS[door](walk, BATTERY, "battery_mode", "auto")
            await walk.comes(BATTERY, "battery_mode", "auto")
            await walk.flows(BATTERY, "battery_power", itself)
            await walk.shows(BATTERY, "battery_mode", "auto")


@pytest.mark.parametrize("login", [DEVELOPER, CLASSIC], ids=["developer", "classic"])
async def test_c9_an_order_ends_by_itself_when_the_gateway_is_dead(tmp_path, login):
    async with walking(tmp_path, login) as walk:
        await give(walk, BATTERY, "a", battery_mode="charge", battery_power_target=4000, revert_after=3)
        await walk.flows(BATTERY, "battery_power", near(-4_000))
        await walk.gateway.stop()
        walk.gateway.stop = nothing
        await walk.flows(BATTERY, "battery_power", itself)
        assert walk.told(BATTERY, "battery_mode") == "auto"


async def nothing():
    """It was stopped already."""


async def test_c9_an_order_whose_timer_is_refreshed_goes_on_beyond_its_window(tmp_path):
    """A SCADA that writes the same again costs no call, so the gateway sees to it that the cloud's window goes on."""
    async with walking(tmp_path) as walk:
        began = asyncio.get_running_loop().time()
        n = 0
        while asyncio.get_running_loop().time() < began + 9:
            await give(walk, BATTERY, f"a{n}", battery_mode="charge", revert_after=4)
            n += 1
            assert walk.told(BATTERY, "battery_mode") == "charge"
        assert walk.power(BATTERY, "battery_power") < -4_900
        await walk.comes(BATTERY, "battery_mode", "auto")


async def test_c12_a_setting_of_an_order_starts_none(tmp_path):
    """A target or a power alone leaves the battery to itself; the next order takes them up."""
    async with walking(tmp_path) as walk:
        for setpoint, value in (("battery_target_soc", 50), ("battery_power_target", 1000)):
            [end] = await give(walk, BATTERY, setpoint, **{setpoint: value})
            assert end.state == "succeeded"
            assert walk.told(BATTERY, "battery_mode") == "auto"
            assert itself(walk.power(BATTERY, "battery_power"))
        await give(walk, BATTERY, "power", battery_power_target=3000)
        await give(walk, BATTERY, "soc", battery_target_soc=90)
        await give(walk, BATTERY, "mode", battery_mode="charge")
        await walk.flows(BATTERY, "battery_power", near(-3_000))
        assert walk.told(BATTERY, "battery_target_soc") == 90
        await give(walk, BATTERY, "more", battery_power_target=4000)
        await walk.flows(BATTERY, "battery_power", near(-4_000))
        await give(walk, BATTERY, "any", battery_power_target=None)
        await walk.flows(BATTERY, "battery_power", near(-5_000))


@pytest.mark.parametrize("modes", [("charge", "discharge"), ("discharge", "charge")], ids="-".join)
async def test_c12_what_an_order_left_open_does_not_follow_into_the_next(tmp_path, modes):
    """A target of 100 % that `charge` had would end `discharge` at once, and the other way round."""
    watts = {"charge": -5_000, "discharge": 5_000}
    targets = {"charge": 100, "discharge": 0}
    async with walking(tmp_path) as walk:
        for n, mode in enumerate(modes):
            await give(walk, BATTERY, f"m{n}", battery_mode=mode)
            await walk.flows(BATTERY, "battery_power", near(watts[mode]))
            assert walk.told(BATTERY, "battery_target_soc") == targets[mode]
        # Long enough that the cloud's word of it has been read.
        await walk.shows(BATTERY, "battery_mode", modes[1])
        await give(walk, BATTERY, "again", battery_mode=modes[0])
        await walk.flows(BATTERY, "battery_power", near(watts[modes[0]]))
        assert walk.told(BATTERY, "battery_target_soc") == targets[modes[0]]


async def test_c12_mode_power_and_target_of_one_request_are_one_call(tmp_path):
    async with walking(tmp_path) as walk:
        order = {"battery_mode": "discharge", "battery_power_target": 2000, "battery_target_soc": 20}
        ends = await give(walk, BATTERY, "o", **order)
        assert {end.state for end in ends} == {"succeeded"}
        await walk.flows(BATTERY, "battery_power", near(2_000))
        calls = [c for c in walk.simulator.cloud.controls if "battery_mode" in c.setpoints]
        assert [dict(call.setpoints) for call in calls] == [order]


async def test_c12_a_reserve_holds_against_an_order_and_starts_none(tmp_path):
    async with walking(tmp_path) as walk:
        await by_sunspec(walk, BATTERY, "battery_reserve_soc", 99)
        await walk.comes(BATTERY, "battery_reserve_soc", 99)
        assert itself(walk.power(BATTERY, "battery_power"))
        await give(walk, BATTERY, "d", battery_mode="discharge")
        await walk.flows(BATTERY, "battery_power", near(0))
        await by_sunspec(walk, BATTERY, "battery_reserve_soc", "none")
        await walk.comes(BATTERY, "battery_reserve_soc", "none")
        await walk.flows(BATTERY, "battery_power", near(5_000))


async def test_c13_no_limit_is_a_value_at_every_door(tmp_path):
    """And a state tells it from what is not known."""
    async with walking(tmp_path) as walk:
        for door in ("mqtt", "topic", "home_assistant", "http", "terminal", "native", "csv"):
            await DOORS[door](walk, INVERTER, "export_limit", 5_000)
            await walk.flows(INVERTER, "grid_power", near(-5_000))
            await DOORS[door](walk, INVERTER, "export_limit", "none")
            await walk.flows(INVERTER, "grid_power", lambda watts: watts < -50_000)
            await walk.shows(INVERTER, "export_limit", "none")
        await publish(walk, f"sems/{INVERTER}/set/export_limit", "")
        [end] = await give(walk, INVERTER, "later", export_limit=4_000, revert_after=2)
        assert end.state == "succeeded"
        await walk.comes(INVERTER, "export_limit", 4_000)
        await walk.comes(INVERTER, "export_limit", "none")


async def test_c14_a_power_factor_that_no_inverter_takes_is_refused_at_every_door(tmp_path):
    async with walking(tmp_path) as walk:
        before = walk.power(INVERTER, "ac_power")
        for n, factor in enumerate((0, 0.5, -0.79)):
            [end] = await give(walk, INVERTER, f"f{n}", power_factor=factor)
            assert (end.state, end.reason) == ("rejected", "out_of_range")
        for door in ("native", "csv", "sunspec", "http", "terminal"):
            with pytest.raises(Exception):  # noqa: B017 - each client has its own
                await DOORS[door](walk, INVERTER, "power_factor", 0.5)
        assert walk.power(INVERTER, "ac_power") > before - 3_000
        assert walk.told(INVERTER, "power_factor") == 1
        await give(walk, INVERTER, "one", power_factor=1)
        [end] = await give(walk, INVERTER, "minus", power_factor=-1)
        assert end.state == "succeeded"
