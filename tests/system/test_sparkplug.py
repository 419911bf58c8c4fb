"""Sparkplug with real programs: mosquitto, the simulated SEMS, the gateway, and a host that we did not write."""

import signal

import pytest

from tests.kit.process import eventually
from tests.kit.sparkplug import metrics_of, sparkplug_host
from tests.system.conftest import CONFIG, INVERTER

pytestmark = pytest.mark.system

SPARKPLUG = CONFIG.replace(
    "port: {mqtt}}}", "port: {mqtt}, payload: sparkplug, sparkplug: {{group: plant 7, primary_host: scada}}}}"
)
LIMIT = "active_power_limit"


@pytest.fixture
def plant(plant):
    plant.configure(text=SPARKPLUG)
    return plant


def seen(host, type_, name, value, device=INVERTER):
    return any(values.get(name) == value for values in host.values(type_, device))


def test_a_host_sees_births_data_and_death_and_its_write_reaches_the_inverter(plant):
    with (
        plant.broker(),
        plant.simulator(),
        sparkplug_host(plant.mqtt, group="plant 7", node="system-test") as host,
    ):
        with plant.gateway() as gateway:
            gateway.line("waits for the primary host scada")
            assert not host.raw
            host.state(online=True)
            eventually(lambda: host.all("DBIRTH", INVERTER), otherwise="no birth")
            assert host.raw[0]["type"] == "NBIRTH"
            eventually(lambda: host.values("DDATA", INVERTER), otherwise="no data")

            alias = next(
                m["alias"] for m in host.all("DBIRTH", INVERTER)[0]["payload"]["metrics"] if m["name"] == LIMIT
            )
            host.write(INVERTER, {"alias": int(alias), "type": "DOUBLE", "value": 10.0})
            eventually(lambda: seen(host, "DDATA", f"command/{LIMIT}/state", "succeeded"))
            assert plant.true_limit() == 10.0
            eventually(lambda: seen(host, "DDATA", LIMIT, 10.0))
            eventually(
                lambda: any(v.get("ac_power", 9e9) <= 1000.5 for v in host.values("DDATA", INVERTER)),
                otherwise="the inverter does not obey",
            )
            host.write(INVERTER, {"name": LIMIT, "type": "DOUBLE", "value": 101.0})
            eventually(lambda: seen(host, "DDATA", f"command/{LIMIT}/reason", "out_of_range"))
            assert plant.true_limit() == 10.0

            births = len(host.all("NBIRTH"))
            host.rebirth()
            eventually(lambda: len(host.all("NBIRTH")) > births)
            newest = metrics_of(host.all("NBIRTH")[-1])["bdSeq"]["long_value"]
            gateway.end(signal.SIGKILL)
        death = eventually(lambda: host.all("NDEATH"))[0]
        assert metrics_of(death)["bdSeq"]["long_value"] == newest
        assert not host.errors
        with plant.gateway():
            eventually(lambda: metrics_of(host.all("NBIRTH")[-1])["bdSeq"]["long_value"] == str(int(newest) + 1))


def test_sems_away_is_the_death_of_the_devices_and_its_return_their_birth(plant):
    with plant.broker(), sparkplug_host(plant.mqtt, group="plant 7", node="system-test") as host, plant.gateway():
        host.state(online=True)
        with plant.simulator():
            eventually(lambda: host.all("DBIRTH", INVERTER))
        eventually(lambda: host.all("DDEATH", INVERTER))
        births = len(host.all("DBIRTH", INVERTER))
        with plant.simulator():
            eventually(lambda: len(host.all("DBIRTH", INVERTER)) > births)
