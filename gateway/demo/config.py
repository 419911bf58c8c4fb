"""The configuration that the demo runs with, as a user would write it."""

from typing import Final

from gateway.core.points import SETPOINTS

ACCOUNT: Final = "demo"
DATA_DIR: Final = "data"
TELEMETRY: Final = "goodwe.telemetry"
"""The topic that the simulated GoodWe writes to."""
TELEMETRY_INTERVAL: Final = 5
"""Seconds."""
SUPPLIER: Final = "demo"
"""Our name in the topics of batch control."""
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

  # For suppliers and grid companies with a licence: GoodWe's telemetry, and batch remote control, over Kafka.
  telemetry:
    type: kafka
    connection: &kafka
      bootstrap_servers: ["{kafka}"]
      options: {{fetch.wait.max.ms: 10}}   # the demo's Kafka is a mock that answers late; leave it out elsewhere
    telemetry:
      topics: [{telemetry}]
      interval: {telemetry_interval}

  batch:
    type: batch
    connection: *kafka
    supplier: {supplier}
    whitelist: "*"

  mqtt:
    type: mqtt
    host: 127.0.0.1
    port: {mqtt_port}
    protocol: "{mqtt_protocol}"
    home_assistant: true

  modbus:
    type: modbus
    host: 127.0.0.1
    port: {modbus_port}
    maps: [native, sunspec, goodwe]

  web:
    type: web
    port: {web_port}
    recent: 300   # the sun moves 30 times as fast here: as many minutes show more than two hours of it
    tokens: {{demo: {{token: {web_token}, write: true}}}}

control:
  enabled: true
  # What both Open API and batch can set goes by the first that is up; the rest by who can.
  order: [sems, newer, batch]
  resume: [cli, web/demo]   # who may let commands in again after a halt
  allow:
    - devices: ["*"]
      setpoints: [{setpoints}]
"""


def config_text(
    *, sems_url: str, mqtt_port: int, mqtt_protocol: str, modbus_port: int, web_port: int, web_token: str, kafka: str
) -> str:
    """Return the YAML."""
    return _TEMPLATE.format(
        sems_url=sems_url,
        mqtt_port=mqtt_port,
        mqtt_protocol=mqtt_protocol,
        modbus_port=modbus_port,
        web_port=web_port,
        web_token=web_token,
        kafka=kafka,
        telemetry=TELEMETRY,
        telemetry_interval=TELEMETRY_INTERVAL,
        supplier=SUPPLIER,
        account=ACCOUNT,
        data_dir=DATA_DIR,
        setpoints=", ".join(SETPOINTS),
    )
