"""The registers that are served and the calls that are left, as the page and other readers of HTTP get them."""

import pytest

from gateway.api.served import CallBudget, Reading
from gateway.bridges.modbus import ModbusBridge, ModbusSettings
from gateway.bridges.open_api import OpenApiBridge, OpenApiSettings
from gateway.bridges.realtime import RealtimeBridge, RealtimeSettings
from gateway.core.model import Quality
from tests.bridges.modbus.client import ModbusError, RawClient
from tests.bridges.open_api.kit import DEVELOPER
from tests.bridges.web.conftest import SN, WRITER, served
from tests.kit.bench import Silent, until

PATH = f"/api/v1/devices/{SN}/registers"
VALUES = {
    "ac_power": 4210.0, "l1_frequency": 50.01, "battery_soc": 81.0, "energy_total": 1234.5, "status": "normal",
}  # fmt: skip
OWN = """address,type,scale,point,access
7000,int32,1,ac_power,R
7002,uint16,0.1,battery_soc,R
7003,uint16,0.1,pv1_voltage,R
"""


async def with_modbus(web, name="modbus", **settings):
    runner = web.bench.run(ModbusBridge, ModbusSettings(port=0, **settings), name)
    await until(lambda: SN in runner.bridge.units)
    return runner.bridge


async def told(web, bridge, quality=Quality.GOOD):
    """Wait until the registers show the newest data."""
    await until(lambda: (state := bridge._devices[SN].state) is not None and state.quality is quality)
    await until(lambda: state_of(web) is bridge._devices[SN].state)


def state_of(web):
    return web.bench.router.state(SN)


async def rows(web, **query):
    answer = await web.get(PATH, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def by_point(found):
    return {row["point"]: row for row in found["registers"]}


@pytest.mark.parametrize("map_", ["native", "sunspec", "goodwe", "own.csv"])
@pytest.mark.parametrize("word_order", ["abcd", "cdab"])
async def test_each_register_is_what_a_client_reads(it, tmp_path, map_, word_order):
    (tmp_path / "own.csv").write_text(OWN)
    name = str(tmp_path / map_) if map_ == "own.csv" else map_
    it.bench.publish(**VALUES)
    bridge = await with_modbus(it, maps=[name], word_order=word_order)
    await told(it, bridge)
    found = await rows(it)
    (map_found,) = found["maps"]
    assert (map_found["bridge"], map_found["port"], map_found["unit"]) == ("modbus", bridge.port, bridge.units[SN])
    assert map_found["registers"] == len(found["registers"]) > 2
    client = await RawClient.connect(bridge.port)
    try:
        for row in found["registers"]:
            if row["point"] in ("data.age", "gateway.uptime"):
                continue  # a second later it is another
            assert list(await client.words(row["address"], row["count"])) == row["raw"], row
    finally:
        await client.close()
    assert [row["address"] for row in found["registers"]] == sorted(row["address"] for row in found["registers"])
    assert {row["state"] for row in found["registers"]} <= {"good", "absent"}
    assert all((row["value"] is None) == (row["state"] == "absent") for row in found["registers"])


async def test_values_have_their_units_and_what_is_not_there_says_so(it):
    it.bench.publish(**VALUES)
    await told(it, await with_modbus(it))
    found = by_point(await rows(it))
    power = found["ac_power"]
    assert (power["value"], power["unit"], power["state"], power["access"]) == (4210, "W", "good", "R")
    assert power["holding"] == 40_001 + power["address"]
    assert found["l1_frequency"]["value"] == 50.01
    assert (found["battery_soc"]["value"], found["battery_soc"]["unit"]) == (81, "%")
    assert found["device.serial"]["value"] == SN
    assert found["status"]["value"] == "normal"
    voltage = found["pv1_voltage"]
    assert (voltage["value"], voltage["state"], voltage["type"]) == (None, Reading.ABSENT, "float32")
    assert voltage["raw"] == [0x7FC0, 0]
    assert found["active_power_limit"]["access"] == "RW"


async def test_what_is_stale_is_closed_or_said_to_be_stale_and_never_live(tmp_path):
    async with served(tmp_path) as web:
        web.bench.publish(age=7200.0, **VALUES)
        bridge = await with_modbus(web)
        other = await with_modbus(web, "lenient", stale="sentinel")
        await told(web, bridge, Quality.STALE)
        await told(web, other, Quality.STALE)
        found = await rows(web, bridge="modbus")
        assert found["quality"] == "stale"
        powers = [row for row in found["registers"] if row["point"] == "ac_power"]
        assert len(powers) > 2
        assert {row["value"] for row in powers} == {None}
        # The overview is read as one, so it is never closed; what it has of measurements is absent.
        assert {row["state"] for row in powers} == {Reading.CLOSED, Reading.ABSENT}
        power = next(row for row in powers if row["raw"] is None)
        assert power["state"] == Reading.CLOSED
        assert by_point(found)["device.serial"]["state"] == Reading.GOOD
        client = await RawClient.connect(bridge.port)
        with pytest.raises(ModbusError):
            await client.words(power["address"], power["count"])
        await client.close()

        found = (await rows(web, bridge="lenient"))["registers"]
        powers = [row for row in found if row["point"] == "ac_power"]
        assert {(row["value"], row["state"]) for row in powers} == {(None, Reading.ABSENT)}
        totals = [row for row in found if row["point"] == "energy_total"]
        assert len(totals) > 2
        assert {(row["value"], row["state"]) for row in totals} == {(1234.5, Reading.STALE)}


async def test_bridge_and_map_are_chosen(it):
    it.bench.publish(**VALUES)
    await told(it, await with_modbus(it, maps=["native", "sunspec"]))
    await told(it, await with_modbus(it, "second", maps=["goodwe"]))
    found = await rows(it)
    maps = [(each["bridge"], each["map"]) for each in found["maps"]]
    assert (found["bridge"], found["map"]) == maps[0]
    assert maps[0] == ("modbus", "native")
    assert maps[2][0] == "second"
    for bridge, map_ in maps:
        chosen = await rows(it, bridge=bridge, map=map_)
        assert (chosen["bridge"], chosen["map"], bool(chosen["registers"])) == (bridge, map_, True)
    assert len({(await rows(it, map=map_))["registers"][0]["address"] for _, map_ in maps}) == 3
    for wrong in ({"map": "fronius"}, {"bridge": "web"}, {"bridge": "second", "map": "native"}):
        answer = await it.get(PATH, params=wrong)
        assert (answer.status_code, answer.json()["reason"]) == (400, "bad_request")
        assert "native of modbus" in answer.json()["detail"]


async def test_where_nothing_serves_a_device_there_are_no_maps(it):
    it.bench.publish(**VALUES)
    found = await rows(it)
    assert (found["maps"], found["bridge"], found["map"], found["registers"]) == ([], None, None, [])
    assert (await it.get(PATH, params={"map": "native"})).status_code == 400
    assert (await it.get("/api/v1/devices/nowhere/registers")).json()["reason"] == "unknown_device"
    bridge = await with_modbus(it)
    await told(it, bridge)
    assert (await rows(it))["registers"]
    await it.bench.runners[-1].stop()
    assert (await rows(it))["maps"] == []


async def test_a_device_that_was_withdrawn_is_not_served(it):
    it.bench.publish(**VALUES)
    bridge = await with_modbus(it)
    it.bench.router.withdraw("scripted", SN)
    await until(lambda: not bridge.register_maps(SN))
    assert bridge.served_registers(SN, "native") == ()


class Caller(Silent):
    """A bridge with an account."""

    account = "one"
    budget = {"per_hour": 600, "used": 412, "planned": 510, "left": 188, "held": 0.0}

    def call_budget(self):
        return CallBudget(account=self.account, **self.budget)


class Other(Caller):
    account = "other"
    budget = {"per_hour": 60, "used": 60, "planned": 10, "left": 0, "held": 12.34}


async def test_bridges_that_share_an_account_have_one_budget(it):
    assert (await it.get("/api/v1/budgets")).json() == {"budgets": []}
    for name, bridge in (("sems", Caller), ("supply", Caller), ("second", Other)):
        it.bench.run(bridge, Silent.Settings(), name)
    answer = await it.get("/api/v1/budgets", WRITER)
    assert answer.json()["budgets"] == [
        {"bridges": ["sems", "supply"], **Caller.budget},
        {"bridges": ["second"], **Other.budget, "held": 12.3},
    ]
    assert "one" not in answer.text


async def test_the_bridges_of_accounts_say_what_is_left(it):
    login = {"client_id": "demo", "client_secret": DEVELOPER["client_secret"], "url": "http://127.0.0.1:9"}
    fields = {"url": "http://127.0.0.1:9", "calls_per_hour": 500}
    it.bench.run(OpenApiBridge, OpenApiSettings(**(DEVELOPER | fields)), "sems")
    it.bench.run(RealtimeBridge, RealtimeSettings(**(login | fields | {"whitelist": [SN]})), "supply")
    budget = it.bench.services.runners["sems"].bridge._session.budget
    budget.spend()
    (found,) = (await it.get("/api/v1/budgets")).json()["budgets"]
    assert found["bridges"] == ["sems", "supply"]
    assert found["per_hour"] == 500
    assert found["used"] >= 1
    assert found["left"] == 500 - found["used"]
    budget.hold(100)
    (found,) = (await it.get("/api/v1/budgets")).json()["budgets"]
    assert found["left"] == 0
    assert 0 < found["held"] <= 100
