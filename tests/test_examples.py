"""Topics, setpoints and fields that the examples name are the gateway's own."""

import json
import re
import shutil
import subprocess
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from paho.mqtt.client import topic_matches_sub

from gateway.api.registry import installed
from gateway.bridges.mqtt import payloads, topics
from gateway.bridges.web import WebSettings
from gateway.commands import requests
from gateway.core.model import (
    Command,
    CommandEvent,
    CommandState,
    Device,
    DeviceKind,
    DeviceState,
    Quality,
    Reason,
    Severity,
)
from gateway.core.points import POINTS, SETPOINTS, Kind
from gateway.run.settings import Config
from tests.kit.certificates import Authority

EXAMPLES = Path(__file__).parents[1] / "examples"
FLOW = json.loads((EXAMPLES / "node-red" / "flow.json").read_text())
TELEGRAF = tomllib.loads((EXAMPLES / "telegraf" / "telegraf.conf").read_text())
AUTOMATIONS = yaml.safe_load((EXAMPLES / "home-assistant" / "automation.yaml").read_text())

NOON = datetime(2026, 6, 21, 12, tzinfo=UTC)
SERIAL = "9010KETU000W0001"
T = topics.Topics("sems")
DEVICE = Device(serial=SERIAL, name="House", model="GW10K-ET", kind=DeviceKind.INVERTER, plant="plant-1")
STATE = DeviceState(
    device=DEVICE,
    quality=Quality.GOOD,
    time=NOON,
    source="sems",
    values=dict.fromkeys((name for name, point in POINTS.items() if point.kind is not Kind.SETPOINT), 1.0),
)
COMMAND = Command(id="c", serial=SERIAL, setpoint="running", value=True, origin="mqtt", created=NOON, expires=NOON)
STEP = CommandEvent(command=COMMAND, state=CommandState.ACCEPTED, time=NOON)
# The topic of alarms comes with another change; from then on the gateway's own names are compared.
ALARM = f"{T.root(SERIAL)}/{topics.ALARM}"
ALARM_FIELDS = {"state", "id", "serial", "code", "text", "severity", "raised", "cleared", "time"}

TEXT = None
PUBLISHED = {
    T.root(SERIAL): json.loads(payloads.state(STATE)) | dict.fromkeys(SETPOINTS),
    f"{T.root(SERIAL)}/{topics.AVAILABILITY}": TEXT,
    f"{T.root(SERIAL)}/{topics.DEVICE}": json.loads(payloads.device(DEVICE, {})),
    f"{T.root(SERIAL)}/{topics.RESULT}": json.loads(payloads.step(STEP)),
    ALARM: dict.fromkeys(ALARM_FIELDS),
    T.bridge_state: TEXT,
    T.bridge_info: json.loads(payloads.info(T, "house", NOON)),
    T.bridge_health: json.loads(payloads.health(NOON, [], payloads.qualities([STATE]), 0, 0)),
}
"""Topic → what its messages have; TEXT where it is a word."""


def published(subscription):
    """Return what the messages have that a subscription brings; fails where it would bring none, or several kinds."""
    found = [topic for topic in PUBLISHED if topic_matches_sub(subscription, topic)]
    assert len(found) == 1, f"{subscription} brings {found or 'nothing'}"
    return PUBLISHED[found[0]]


@pytest.mark.skipif(not hasattr(payloads, "alarm"), reason="alarms are published from a later change on")
def test_alarms_have_the_fields_that_the_examples_expect():
    from gateway.core.model import Alarm

    alarm = Alarm(id="1", serial=SERIAL, code="F1", text="", severity=Severity.FAULT, raised=NOON)
    assert json.loads(payloads.alarm(alarm, NOON)).keys() == ALARM_FIELDS


# Node-RED


def functions():
    return {node["name"]: node["func"] for node in FLOW if node["type"] == "function"}


SUBSCRIBED = {node["topic"]: node for node in FLOW if node["type"] == "mqtt in"}
OWN = {"energy/price": TEXT}
"""What the flow listens to that is not the gateway's."""


@pytest.mark.parametrize("topic", SUBSCRIBED)
def test_the_flow_subscribes_to_what_is_published(topic):
    if topic not in OWN:
        published(topic)


READS = {
    "devices": {"state": T.root(SERIAL), "now": T.root(SERIAL), "device": f"{T.root(SERIAL)}/{topics.DEVICE}"},
    "results": {"step": f"{T.root(SERIAL)}/{topics.RESULT}"},
    "alarms": {"alarm": ALARM},
}
"""Function node → its variables that are messages, and of which topic."""


@pytest.mark.parametrize(("function", "variable"), [(f, v) for f, names in READS.items() for v in names])
def test_the_flow_reads_fields_that_there_are(function, variable):
    code = functions()[function]
    fields = set(re.findall(rf"(?<![.\w]){variable}\.(\w+)", code))
    if variable == "now":
        fields = set(re.findall(r"'(\w+)'", re.search(r"now && \[(.*?)\]", code)[1]))
    # `devices[serial]` keeps the two halves of a device under names of the flow's own.
    fields -= {"name", "state"} if variable == "device" else set()
    if variable == "device":
        assert "device.name" in code
        fields.add("name")
    assert fields
    assert fields <= PUBLISHED[READS[function][variable]].keys()


def test_the_flows_tables_and_gauges_show_what_there_is():
    codes = "\n".join(functions().values())
    for node in FLOW:
        if node["type"] == "ui-table":
            for column in node["columns"]:
                assert re.search(rf"^\s+.*\b{column['key']}[:,]", codes, re.MULTILINE), column
        if node["type"] == "ui-gauge":
            assert node["value"].removeprefix("payload.") in POINTS
            assert node["units"] == POINTS[node["value"].removeprefix("payload.")].unit


def test_the_flow_sets_a_setpoint_with_fields_that_a_set_may_have():
    code = functions()["limit by price"]
    (setpoint,) = re.findall(r"'/set/(\w+)'", code)
    assert setpoint in SETPOINTS
    fields = set(
        re.findall(r"^    (\w+): ", re.search(r"const command = \{(.*?)\n\}", code, re.DOTALL)[1], re.MULTILINE)
    )
    fields |= set(re.findall(r"command\.(revert\w+) =", code))
    assert fields == {"value", *requests._FIELDS}
    assert SETPOINTS[setpoint].neutral == int(re.search(r"NO_LIMIT = (\d+)", code)[1])
    (out,) = (node for node in FLOW if node["type"] == "mqtt out")
    assert (out["qos"], out["retain"]) == ("1", "false")


def test_the_flow_knows_the_ends_of_a_command():
    code = functions()["results"]
    named = set(re.findall(r"'(\w+)'", re.search(r"const BAD = \[(.*?)\]", code)[1]))
    assert named == {"rejected", "failed", "unknown", "expired"}
    assert named | {"succeeded"} <= {str(state) for state in CommandState}


def test_the_flow_is_wired_to_nodes_that_there_are():
    known = {node["id"] for node in FLOW}
    assert len(known) == len(FLOW)
    for node in FLOW:
        assert {target for wires in node.get("wires", []) for target in wires} <= known
        for key in ("z", "broker", "group", "page", "ui", "theme"):
            assert node["type"] == "mqtt-broker" or node.get(key) in {None, *known}, node
    for node in FLOW:
        assert not node.get("credentials")


# Telegraf

INPUTS = TELEGRAF["inputs"]["mqtt_consumer"]


@pytest.mark.parametrize("consumer", INPUTS, ids=lambda consumer: consumer["topics"][0])
def test_telegrafs_topics_fields_and_tags_are_the_gateways(consumer):
    for topic in consumer["topics"]:
        have = published(topic)
        if consumer["data_format"] == "value":
            assert have is TEXT
            continue
        for parser in consumer["json_v2"]:
            for each in parser.get("object", []):
                assert each["path"] == "@this"
                named = {each["timestamp_key"], *each["tags"], *each.get("excluded_keys", []), *each.get("fields", {})}
                assert named <= have.keys()
                # A key of the topic and one of the payload would be a tag and a field of one name.
                assert "serial" not in have.keys() - set(each.get("excluded_keys", []))
            for field in parser.get("field", []):
                value = have
                for key in field["path"].split("."):
                    value = value[key]
                assert isinstance(value, {"bool": bool, "int": int}[field["type"]])


@pytest.mark.parametrize("consumer", INPUTS, ids=lambda consumer: consumer["topics"][0])
def test_telegraf_takes_the_serial_number_from_the_topic(consumer):
    """Its rule: as many levels in `tags` as in `topic`, `_` for those that are no tag."""
    parsed = consumer.get("topic_parsing", [])
    for each in parsed:
        levels = each["tags"].split("/")
        assert len(levels) == len(each["topic"].split("/"))
        assert levels[1] == "serial"
        assert set(levels) == {"_", "serial"}
    if consumer["topics"] != [T.bridge_health]:
        assert [each["topic"] for each in parsed] == consumer["topics"]


def test_telegraf_reads_our_times():
    """Go's layout for RFC 3339; it takes fractions of a second without being told (Go, package time)."""
    text = (EXAMPLES / "telegraf" / "telegraf.conf").read_text()
    assert set(re.findall(r'timestamp_format = "(.*)"', text)) == {"2006-01-02T15:04:05Z07:00"}
    assert PUBLISHED[T.root(SERIAL)]["time"] == "2026-06-21T12:00:00.000Z"


# Home Assistant


def test_the_automations_speak_of_topics_setpoints_and_states_that_there_are():
    text = (EXAMPLES / "home-assistant" / "automation.yaml").read_text()
    published_to = re.findall(r"topic: (sems/\S+)", text)
    assert published_to
    for topic in published_to:
        setting = T.parse_set(topic)
        if setting:
            assert setting.setpoint in SETPOINTS
            payload = re.search(rf"topic: {topic}.*?payload: >-\n\s+(.*?)\n", text, re.DOTALL)[1]
            assert set(re.findall(r'"(\w+)": ', payload)) <= {"value", *requests._FIELDS}
        else:
            fields = set(re.findall(r"payload_json\.(\w+)", text))
            assert fields
            assert fields <= published(topic).keys()
    states = re.search(r"payload_json\.state in \[(.*?)\]", text)[1]
    assert set(re.findall(r"'(\w+)'", states)) <= {str(state) for state in CommandState}
    for setpoint in re.findall(r"number\.house_(\w+)", text):
        assert setpoint in SETPOINTS
    assert all(automation["triggers"] and automation["actions"] for automation in AUTOMATIONS)


def test_the_energy_dashboard_is_given_totals():
    given = yaml.safe_load((EXAMPLES / "home-assistant" / "energy.yaml").read_text())["energy_dashboard"]
    for sensors in given.values():
        for sensor in sensors.values():
            point = POINTS[sensor.removeprefix("sensor.house_")]
            assert (point.kind, point.unit) == (Kind.TOTAL, "kWh")


def test_the_reasons_that_the_examples_name_are_ours():
    for page in EXAMPLES.rglob("README.md"):
        for word in re.findall(r"`(\w+_\w+)`", page.read_text()):
            known = {*map(str, Reason), *POINTS, *requests._FIELDS}
            environment = {variable["name"] for node in FLOW for variable in node.get("env", [])}
            assert word in known | environment, f"{page}: {word}"


@pytest.mark.parametrize("page", sorted(EXAMPLES.rglob("README.md")), ids=lambda page: page.parent.name)
def test_links_of_the_examples_lead_somewhere(page):
    for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), link
    for file in re.findall(r"`([\w-]+\.(?:yaml|json|conf))`", page.read_text()):
        assert (page.parent / file).exists(), file


CONFIGURATION = (EXAMPLES.parent / "config.example.yaml").read_text()
COMMENTED = re.compile(r"^( +)# [a-z_]+:.*\n(?:\1# .*\n)*", re.MULTILINE)
"""A setting or a section that is commented out, as a whole."""


def uncommented(block):
    """The block without the first `#` of each line."""
    return re.sub(r"^( *)# ", r"\1", block, flags=re.MULTILINE)


def instead(text):
    """The text without what another line of it says it stands instead of."""
    for names in re.findall(r"^ +[a-z_]+: .*# instead of (.*)", text, re.MULTILINE):
        for name in names.split(" and "):
            text = re.sub(rf"^ +{name}: .*\n", "", text, flags=re.MULTILINE)
    return text


def blocks(text):
    return [match[0] for match in COMMENTED.finditer(text)]


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """Loads a configuration beside which everything lies that the example names."""
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"{env: (\w+)}", CONFIGURATION):
        monkeypatch.setenv(name, f"{name}-with-thirty-two-characters-and-more")
    certificate, key = Authority(tmp_path).sign("server", server=True)
    for name in ("ca.pem", "gateway.pem", "fullchain.pem"):
        (tmp_path / name).write_bytes(certificate.read_bytes())
    for name in ("gateway.key", "privkey.pem"):
        (tmp_path / name).write_bytes(key.read_bytes())
    for name in ("numbers.txt", "whitelist.txt"):
        (tmp_path / name).write_text("9010KETU000W0001\n")

    def load(text):
        file = tmp_path / "config.yaml"
        file.write_text(text)
        return Config.load(file, installed())

    return load


def test_the_example_configuration_is_in_order_and_read_only(loaded):
    assert not loaded(CONFIGURATION).root.control.enabled


@pytest.mark.parametrize("block", blocks(CONFIGURATION), ids=lambda block: block.split(":")[0].strip(" #"))
def test_each_part_of_the_example_configuration_may_be_uncommented(loaded, block):
    before, after = loaded(CONFIGURATION), loaded(CONFIGURATION.replace(block, uncommented(block)))
    assert after.root != before.root
    for inner in blocks(uncommented(block)):
        loaded(CONFIGURATION.replace(block, instead(uncommented(block).replace(inner, uncommented(inner)))))


def test_all_of_them_may_be_at_once(loaded):
    text = COMMENTED.sub(lambda match: uncommented(match[0]), CONFIGURATION)
    found = loaded(instead(COMMENTED.sub(lambda match: uncommented(match[0]), text)))
    types = {bridge.type for bridge in found.bridges}
    assert types >= {"open_api", "realtime", "push", "csip", "batch", "kafka", "web"}
    assert found.root.control.allow


# Prometheus

PROMETHEUS = EXAMPLES / "prometheus"
RULES = [
    rule for group in yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD = json.loads((PROMETHEUS / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = {rule["alert"]: rule["expr"] for rule in RULES} | {
    f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]
}
OF_PYTHON = {"up": set(), "process_resident_memory_bytes": set(), "process_cpu_seconds_total": set()}
"""Metrics that are Prometheus's own, or prometheus_client's."""
OF_A_TARGET = {"job", "instance"}
"""Labels that Prometheus adds."""
SELECTOR = re.compile(r"\b([a-z_]\w*)\b(?!\s*\()(?:\{([^}]*)\})?")
WORDS = {"by", "or", "unless", "offset", "and", "le"}


def scraped():
    """Name of each series that /metrics has → its labels."""
    found = dict(OF_PYTHON)
    for line in (EXAMPLES.parent / "tests" / "core" / "metrics.txt").read_text().splitlines():
        name, kind, *labels = line.split()
        own = set(labels[0].split(",")) if labels else set()
        if kind == "histogram":
            found |= {f"{name}_bucket": own | {"le"}, f"{name}_sum": own, f"{name}_count": own}
        else:
            found[f"{name}_total" if kind == "counter" else name] = own
    return found


def selectors(expression):
    """What an expression reads: (metric, labels that it selects by)."""
    bare = re.sub(r"\b(?:by|without|on|ignoring) \([^)]*\)", "", expression)
    bare = re.sub(r"\[[^\]]*\]|\boffset \w+", "", bare)
    for name, chosen in SELECTOR.findall(bare):
        if name not in WORDS:
            yield name, {each.partition("=")[0].rstrip("!~") for each in re.findall(r"(\w+)\s*[=!]", chosen)}


def balanced(text):
    """Whether each bracket has its other half, outside of texts."""
    open_, pairs = [], {")": "(", "]": "[", "}": "{"}
    for char in re.sub(r'"(?:\\.|[^"\\])*"', "", text):
        if char in pairs.values():
            open_.append(char)
        elif char in pairs and (not open_ or open_.pop() != pairs[char]):
            return False
    return not open_


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_rules_and_dashboard_read_metrics_that_there_are_by_labels_that_they_have(expression):
    known = scraped()
    assert balanced(expression)
    found = list(selectors(expression))
    assert found
    for metric, labels in found:
        assert metric in known
        assert labels <= known[metric] | OF_A_TARGET, metric
    grouped = {label for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in re.split(r",\s*", group)}
    assert grouped <= set().union(*(known[metric] for metric, _ in found))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_alert_says_what_is_wrong_and_what_to_do(rule):
    wrong, colon, todo = rule["annotations"]["summary"].partition(": ")
    assert wrong
    assert colon
    assert todo.partition(" ")[0] in {"see", "read", "look", "find", "bring"}
    assert rule["annotations"]["description"]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    # What an alert says of its series, its series have.
    known = scraped()
    labels = set().union(OF_A_TARGET, *(known[metric] for metric, _ in selectors(rule["expr"])))
    for text in rule["annotations"].values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels


def test_each_alert_is_in_the_readme_and_in_the_test_of_the_rules():
    names = {rule["alert"] for rule in RULES}
    assert len(names) == len(RULES)
    assert set(re.findall(r"SemsGateway\w+", (PROMETHEUS / "README.md").read_text())) == names
    tested = yaml.safe_load((PROMETHEUS / "alerts_test.yaml").read_text())["tests"][-1]["promql_expr_test"][0]
    assert {re.search(r'"(\w+)"', sample["labels"])[1] for sample in tested["exp_samples"]} == names


def test_what_the_rules_are_there_for_is_watched():
    watched = {metric for rule in RULES for metric, _ in selectors(rule["expr"])}
    assert watched >= {
        "up",
        "sems_gateway_bridge_up",
        "sems_gateway_devices",
        "sems_gateway_journal_up",
        "sems_gateway_loop_stall_seconds",
        "sems_gateway_commands_total",
        "sems_gateway_halted",
        "sems_gateway_sems_budget_used",
        "sems_gateway_dropped_total",
    }
    states = "".join(rule["expr"] for rule in RULES if "commands" in rule["expr"])
    assert set(re.findall(r'state="(\w+)"', states)) == {"failed", "unknown"} <= {str(state) for state in CommandState}


def test_the_scrape_configuration_names_the_rules_and_the_job_that_they_watch():
    scrape = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())
    assert scrape["rule_files"] == ["alerts.yaml"]
    (job,) = scrape["scrape_configs"]
    jobs = {found for rule in RULES for found in re.findall(r'job="(.*?)"', rule["expr"])}
    assert jobs == {job["job_name"]}
    (target,) = job["static_configs"][0]["targets"]
    settings = WebSettings()
    assert target == f"{settings.host}:{settings.port}"


def test_the_panels_of_the_dashboard_do_not_lie_on_each_other_and_their_variables_are_there():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    cells = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & cells, panel["title"]
        assert max(x for x, _ in own) < 24
        cells |= own
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used - {"__rate_interval", "__all"} == variables
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            query, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()
            ((metric, labels),) = selectors(query)
            assert {*labels, label} <= scraped()[metric] | OF_A_TARGET


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_rules_and_what_the_dashboard_asks(tmp_path):
    def promtool(*arguments):
        done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    promtool("check", "config", "prometheus.yaml")
    promtool("test", "rules", "alerts_test.yaml")
    asked = [
        {"record": f"panel:{n}", "expr": expression.replace("$__rate_interval", "5m")}
        for n, expression in enumerate(EXPRESSIONS.values())
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": asked}]}))
    promtool("check", "rules", str(file))
