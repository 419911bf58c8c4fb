"""The Real-Time Data API to Modbus with real programs: the simulated SEMS and the gateway as processes, and mbpoll."""

import pytest

from tests.kit.process import eventually, finished, sems_gateway
from tests.system.conftest import AC_POWER, INVERTER

pytestmark = pytest.mark.system

CONFIG = """\
gateway: {{id: supplier-test}}
bridges:
  supply:
    type: realtime
    client_id: supplier
    client_secret: {password}
    url: http://127.0.0.1:{sems}
    whitelist: [9010KETU218W0001, 9020KDTU219W0001]
    poll_interval: 1
    calls_per_hour: 1000000
  mqtt: {{type: mqtt, host: 127.0.0.1, port: {mqtt}}}
  modbus: {{type: modbus, port: {modbus}}}
"""


def test_a_whitelisted_inverter_is_in_mqtt_and_modbus_and_goes_stale_when_it_is_taken_off(plant):
    plant.configure("supplier", CONFIG)
    with plant.broker(), plant.simulator(), sems_gateway("run", plant.config):
        plant.wait_for_data()
        eventually(lambda: plant.power is not None)
        assert plant.read_float(AC_POWER) == pytest.approx(plant.state()["ac_power"], rel=0.2)
        plant.spoil(unauthorised=[INVERTER])
        eventually(lambda: plant.state()["quality"] == "stale")
        assert plant.state("9020KDTU219W0001")["quality"] == "good"
        listed = finished("devices", plant.config)
        assert "1 of 2 numbers unauthorised" in " ".join(listed.stderr.split())
