"""The configuration that the demo runs with, as a user would write it."""

from typing import Final

from gateway.core.points import SETPOINTS

ACCOUNT: Final = "demo"
DATA_DIR: Final = "data"
_TEMPLATE: Final = """\
# What `sems-gateway demo` runs with. To start from it: put your SEMS account and your region's host in,
# leave out poll_interval and calls_per_hour, name your broker, and allow no more than you mean to. Most have one
# account, in the classic Open API or on the developer platform; both are here because EV chargers take commands from
# the newer one alone.
# config.example.yaml explains every line.

gateway:
  id: demo
  data_dir: {data_dir}

bridges:
  sems:
    type: open_api
    url: {sems_url}
    account: {account}
    password: {account}
    poll_interval: 2
    calls_per_hour: 100000

  newer:
    type: open_api
    platform: developer
    url: {sems_url}
    client_id: {account}
    client_secret: {account}
    poll_interval: 2
    calls_per_hour: 100000

  mqtt:
    type: mqtt
    host: 127.0.0.1
    port: {mqtt_port}

  modbus:
    type: modbus
    host: 127.0.0.1
    port: {modbus_port}

control:
  enabled: true
  allow:
    - devices: ["*"]
      setpoints: [{setpoints}]
"""


def config_text(*, sems_url: str, mqtt_port: int, modbus_port: int) -> str:
    """Return the YAML."""
    return _TEMPLATE.format(
        sems_url=sems_url,
        mqtt_port=mqtt_port,
        modbus_port=modbus_port,
        account=ACCOUNT,
        data_dir=DATA_DIR,
        setpoints=", ".join(SETPOINTS),
    )
