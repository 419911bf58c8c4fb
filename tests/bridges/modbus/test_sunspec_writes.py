"""Controls through models 123, 124 and 704: latched as written, applied when enabled, in force or let go."""

import asyncio
import struct
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.bridges.modbus.codec import WordOrder
from gateway.bridges.modbus.image import Image
from gateway.bridges.modbus.maps.sunspec import SunSpecFamily
from gateway.bridges.modbus.settling import WriteRefusedError
from gateway.bridges.modbus.writes import setpoint_requests
from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.controller import Outcome
from gateway.core.model import Command, CommandEvent, CommandState, DeviceState, Quality, Range
from gateway.core.points import SETPOINTS
from tests.bridges.modbus.client import write_many, write_one
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import INVERTER, until

ALL = msgspec.structs.replace(
    INVERTER,
    setpoints={
        "running": Range(),
        "active_power_limit": Range(0, 100),
        "reactive_power": Range(-60, 60),
        "power_factor": Range(-1, 1),
        "battery_mode": Range(),
        "battery_power_target": Range(0, 5_000),
        "battery_target_soc": Range(10, 100),
        "battery_reserve_soc": Range(0, 100),
    },
)
CONTROL = ControlSettings(
    enabled=True, allow=[Rule(devices=["*"], setpoints=list(ALL.setpoints))], max_per_minute=100_000
)
ADDRESSES = {
    row.text.removeprefix("model ").replace(", ", "."): row
    for row in SunSpecFamily(WordOrder.ABCD).layout(ALL).map.rows
}
IN_FORCE = {
    "running": True,
    "active_power_limit": 100.0,
    "reactive_power": 0.0,
    "power_factor": 1.0,
    "battery_mode": "idle",
    "battery_power_target": 0.0,
    "battery_target_soc": 20.0,
    "battery_reserve_soc": "none",
}


class Remote:
    """A client that knows registers by their names."""

    def __init__(self, served, client):
        self.served = served
        self.client = client

    @property
    def sent(self):
        return [(command.setpoint, command.value) for command in self.served.bench.asked]

    @property
    def commands(self):
        return self.served.bench.asked

    async def read(self, name):
        row = ADDRESSES[name]
        return int.from_bytes(await self.client.raw(row.address, row.count), "big")

    async def reads(self, *names):
        return [await self.read(name) for name in names]

    async def write(self, name, value):
        await self.client.ask(self.request(name, value))

    async def refused(self, name, value):
        return await self.client.refused(self.request(name, value))

    def request(self, name, value):
        row = ADDRESSES[name]
        if row.count == 1:
            return write_one(row.address, value & 0xFFFF)
        return write_many(row.address, struct.pack(">i" if value < 0 else ">I", value))

    async def reaches(self, name, value):
        async with asyncio.timeout(120):
            while await self.read(name) != value:
                await asyncio.sleep(0.01)

    async def count(self, n):
        await until(lambda: len(self.sent) == n, f"{n} sent, not {self.sent}")


@asynccontextmanager
async def remote_of(tmp_path, device=ALL, control=CONTROL, values=IN_FORCE, **settings):
    async with serving(tmp_path, devices=(device,), control=control, maps=("sunspec",), **settings) as served:
        await served.publish(ac_power=1, **values)
        async with served.client() as client:
            yield Remote(served, client)


@pytest.fixture
async def remote(tmp_path):
    async with remote_of(tmp_path) as remote:
        yield remote


LIMIT = ("123.WMaxLimPct", "123.WMaxLim_Ena")


async def test_a_value_waits_for_its_enable(remote):
    await remote.write("123.WMaxLimPct", 5000)
    await remote.write("123.WMaxLimPct_RvrtTms", 30)
    assert await remote.reads(*LIMIT, "123.WMaxLimPct_RvrtTms") == [5000, 0, 30]
    assert remote.sent == []
    await remote.served.publish(ac_power=2, **IN_FORCE)
    assert await remote.reads(*LIMIT) == [5000, 0]
    await remote.write("123.WMaxLim_Ena", 1)
    await remote.count(1)
    assert remote.sent == [("active_power_limit", 50.0)]
    assert remote.commands[0].revert_after == 30
    assert await remote.reads(*LIMIT) == [5000, 1]
    await remote.reaches("704.WMaxLimPct", 5000)
    assert await remote.reads("704.WMaxLimPctEna", *LIMIT) == [1, 5000, 1]


async def test_a_value_written_while_enabled_applies_at_once_and_disabling_lifts_it(remote):
    await remote.write("123.WMaxLim_Ena", 1)
    for n, limit in enumerate((40, 100, 60), 1):
        await remote.write("123.WMaxLimPct", limit * 100)
        await remote.count(n)
    assert remote.sent == [("active_power_limit", limit) for limit in (40, 100, 60)]
    await remote.reaches("704.WMaxLimPct", 6000)
    await remote.write("123.WMaxLim_Ena", 0)
    await remote.count(4)
    assert remote.sent[-1] == ("active_power_limit", 100)
    await remote.reaches("704.WMaxLimPct", 10_000)
    assert await remote.reads(*LIMIT) == [6000, 0]


async def test_a_whole_group_in_one_request(remote):
    row = ADDRESSES["123.WMaxLimPct"]
    await remote.client.ask(write_many(row.address, struct.pack(">5H", 2500, 0, 60, 0, 1)))
    await remote.count(1)
    assert (remote.sent, remote.commands[0].revert_after) == ([("active_power_limit", 25.0)], 60)


async def test_all_or_nothing(remote):
    row = ADDRESSES["123.WMaxLimPct"]
    for payload, code in (
        ((2500, 0, 60, 0, 2), 3),
        ((10_001, 0, 60, 0, 0), 3),
    ):
        assert await remote.client.refused(write_many(row.address, struct.pack(">5H", *payload))) == code
    assert await remote.client.refused(write_many(row.address - 5, struct.pack(">6H", *range(6)))) == 2
    assert await remote.reads(*LIMIT, "123.WMaxLimPct_RvrtTms") == [10_000, 0, 0]
    assert remote.sent == []


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("103.ID", 1, 2), ("103.W_SF", 1, 2), ("123.WMaxLimPct_SF", 1, 2), ("120.WHRtg", 1, 2), ("mark", 1, 2),
        ("704.WSetEna", 1, 2), ("704.PFWAbsEna", 1, 2), ("123.VArAvalPct", 1, 2), ("802.SetOp", 1, 2),
        ("123.WMaxLim_Ena", 2, 3), ("123.Conn", 2, 3), ("123.OutPFSet", 1001, 3), ("123.VArPct_Mod", 0, 3),
        ("123.VArPct_Mod", 3, 3), ("123.VArWMaxPct", 10_001, 3), ("124.StorCtl_Mod", 4, 3), ("124.InWRte", -10_001, 3),
        ("124.OutWRte", 10_001, 3), ("124.ChaGriSet", 2, 3),
        ("124.MinRsvPct", 10_001, 3), ("802.SoCRsvMin", 10_001, 3), ("704.PFWInj.PF", 1001, 3),
        ("704.PFWInj.PF", 799, 3), ("123.OutPFSet", 0, 3), ("123.OutPFSet", 7_999, 3),
        ("704.WMaxLimPctRvrt", 10_001, 3),
        ("704.WMaxLimPctEnaRvrt", 2, 3),
    ],
)  # fmt: skip
async def test_what_is_refused(remote, name, value, code):
    assert await remote.refused(name, value) == code
    assert remote.sent == []


async def test_half_of_a_value_is_refused(remote):
    row = ADDRESSES["704.WMaxLimPctRvrtTms"]
    assert await remote.client.refused(write_one(row.address, 1)) == 3
    assert await remote.client.refused(write_one(row.address + 1, 1)) == 3


async def test_what_the_policy_refuses_is_not_latched(tmp_path):
    narrow = ControlSettings(
        enabled=True, allow=[Rule(devices=["*"], setpoints=["active_power_limit"], min=30)], max_per_minute=1000
    )
    async with remote_of(tmp_path, control=narrow) as remote:
        await remote.write("123.WMaxLim_Ena", 1)
        assert await remote.refused("123.WMaxLimPct", 2000) == 3
        assert await remote.reads(*LIMIT) == [10_000, 0]
        assert remote.sent == []
        assert await remote.refused("123.Conn", 0) == 2
        assert await remote.read("123.Conn") == 1


async def test_setpoints_a_device_does_not_take_are_not_offered(tmp_path):
    plain = msgspec.structs.replace(ALL, setpoints={"active_power_limit": Range(0, 100)})
    async with remote_of(tmp_path, device=plain) as remote:
        for name in ("123.Conn", "123.OutPFSet", "123.VArWMaxPct", "124.StorCtl_Mod", "124.MinRsvPct", "704.VarSetEna"):
            assert await remote.refused(name, 1) == 2
            assert await remote.read(name) in {0xFFFF, 0x8000}
        await remote.write("704.WMaxLimPctEna", 1)


async def test_enabling_what_has_no_value_asks_for_nothing(tmp_path):
    enables = ("123.WMaxLim_Ena", "123.OutPFSet_Ena", "123.VArPct_Ena", "704.PFWInjEna", "704.VarSetEna")
    async with remote_of(tmp_path, values={}) as remote:
        assert await remote.reads(*LIMIT) == [0xFFFF, 0]
        for name in enables:
            await remote.write(name, 1)  # the value may follow
        for name in enables:
            await remote.reaches(name, 0)
        assert remote.sent == []


async def test_a_failed_command_is_not_shown_as_in_force(remote):
    remote.served.bench.controller.outcomes.append(Outcome(CommandState.FAILED, "the cloud said no"))
    await remote.write("123.WMaxLimPct", 3000)
    await remote.write("123.WMaxLimPct_RvrtTms", 15)
    await remote.write("123.WMaxLim_Ena", 1)
    await remote.reaches("123.WMaxLim_Ena", 0)
    assert await remote.reads(*LIMIT, "123.WMaxLimPct_RvrtTms") == [10_000, 0, 15]


async def test_the_end_of_an_older_command_does_not_touch_a_newer_write(remote):
    gate = remote.served.bench.controller.gate
    gate.clear()
    await remote.write("123.WMaxLimPct", 3000)
    await remote.write("123.WMaxLim_Ena", 1)
    await remote.count(1)
    await remote.write("123.WMaxLimPct", 2000)
    gate.set()
    await remote.count(2)
    await remote.reaches("704.WMaxLimPct", 2000)
    assert await remote.reads(*LIMIT) == [2000, 1]


def test_what_ends_before_an_accepted_command_was_heard_of_is_older(clocked):
    family, image, write = clocked
    write("123.WMaxLimPct", 3000)
    write("123.WMaxLim_Ena", 1)
    image.controls.note(step("old", CommandState.SUCCEEDED))
    show(family, image, IN_FORCE)
    assert shown_limit(image) == (3000, 1)
    image.controls.note(step("new", CommandState.ACCEPTED))
    image.controls.note(step("old", CommandState.FAILED))
    show(family, image, IN_FORCE)
    assert shown_limit(image) == (3000, 1)
    image.controls.note(step("new", CommandState.FAILED))
    show(family, image, IN_FORCE)
    assert shown_limit(image) == (10_000, 0)
    image.controls.note(msgspec.structs.replace(step("x", CommandState.ACCEPTED), command=other_command()))


def test_a_command_that_ended_before_its_acceptance_was_heard_of_is_let_go(clocked):
    family, image, write = clocked
    write("123.WMaxLimPct", 3000)
    image.controls.latch(written(image, ADDRESSES["123.WMaxLim_Ena"].address, struct.pack(">H", 1)))
    (due,), _ = image.controls.due()
    image.controls.leaves(named(due.requests))
    image.controls.note(step("new", CommandState.ACCEPTED))
    image.controls.note(step("new", CommandState.FAILED))
    image.controls.taken(due.model)
    show(family, image, IN_FORCE)
    assert shown_limit(image) == (10_000, 0)


def test_what_is_in_force_without_a_value_is_let_go(clocked):
    family, image, write = clocked
    write("704.VarSetPct", 2000)
    write("704.VarSetEna", 1)
    image.controls.note(step("new", CommandState.ACCEPTED, "reactive_power"))
    write("704.VarSetMod", 2, refused=True)
    image.controls.note(step("new", CommandState.FAILED, "reactive_power"))
    show(family, image, {"active_power_limit": None})
    row = ADDRESSES["704.VarSetEna"]
    assert image.data[2 * (row.address - 40_000) + 1] == 0


async def test_while_a_command_is_under_way_what_was_written_is_shown(remote):
    remote.served.bench.controller.gate.clear()
    await remote.write("123.WMaxLimPct", 3000)
    await remote.write("123.WMaxLim_Ena", 1)
    await remote.count(1)
    await remote.served.publish(ac_power=3, **IN_FORCE)
    assert await remote.reads(*LIMIT) == [3000, 1]
    remote.served.bench.controller.gate.set()
    await remote.reaches("704.WMaxLimPct", 3000)
    assert await remote.reads(*LIMIT) == [3000, 1]


async def test_what_somebody_else_sets_is_shown(remote):
    await remote.write("123.WMaxLimPct", 3000)
    await remote.write("123.WMaxLim_Ena", 1)
    await remote.reaches("704.WMaxLimPct", 3000)
    await remote.served.bench.dispatcher.submit(remote.served.bench.command(value=80))
    await remote.reaches("123.WMaxLimPct", 8000)
    assert await remote.read("123.WMaxLim_Ena") == 1
    await remote.write("704.WMaxLimPctEna", 0)
    await remote.reaches("123.WMaxLim_Ena", 0)
    assert await remote.read("123.WMaxLimPct") == 10_000


async def test_a_time_out_reverts(remote):
    await remote.write("123.WMaxLimPct", 3000)
    await remote.write("123.WMaxLimPct_RvrtTms", 1)
    await remote.write("123.WMaxLim_Ena", 1)
    await remote.count(2)
    assert remote.sent == [("active_power_limit", 30.0), ("active_power_limit", 100.0)]
    await remote.reaches("123.WMaxLim_Ena", 0)
    assert await remote.read("123.WMaxLimPct") == 10_000


async def test_704_reverts_to_a_value_of_its_own(remote):
    await remote.write("704.WMaxLimPctRvrt", 7000)
    await remote.write("704.WMaxLimPctEnaRvrt", 1)
    await remote.write("704.WMaxLimPctRvrtTms", 1)
    await remote.write("704.WMaxLimPct", 3000)
    await remote.write("704.WMaxLimPctEna", 1)
    await remote.count(2)
    assert remote.sent == [("active_power_limit", 30.0), ("active_power_limit", 70.0)]
    await remote.reaches("704.WMaxLimPct", 7000)
    assert await remote.read("704.WMaxLimPctEna") == 1


async def test_connecting_and_disconnecting(remote):
    assert await remote.read("123.Conn") == 1
    await remote.write("123.Conn_RvrtTms", 600)
    await remote.write("123.Conn", 0)
    await remote.count(1)
    assert remote.sent == [("running", False)]
    assert remote.commands[0].revert_after == 600
    await remote.reaches("703.ES", 0)
    await remote.write("123.Conn", 1)
    await remote.count(2)
    assert remote.sent[-1] == ("running", True)


@pytest.mark.parametrize(
    ("writes", "expected"),
    [
        ([("123.OutPFSet", -950), ("123.OutPFSet_Ena", 1)], ("power_factor", 0.95)),  # EEI: < 0 over-excited
        ([("704.PFWInj.PF", 900), ("704.PFWInj.Ext", 1), ("704.PFWInjEna", 1)], ("power_factor", -0.9)),
        ([("704.PFWInj.PF", 900), ("704.PFWInjEna", 1)], ("power_factor", 0.9)),
        ([("123.VArWMaxPct", -1000), ("123.VArPct_Ena", 1)], ("reactive_power", -10)),
        ([("123.VArPct_Mod", 2), ("123.VArMaxPct", 5000), ("123.VArPct_Ena", 1)], ("reactive_power", 30)),
        ([("704.VarSetPct", 2000), ("704.VarSetEna", 1)], ("reactive_power", 20)),
        ([("704.VarSetMod", 1), ("704.VarSetPct", 2000), ("704.VarSetEna", 1)], ("reactive_power", 12)),
        ([("704.VarSetMod", 4), ("704.VarSet", -1500), ("704.VarSetEna", 1)], ("reactive_power", -15)),
        ([("124.MinRsvPct", 3000)], ("battery_reserve_soc", 30)),
        ([("802.SoCRsvMin", 3000)], ("battery_reserve_soc", 30)),
        ([("124.MinRsvPct", 0)], ("battery_reserve_soc", "none")),
        ([("123.VArPct_Ena", 0)], ("reactive_power", 0)),
        ([("704.PFWInjEna", 0)], ("power_factor", 1)),
        ([("124.StorCtl_Mod", 0)], ("battery_mode", "auto")),
    ],
)
async def test_each_control(remote, writes, expected):
    for name, value in writes:
        assert remote.sent == []
        await remote.write(name, value)
    await remote.count(1)
    assert remote.sent == [(expected[0], pytest.approx(expected[1]))]
    await until(lambda: remote.served.bench.router.state(ALL.serial).values[expected[0]] == remote.sent[0][1])
    await remote.served.publish(ac_power=9, **(IN_FORCE | dict(remote.sent)))
    for name, value in writes:
        assert await remote.read(name) == value & (0xFFFF if ADDRESSES[name].count == 1 else 0xFFFF_FFFF)


def test_a_value_that_vanishes_before_its_command_ends_is_let_go(clocked):
    family, image, write = clocked
    write("123.WMaxLim_Ena", 1)
    image.controls.note(step("new", CommandState.ACCEPTED))
    image.controls.note(step("new", CommandState.SUCCEEDED))
    show(family, image, {})
    assert shown_limit(image) == (0xFFFF, 0)


async def test_shares_of_what_is_not_known_are_refused(tmp_path):
    unrated = msgspec.structs.replace(
        ALL, rated_power=None, setpoints=ALL.setpoints | {"battery_power_target": Range(0)}
    )
    async with remote_of(tmp_path, device=unrated) as remote:
        assert await remote.read("120.WRtg") == await remote.read("124.WChaMax") == 0xFFFF
        await remote.write("124.InWRte", -5000)
        assert await remote.refused("124.StorCtl_Mod", 1) == 3
        await remote.write("704.VarSetMod", 4)
        await remote.write("704.VarSet", 100)
        assert await remote.refused("704.VarSetEna", 1) == 3
        assert remote.sent == []


async def test_a_mode_704_has_no_meaning_for_is_refused(remote):
    await remote.write("704.VarSetMod", 2)
    assert await remote.refused("704.VarSetEna", 1) == 3


async def test_controls_show_what_is_in_force(tmp_path):
    values = {
        "active_power_limit": 70.0, "reactive_power": -30.0, "power_factor": -0.9, "running": False,
        "battery_mode": "discharge", "battery_power_target": 2500.0, "battery_reserve_soc": 15.0,
    }  # fmt: skip
    async with remote_of(tmp_path, values=values) as remote:
        expected = {
            "123.Conn": 0, "123.WMaxLimPct": 7000, "123.WMaxLim_Ena": 1, "123.OutPFSet": 900,
            "123.OutPFSet_Ena": 1, "123.VArWMaxPct": 0x10000 - 3000, "123.VArMaxPct": 0x10000 - 5000,
            "123.VArPct_Mod": 1, "123.VArPct_Ena": 1, "124.StorCtl_Mod": 1, "124.InWRte": 0x10000 - 5000,
            "124.OutWRte": 10_000,
            "124.MinRsvPct": 1500, "704.WMaxLimPctEna": 1, "704.WMaxLimPct": 7000, "704.PFWInj.PF": 900,
            "704.PFWInj.Ext": 1, "704.PFWInjEna": 1, "704.VarSetPct": 0x10000 - 3000, "704.VarSet": 2**32 - 3000,
            "704.VarSetEna": 1, "704.VarSetMod": 0, "704.WMaxLimPctRvrtRem": 0xFFFF_FFFF,
        }  # fmt: skip
        assert {name: await remote.read(name) for name in expected} == expected


async def test_controls_stay_writable_while_data_are_stale(tmp_path):
    async with (
        serving(tmp_path, devices=(ALL,), control=CONTROL, maps=("sunspec",)) as served,
        served.client() as client,
    ):
        remote = Remote(served, client)
        await remote.write("123.WMaxLimPct", 5000)
        await remote.write("123.WMaxLim_Ena", 1)
        await remote.count(1)
        assert await remote.reads(*LIMIT) == [5000, 1]


async def test_after_a_restart_nothing_is_latched(tmp_path):
    for _ in range(2):
        async with remote_of(tmp_path) as remote:
            assert await remote.reads(*LIMIT) == [10_000, 0]
            await remote.write("123.WMaxLimPct", 4000)


# any writes, without a server

REGISTERS = sorted(SunSpecFamily(WordOrder.ABCD).layout(ALL).writable)
WRITES = st.lists(st.tuples(st.sampled_from(REGISTERS), st.binary(min_size=2, max_size=12)), max_size=12)


def family_with(values):
    family = SunSpecFamily(WordOrder.ABCD)
    layout = family.layout(ALL)
    image = Image(ALL.serial, layout, dict, family.controls(ALL.serial))
    show(family, image, values)
    return family, image


def show(family, image, values):
    state = DeviceState(device=ALL, quality=Quality.GOOD, time=None, source="test", values=values)
    image.show({**values, **family.fields(state)})


@pytest.fixture
def clocked():
    family, image = family_with(IN_FORCE)

    def write(name, value, *, refused=False):
        address, payload = ADDRESSES[name].address, struct.pack(">H", value)
        if refused:
            with pytest.raises(WriteRefusedError):
                image.controls.stage(written(image, address, payload))
            return
        settled(image, address, payload)

    return family, image, write


def written(image, address, payload):
    return {request.setpoint: request.value for request in setpoint_requests(image, address, payload)}


def settled(image, address, payload, id_="new"):
    """Write, and let it settle at once; returns what was asked for."""
    image.controls.latch(written(image, address, payload))
    due, _ = image.controls.due()
    image.amend(image.controls.shown())
    for part in due:
        image.controls.leaves(named(part.requests, id_))
        image.controls.taken(part.model)
    return [request for part in due for request in part.requests]


def step(id_, state, setpoint="active_power_limit"):
    now = datetime.now(UTC)
    command = Command(
        id=id_, serial=ALL.serial, setpoint=setpoint, value=30, origin="test", created=now, expires=now
    )  # fmt: skip
    return CommandEvent(command=command, state=state, time=now)


def named(requests, id_="new"):
    return {request.setpoint: id_ for request in requests}


def other_command():
    return msgspec.structs.replace(step("x", CommandState.ACCEPTED).command, serial="nobody")


def shown_limit(image):
    return tuple(
        int.from_bytes(image.data[2 * (ADDRESSES[name].address - 40_000) :][:2], "big") for name in LIMIT
    )  # fmt: skip


@settings(deadline=None)
@given(writes=WRITES)
def test_what_is_accepted_reads_as_written_and_what_is_refused_changes_nothing(writes):
    family, image = family_with(IN_FORCE)
    in_force = dict(IN_FORCE)
    for address, data in writes:
        payload = data[: len(data) // 2 * 2]
        before = bytes(image.data)
        at = slice(2 * (address - 40_000), 2 * (address - 40_000) + len(payload))
        try:
            staged = image.controls.stage(written(image, address, payload))
        except WriteRefusedError:
            show(family, image, in_force)
            assert image.data == before
            continue
        assert image.data == before
        assert all(request.setpoint in SETPOINTS and request.value is not None for request in staged.requests)
        if not staged.whole or absent(payload):
            continue
        settled(image, address, payload)
        assert writable(image, address, image.data[at]) == writable(image, address, payload)
        show(family, image, in_force)
        assert writable(image, address, image.data[at]) == writable(image, address, payload)


def writable(image, address, data):
    return [
        data[2 * (at - address) : 2 * (at - address) + 2]
        for at in range(address, address + len(data) // 2)
        if at in image.layout.writable or at in image.layout.inside
    ]


def absent(payload):
    """Return whether a word of it may say "not there", which is passed over."""
    return any(payload[n : n + 2] in (b"\xff\xff", b"\x80\0") for n in range(0, len(payload), 2))


@settings(deadline=None)
@given(
    limit=st.integers(0, 10_000), timeout=st.integers(0, 0xFFFE), order=st.permutations(["value", "timer", "enable"])
)
def test_the_order_of_value_time_out_and_enable_does_not_matter_in_the_end(limit, timeout, order):
    _, image = family_with(IN_FORCE)
    payloads = {
        "value": ("123.WMaxLimPct", limit),
        "timer": ("123.WMaxLimPct_RvrtTms", timeout),
        "enable": ("123.WMaxLim_Ena", 1),
    }
    for step in order:
        name, number = payloads[step]
        image.controls.latch(written(image, ADDRESSES[name].address, struct.pack(">H", number)))
    (due,), dropped = image.controls.due()
    assert dropped == []
    asked = due.requests
    assert asked[-1].setpoint == "active_power_limit"
    assert asked[-1].value == pytest.approx(limit / 100)
    assert asked[-1].revert_after == (timeout or None)
