"""What a client writes, and what becomes of it."""

import struct

import msgspec
import pytest

from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.errors import RefusedError
from gateway.core.model import Device, DeviceKind, Range
from gateway.core.points import SETPOINTS
from tests.bridges.modbus.client import frame, read, write_many, write_one
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import EVERYTHING, INVERTER, collected, until
from tests.kit.journal import without_disk

EVERY_SETPOINT = Device(
    serial=INVERTER.serial,
    kind=DeviceKind.STORAGE,
    setpoints={setpoint: Range() for setpoint in SETPOINTS},
)
ALLOW_ALL = ControlSettings(
    enabled=True, allow=[Rule(devices=["*"], setpoints=list(SETPOINTS), origins=["modbus"])], max_per_minute=10_000
)


def int32(*values):
    return struct.pack(f">{len(values)}i", *values)


def float32(*values):
    return struct.pack(f">{len(values)}f", *values)


async def sent(served, count):
    await until(lambda: len(served.bench.asked) >= count)
    return [(command.setpoint, command.value) for command in served.bench.asked]


@pytest.fixture
async def all_setpoints(tmp_path):
    async with serving(tmp_path, control=ALLOW_ALL, devices=[EVERY_SETPOINT]) as served:
        yield served


SINGLE = {
    5800: ("running", 1, True),
    5801: ("active_power_limit", 505, 50.5),
    5802: ("reactive_power", 0xFFFF, -0.1),
    5803: ("power_factor", 0x10000 - 950, -0.95),
    5804: ("export_limit", 40_000, 400_000),
    5805: ("work_mode", 3, "eco"),
    5806: ("battery_mode", 2, "discharge"),
    5807: ("battery_power_target", 250, 2_500),
    5808: ("battery_target_soc", 1000, 100.0),
    5809: ("charging", 0, False),
}


@pytest.mark.parametrize("address", SINGLE)
async def test_fc6_writes_every_setpoint_by_its_single_register(all_setpoints, address):
    setpoint, register, value = SINGLE[address]
    async with all_setpoints.client() as client:
        request = write_one(address, register)
        assert await client.ask(request) == request
        assert await sent(all_setpoints, 1) == [(setpoint, value)]
        (command,) = all_setpoints.bench.asked
        assert command.origin == f"modbus:{client.name}"
        assert type(command.value) is type(value) or not isinstance(value, bool)


async def test_fc16_writes_by_scaled_integer_and_by_float(served, client):
    assert await client.ask(write_many(5002, int32(505))) == struct.pack(">BHH", 16, 5002, 2)
    assert await sent(served, 1) == [("active_power_limit", 50.5)]
    await client.ask(write_many(5502, float32(33.3)))
    assert (await sent(served, 2))[1] == ("active_power_limit", 33.3)
    await client.ask(write_many(5512, float32(1.0)))
    assert (await sent(served, 3))[2] == ("battery_mode", "charge")
    await client.ask(write_many(5801, struct.pack(">h", 10)))
    assert (await sent(served, 4))[3] == ("active_power_limit", 1.0)


async def test_fc16_sets_several_setpoints_together(served, client):
    await client.ask(write_many(5012, int32(2, 3_000, 250)))
    assert sorted(await sent(served, 3)) == [
        ("battery_mode", "discharge"),
        ("battery_power_target", 3_000),
        ("battery_target_soc", 25.0),
    ]


@pytest.mark.parametrize(
    ("values", "code"),
    [((2, 6_000, 250), 0x03), ((9, 3_000, 250), 0x03), ((2, 3_000, 0x7FFFFFFE), 0x03)],
)
async def test_fc16_sets_all_or_nothing(served, client, values, code):
    assert await client.refused(write_many(5012, int32(*values))) == code
    await client.ask(write_one(5801, 100))
    assert await sent(served, 1) == [("active_power_limit", 10.0)]


async def test_what_was_read_can_be_written_back_with_one_value_changed(served, client):
    await served.publish(active_power_limit=80, battery_mode="auto")
    words = list(await client.words(5000, 20))
    assert words[14:16] == [0x8000, 0]  # battery_power_target: not there
    words[2:4] = [0, 505]
    await client.ask(write_many(5000, struct.pack(">20H", *words)))
    assert await sent(served, 2) == [("active_power_limit", 50.5), ("battery_mode", "auto")]
    floats = list(struct.unpack(">10f", await client.raw(5500, 20)))
    floats[1] = 33.3
    await client.ask(write_many(5500, float32(*floats)))
    assert (await sent(served, 3))[2] == ("active_power_limit", 33.3)


READ_ONLY_OR_UNLISTED = (0, 99, 100, 150, 1020, 3020, 5026, 5049, 5050, 5811, 6000, 6199, 65535)


@pytest.mark.parametrize("address", READ_ONLY_OR_UNLISTED)
async def test_a_register_that_is_not_writable_is_02(served, client, address):
    assert await client.refused(write_one(address, 1)) == 0x02
    assert await client.refused(write_many(address, int32(1))) == 0x02


async def test_one_unwritable_register_among_others_is_02(served, client):
    assert await client.refused(write_many(5020, int32(1, 1))) == 0x02
    assert await client.refused(write_many(4998, int32(1, 1))) == 0x02


async def test_a_setpoint_that_the_device_does_not_take_is_02(served, client):
    assert await client.refused(write_one(5809, 1)) == 0x02


async def test_a_setpoint_that_policy_does_not_permit_is_02(tmp_path):
    control = ControlSettings(
        enabled=True,
        allow=[
            Rule(devices=["*"], setpoints=["running"]),
            Rule(devices=["*"], setpoints=["active_power_limit"], origins=["mqtt"]),
        ],
    )
    async with serving(tmp_path, control=control) as served, served.client() as client:
        assert await client.refused(write_one(5801, 1)) == 0x02
        await client.ask(write_one(5800, 1))
        await sent(served, 1)


@pytest.mark.parametrize(
    "pdu",
    [
        write_one(5801, 1001),
        write_one(5801, 0xFFFF),
        write_one(5801, 0x8000),
        write_one(5800, 2),
        write_one(5806, 4),
        write_many(5002, int32(1001)),
        write_many(5002, int32(-0x80000000)),
        write_many(5502, float32(100.5)),
        write_many(5502, float32(float("nan"))),
        write_many(5502, float32(float("inf"))),
        write_many(5512, float32(1.5)),
    ],
)
async def test_a_value_out_of_range_or_not_a_value_is_03(served, client, pdu):
    assert await client.refused(pdu) == 0x03
    assert not served.bench.asked


@pytest.mark.parametrize(
    "pdu",
    [
        write_one(5002, 0),
        write_one(5003, 500),
        write_many(5002, b"\0\0"),
        write_many(5003, b"\0\1"),
        write_many(5003, int32(1)),
        write_many(5002, int32(500) + b"\0\0"),
        write_one(5502, 0x4248),
    ],
)
async def test_half_a_value_is_03(served, client, pdu):
    assert await client.refused(pdu) == 0x03
    assert not served.bench.asked


@pytest.mark.parametrize(
    "pdu",
    [
        b"\x06\x16\xa9",
        b"\x06\x16\xa9\0\1\0",
        b"\x10",
        b"\x10\x13\x8a\0\2",
        struct.pack(">BHHB", 16, 5002, 0, 0),
        struct.pack(">BHHB", 16, 5002, 2, 2) + int32(1),
        struct.pack(">BHHB", 16, 5002, 2, 4) + b"\0\0",
        struct.pack(">BHHB", 16, 5002, 2, 4) + int32(1) + b"\0",
        struct.pack(">BHHB", 16, 5002, 124, 248) + bytes(246),
    ],
)
async def test_a_malformed_write_is_03(client, pdu):
    assert await client.refused(pdu) == 0x03


async def test_a_write_is_01_while_control_is_off(tmp_path):
    async with serving(tmp_path, control=ControlSettings()) as served, served.client() as client:
        assert await client.refused(write_one(5801, 1)) == 0x01
        assert await client.refused(write_many(5002, int32(1))) == 0x01
        assert await client.refused(write_one(0, 1)) == 0x02


async def test_too_many_writes_are_06(tmp_path):
    control = EVERYTHING.model_copy(update={"max_per_minute": 2})
    async with serving(tmp_path, control=control) as served, served.client() as client:
        await client.ask(write_one(5801, 1))
        await client.ask(write_one(5801, 2))
        assert await client.refused(write_one(5801, 3)) == 0x06


async def test_an_absent_unit_is_0a(client):
    assert await client.refused(write_one(5801, 1), unit=2) == 0x0A


async def test_a_device_nobody_knows_any_more_is_0a(served, client, monkeypatch):
    monkeypatch.setattr(served.bench.router, "state", lambda _: None)
    assert await client.refused(write_one(5801, 1)) == 0x0A


async def test_a_write_that_nobody_can_carry_out_is_04(served, client):
    served.bench.dispatcher.use({})
    assert await client.refused(write_one(5801, 1)) == 0x04


async def test_a_write_that_can_not_be_journaled_is_04_and_not_done(served, client, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(served.bench.journal, "post", without_disk("disk full"))
        assert await client.refused(write_one(5801, 1)) == 0x04
    await client.ask(write_one(5801, 2))
    assert await sent(served, 1) == [("active_power_limit", 0.2)]


async def test_an_internal_failure_is_04_and_the_connection_goes_on(served, client, monkeypatch):
    async def broken(*_):
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(served.bench.dispatcher, "submit", broken)
        assert await client.refused(write_one(5801, 1)) == 0x04
    assert await client.words(0) == [1]
    await client.ask(write_one(5801, 2))


async def test_a_write_expires_after_the_configured_time(tmp_path):
    async with serving(tmp_path, ttl=5) as served, served.client() as client:
        await client.ask(write_one(5801, 1))
        await sent(served, 1)
        (command,) = served.bench.asked
        assert (command.expires - command.created).total_seconds() == 5


async def test_the_fate_of_a_write_shows_in_status_registers_and_the_setpoint_is_read_back(served, client):
    served.bench.controller.gate.clear()
    await served.publish(active_power_limit=100)
    assert await client.words(6000, 8) == [0, 0, 0xFFFF, 0, 0, 0, 0xFFFF, 0xFFFF]
    await client.ask(write_one(5801, 300))

    async def reaches(state):
        while (await client.words(6003))[0] != state:
            pass

    await reaches(2)
    assert await client.words(6000, 5) == [0, 1, 1, 2, 0]
    assert await client.words(5801) == [1000]
    (command,) = served.bench.asked
    assert await client.text(6008, 18) == command.id
    assert await client.text(6026, 32) == "by scripted"
    served.bench.controller.gate.set()
    await served.publish(active_power_limit=30)
    await reaches(3)
    assert await client.text(6026, 32) == "confirmed; read back"
    assert await client.words(6104, 2) == [3, 0]
    assert abs(await client.number("I", 6006) - served.bench.clock.now().timestamp()) < 3
    assert await client.words(5801) == [300]


async def test_a_refusal_shows_its_reason(served, client):
    await client.refused(write_one(5801, 2000))
    await until(lambda: served.bridge._devices[INVERTER.serial].commands.fields()["command.count"])
    assert await client.words(6001, 4) == [1, 1, 6, 6]
    assert await client.text(6026, 32) == "active_power_limit takes 0 to 100 %, not 200"


async def test_each_setpoint_shows_its_own_last_command(served, client):
    served.bench.controller.answers = [RefusedError("not in this mode")]
    await client.ask(write_one(5801, 10))
    await until(lambda: served.bridge._devices[INVERTER.serial].commands.fields().get("command.state") == 4)
    await client.ask(write_one(5800, 0))
    await until(lambda: served.bridge._devices[INVERTER.serial].commands.fields().get("command.running.state") == 3)
    assert await client.words(6104) == [4]
    assert await client.words(6100) == [3]
    assert await client.words(6001, 3) == [2, 0, 3]


async def test_a_command_from_elsewhere_shows_too_but_not_for_devices_unknown(served, client):
    await served.bench.dispatcher.submit(served.bench.command(value=20))
    await served.bench.dispatcher.submit(served.bench.command(serial="NOBODY"))
    await until(lambda: served.bridge._devices[INVERTER.serial].commands.fields().get("command.state") == 3)
    assert await client.words(6001, 3) == [1, 1, 3]
    assert set(served.bridge._devices) == {INVERTER.serial}


async def test_the_end_of_a_displaced_command_does_not_show_as_that_of_the_newer_one(served, client):
    served.bench.controller.gate.clear()
    await client.ask(write_one(5801, 10))
    while (await client.words(6003)) != [2]:
        pass
    async with collected(served.bench.router) as (events, _):
        await client.refused(write_one(5801, 2000))
        served.bench.controller.gate.set()
        await until(lambda: [event.state for event in events] == ["rejected", "succeeded"])
    await served.publish(ac_power=1)
    assert await client.words(6001, 3) == [2, 1, 6]


async def test_the_same_value_again_is_a_command_again(served, client):
    await client.ask(write_one(5801, 10))
    await sent(served, 1)
    await client.ask(write_one(5801, 10))
    assert await sent(served, 2) == [("active_power_limit", 1.0)] * 2


async def test_a_client_that_leaves_before_the_answer_has_still_written(served):
    async with served.client() as client:
        client.send(frame(write_one(5801, 10)))
        await client.writer.drain()
    assert await sent(served, 1) == [("active_power_limit", 1.0)]
    async with served.client() as client:
        await client.ask(read(0, 1))


async def test_the_low_word_comes_first_where_so_configured(tmp_path):
    async with serving(tmp_path, word_order="cdab") as served, served.client() as client:
        await client.ask(write_many(5002, struct.pack(">HH", 505, 0)))
        assert await sent(served, 1) == [("active_power_limit", 50.5)]


async def test_limits_of_the_device_hold(served, client):
    served.bench.announce(msgspec.structs.replace(INVERTER, setpoints={"active_power_limit": Range(30, 80)}))
    assert await client.refused(write_one(5801, 299)) == 0x03
    await client.ask(write_one(5801, 300))
