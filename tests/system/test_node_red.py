"""examples/node-red/flow.json in a real Node-RED, with gateway, simulated SEMS and mosquitto as processes."""

import json
import re
import signal

import httpx
import pytest

from tests.kit.node_red import node_red
from tests.kit.process import ROOT, eventually
from tests.system.conftest import CONFIG, INVERTER

pytestmark = pytest.mark.system
FLOW = ROOT / "examples" / "node-red" / "flow.json"
LOWEST = 5
SETTINGS = CONFIG.replace("setpoints: [active_power_limit, running]", f"setpoints: [active_power_limit], min: {LOWEST}")
"""The flow's own limit of 0 % is lower than what these allow."""


def flow_for(plant, **changes):
    """Return the flow with what the README says to set: the broker, and the tab's environment."""
    nodes = json.loads(FLOW.read_text())
    for node in nodes:
        if node["type"] == "mqtt-broker":
            node |= {"broker": "127.0.0.1", "port": str(plant.mqtt)}
        if node["type"] == "tab":
            for variable in node["env"]:
                variable["value"] = str(changes.get(variable["name"], variable["value"]))
    return nodes


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Return plant, Node-RED and an open dashboard."""
    from tests.system.conftest import Plant

    plant = Plant(tmp_path_factory.mktemp("node-red"))
    plant.configure(text=SETTINGS)
    with (
        plant.everything(),
        node_red(plant.directory / "node-red", flow_for(plant, LIMIT=10)) as red,
        red.dashboard() as dashboard,
    ):
        red.process.line("Connected to broker")
        yield plant, red, dashboard


def test_every_node_of_the_flow_is_known_and_none_complains(seen):
    _, red, dashboard = seen
    eventually(lambda: dashboard.config)
    assert "missing" not in red.process.text
    assert "error" not in red.process.text.lower()
    widgets = {node["id"] for node in json.loads(FLOW.read_text()) if "group" in node}
    assert widgets <= dashboard.config["widgets"].keys()
    page = httpx.get(f"{red.url}/dashboard/sems", timeout=120, trust_env=False)
    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]


def test_live_values_arrive_on_the_dashboard(seen):
    plant, _, dashboard = seen
    everything = serials(plant)
    rows = dashboard.until_it_shows("sems-table", lambda rows: everything <= {row["serial"] for row in rows})
    row = next(row for row in rows if row["serial"] == INVERTER)
    assert (row["name"], row["data"]) == ("House", "good")

    state = plant.state()
    assert dashboard.until_it_shows("sems-soc", lambda value: value is not None) == pytest.approx(
        state["battery_soc"], abs=5
    )
    assert dashboard.until_it_shows("sems-pv", lambda value: (value or 0) > 0) == pytest.approx(
        state["pv_power"], rel=0.3
    )
    assert dashboard.until_it_shows("sems-data", lambda text: text.startswith("good, 2026-"))


def serials(plant):
    """Return the devices that there are behind the cloud."""
    return {device["serial"] for each in plant.ask_simulator("state")["plants"] for device in each["devices"]}


def test_a_low_price_limits_the_inverter_and_a_high_one_lifts_it(seen):
    plant, red, dashboard = seen
    plant.publish("energy/price", "-1.5", *price_options())
    dashboard.until_it_shows("sems-decision", lambda text: text == "limit 10 % at -1.5 ct/kWh")
    dashboard.until_it_shows("sems-last", lambda text: text == "done")
    assert plant.true_limit() == 10.0
    assert dashboard.until_it_shows("sems-price", lambda value: True) == -1.5
    limited = dashboard.until_it_shows("sems-commands", lambda rows: rows[0]["state"] == "succeeded")[0]
    assert (limited["serial"], limited["setpoint"], limited["value"]) == (INVERTER, "active_power_limit", 10)
    assert limited["id"].startswith("price-")

    dashboard.enter("sems-price", 8.2)
    dashboard.until_it_shows("sems-decision", lambda text: text == "limit 100 % at 8.2 ct/kWh")
    dashboard.until_it_shows("sems-commands", lambda rows: done(rows[0], 100))
    assert plant.true_limit() == 100.0

    # Lifted is lifted: a further high price asks for nothing.
    dashboard.enter("sems-price", 9)
    dashboard.until_it_shows("sems-decision", lambda text: text == "no limit at 9 ct/kWh")
    plant.clear("energy/price")
    red.process.line("not a price: $")


def price_options():
    """Return what the README's mosquitto_pub is told besides topic and price."""
    (line,) = re.findall(r"mosquitto_pub (.*) -t energy/price -m -1\.5", FLOW.with_name("README.md").read_text())
    return line.split()


def done(row, value):
    return (row["value"], row["state"]) == (value, "succeeded")


def test_the_gateway_lifts_the_limit_when_node_red_says_nothing_more(seen):
    """Another Node-RED, that is killed; the gateway's dead-man's timer does the rest."""
    plant, _, _ = seen
    flow = flow_for(plant, LIMIT=20, REVERT_AFTER=8)
    with (
        node_red(plant.directory / "killed", flow) as red,
        red.dashboard() as dashboard,
        plant.subscribe("sems/+/result") as results,
    ):
        dashboard.enter("sems-price", -2)
        results.line(r'"value":20\.0,"state":"succeeded"')
        red.process.end(signal.SIGKILL)
        results.line(r'"value":100\.0,"state":"succeeded".*"origin":"revert"')
    assert plant.true_limit() == 100.0


def test_a_refused_command_is_shown_with_its_reason(seen):
    plant, _, dashboard = seen
    plant.publish(f"sems/{INVERTER}/set/active_power_limit", json.dumps({"value": LOWEST - 1, "id": "too-low"}))
    rows = dashboard.until_it_shows("sems-commands", lambda rows: rows[0]["id"] == "too-low")
    assert rows[0]["state"] == "rejected"
    assert rows[0]["why"].startswith("out_of_range: ")
    told = dashboard.until_it_shows("sems-told", lambda text: "rejected" in text)
    assert told.startswith(f"active_power_limit of {INVERTER}: rejected, out_of_range: ")


def test_no_price_changes_nothing(seen):
    plant, red, dashboard = seen
    before = dashboard.shows("sems-commands"), dashboard.shows("sems-decision")
    said = refusals(red)
    for odd in ("cheap", '{"value": "x"}', "NaN", "-Infinity", ""):
        plant.publish("energy/price", odd)
    eventually(lambda: refusals(red) == said + 5)
    assert (dashboard.shows("sems-commands"), dashboard.shows("sems-decision")) == before


def refusals(red):
    return sum("not a price: " in line for line in list(red.process.lines))


def test_an_alarm_comes_and_goes(seen):
    plant, _, dashboard = seen
    alarm = {
        "state": "raised", "id": "4711", "serial": INVERTER, "code": "F12", "text": "Grid voltage too high",
        "severity": "fault", "raised": "2026-06-21T11:58:12.000Z", "cleared": None, "time": "2026-06-21T12:00:00.000Z",
    }  # fmt: skip
    plant.publish(f"sems/{INVERTER}/alarm", json.dumps(alarm))
    rows = dashboard.until_it_shows("sems-alarm-table", len)
    assert [(row["code"], row["severity"]) for row in rows] == [("F12", "fault")]
    assert "raised F12" in dashboard.until_it_shows("sems-alarm-told", len)
    cleared = alarm | {"state": "cleared", "cleared": "2026-06-21T12:01:00.000Z"}
    plant.publish(f"sems/{INVERTER}/alarm", json.dumps(cleared))
    dashboard.until_it_shows("sems-alarm-table", lambda rows: rows == [])
    dashboard.until_it_shows("sems-alarm-told", lambda text: "cleared F12" in text)


def test_when_the_gateway_goes_no_old_value_stands(tmp_path):
    from tests.system.conftest import Plant

    plant = Plant(tmp_path)
    plant.configure(text=SETTINGS)
    with (
        plant.broker(),
        plant.simulator(),
        plant.gateway() as gateway,
        node_red(tmp_path / "node-red", flow_for(plant)) as red,
        red.dashboard() as dashboard,
    ):
        dashboard.until_it_shows("sems-pv", lambda value: (value or 0) > 0, 40)
        gateway.end()
        dashboard.until_it_shows("sems-data", lambda text: text == "gateway offline")
        # What a page shows that is opened now.
        with red.dashboard() as later:
            for gauge in ("sems-pv", "sems-load", "sems-soc"):
                later.until_it_shows(gauge, lambda value: value is None)
            rows = later.until_it_shows("sems-table", lambda rows: rows[0]["data"] == "gateway offline")
            assert {row["data"] for row in rows} == {"gateway offline"}
