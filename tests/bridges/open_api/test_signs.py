"""Which way the grid's power goes, over real HTTP: as SEMS.md has it, and where a cloud has it the other way round."""

import itertools
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import yaml
from pydantic import SecretStr

from gateway.bridges.open_api import OpenApiBridge, OpenApiSettings
from gateway.core.findings import FindingCode
from tests.kit.bench import Bench, until
from tests.sems.kit import serving

PLANT, INVERTER = "P1", "9010KETU000W0001"
REFUSED = {"code": "100025", "msg": "no right", "data": None}
IMPORTS = {"pvPower": 0.0, "batteryPower": 0.0, "loadPower": 2.337}
EXPORTS = {"pvPower": 8.0, "batteryPower": 0.0, "loadPower": 2.0}


def well(data):
    return {"code": 0, "msg": "success", "data": data}


@asynccontextmanager
async def house(tmp_path, flow, inverter=None, **changes):
    """A gateway at a cloud of one plant with one inverter; `flow` gives the plant's powers, answer after answer."""
    async with serving() as (server, url), Bench(tmp_path) as bench:
        # Measured five minutes apart, up to now: an hour of the cloud's is a second of the test's.
        times = (bench.clock.now() - timedelta(hours=3) + n * timedelta(minutes=5) for n in itertools.count())

        def powers(_):
            return well(flow() | {"last_refresh_time": f"{next(times):%Y-%m-%d %H:%M:%S}"})

        server.scripts = {interface.name: [REFUSED] for interface in server.catalogue.interfaces} | {
            "GetToken": [well({"token": "t"})],
            "GetUserPlantList": [well({"list": [{"plant_id": PLANT, "plant_name": "House"}]})],
            "GetPlantDetail": [well({"plant_name": "House", "time_zone": "UTC", "status": 1})],
            "GetInverterList": [well({"list": [{"sn": INVERTER, "name": "Roof", "type": "storage"}]})],
            "GetPlantPowerFlow": [powers],
            "GetInverterBySN": [well({"status": 1} | (inverter or {}))],
        }
        settings = {"url": url, "account": "me", "password": SecretStr("x"), "poll_interval": 0.1} | changes
        bench.run(OpenApiBridge, OpenApiSettings(calls_per_hour=1_000_000, **settings), "sems")
        yield bench


def found(bench):
    status = next((status for status in bench.router.bridges() if status.name == "sems"), None)
    return [each for each in status.findings if each.code is FindingCode.SIGN_DOUBTFUL] if status else []


async def grid_of(bench, serial):
    state = await until(lambda: (s := bench.router.state(serial)) and s.values.get("grid_power") is not None and s)
    return state.values["grid_power"]


async def test_a_house_that_imports_2337_w_has_grid_power_2337(tmp_path):
    """SEMS.md: pmeter is > 0 for export, and pv + battery - pmeter = load; the point table: grid_power > 0 imports."""
    inverter = {"ppv": 0, "pbattery": 0, "pload": 2337, "pmeter": -2337}
    async with house(tmp_path, lambda: IMPORTS | {"meterPower": -2.337}, inverter) as bench:
        assert await grid_of(bench, INVERTER) == 2337
        assert await grid_of(bench, PLANT) == 2337


def both_ways(sign):
    turn = itertools.count(1)

    def flow():
        n = next(turn)
        values = (EXPORTS | {"meterPower": 6.0}) if n % 2 else (IMPORTS | {"meterPower": -2.337})
        values = {name: round(value * (1 + n / 1000), 3) for name, value in values.items()}
        return values | {"meterPower": sign * values["meterPower"]}

    return flow


async def test_a_cloud_that_has_it_the_other_way_round_is_doubted_and_the_remedy_puts_it_right(tmp_path):
    async with house(tmp_path / "one", both_ways(-1)) as bench:
        (finding,) = await until(lambda: found(bench))
        assert finding.subject == PLANT
        (alarm,) = bench.router.alarm_book.of(PLANT)
        assert (alarm.code, alarm.severity) == ("sign_doubtful", "warning")
        assert bench.router.state(PLANT).values["alarm_code"] == "sign_doubtful"
        (sheet,) = bench.services.balance.sheets()
        assert not sheet.balanced, "it is told, and never turned"

    overrides = yaml.safe_load(finding.remedy)["bridges"]["sems"]["overrides"]
    assert overrides["interfaces"]["GetPlantPowerFlow"] == {"fields": {"meterPower": {"scale": 1000}}}
    assert "GetInverterBySN" not in overrides["interfaces"], "nothing is known of the inverter's own"
    async with house(tmp_path / "two", both_ways(-1), overrides=overrides) as bench:
        await until(lambda: bench.services.balance.sheets() and signs(bench) == {"fits"})
        assert not found(bench)


async def test_a_cloud_as_sems_md_has_it_is_not_doubted(tmp_path):
    async with house(tmp_path, both_ways(1)) as bench:
        await until(lambda: signs(bench) == {"fits"})
        assert not found(bench)


def signs(bench):
    return {sheet.signs["grid_power"] for sheet in bench.services.balance.sheets()}


@pytest.fixture(autouse=True)
def _directories(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
