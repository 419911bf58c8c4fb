"""The add-on: its folder is as Home Assistant's Supervisor wants it, and what is entered there becomes a configuration.

docs/container.md says how it is made. The rules are those of the Supervisor's developer documentation. Its own
validator, of 2026-08, took both files once, by hand: it needs Python 3.14, so it is not run here.
"""

import json
import re
import struct
import sys
import threading
import tomllib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from paho.mqtt import subscribe

from tests.kit.mosquitto import mosquitto
from tests.kit.ports import free_port
from tests.kit.process import ROOT, environment, eventually, finished, running, sems_gateway

ADDON = ROOT / "deploy" / "home-assistant"
CONFIG = yaml.safe_load((ADDON / "config.yaml").read_text())
REQUIRED = {"name", "version", "slug", "description", "arch"}
KINDS = re.compile(r"(str|password|int|float)(\(\d*,\d*\))?\??|(bool|email|url|port|device)\??|(list|match)\(.+\)\??")
ENTERED = CONFIG["options"] | {"account": "demo", "password": "demo"}


def test_the_folder_is_as_the_supervisor_wants_it():
    assert CONFIG.keys() >= REQUIRED
    assert re.fullmatch(r"[-_.A-Za-z0-9]+", CONFIG["slug"])
    assert set(CONFIG["arch"]) <= {"aarch64", "amd64"}
    assert CONFIG["backup"] in {"hot", "cold"}
    assert 10 <= CONFIG["timeout"] <= 300
    assert CONFIG["ports"].keys() == CONFIG["ports_description"].keys()
    assert all(re.fullmatch(r"(mqtt|mysql):(provide|want|need)", each) for each in CONFIG["services"])
    for kind in CONFIG["schema"].values():
        assert KINDS.fullmatch(*kind if isinstance(kind, list) else [kind]), kind
    png = (ADDON / "icon.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", png[16:24]) == (128, 128)


def test_its_version_is_the_gateways():
    assert CONFIG["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_each_option_has_a_kind_a_name_and_a_line_in_its_documentation():
    words = yaml.safe_load((ADDON / "translations" / "en.yaml").read_text())
    assert words["configuration"].keys() == CONFIG["schema"].keys()
    assert words["network"].keys() == CONFIG["ports"].keys()
    text = (ADDON / "DOCS.md").read_text()
    assert all(f"`{name}`" in text for name in CONFIG["schema"])
    # What has no default may be left out, and says so.
    left_out = {name for name, kind in CONFIG["schema"].items() if kind[-1] == "?"}
    assert CONFIG["options"].keys() == CONFIG["schema"].keys() - left_out


@contextmanager
def supervisor(broker):
    """Answer as the Supervisor does to an add-on that asks for the broker; None: there is none."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.path == "/services/mqtt" and self.headers["Authorization"] == "Bearer of-the-addon"
            body = json.dumps({"result": "ok", "data": broker}).encode() if known and broker else b"{}"
            self.send_response(200 if known and broker else 400)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def started(directory, options, broker=None, **env):
    """Run the add-on's start with what was entered; the gateway that it becomes."""
    directory.mkdir(exist_ok=True)
    (directory / "options.json").write_text(json.dumps(options))
    with supervisor(broker) as url:
        env = environment(
            ADDON_DATA=str(directory), ADDON_CONFIG=str(directory / "own"), SUPERVISOR=url,
            SUPERVISOR_TOKEN="of-the-addon", **env,
        )  # fmt: skip
        with running(sys.executable, str(ADDON / "run"), env=env, cwd=directory) as gateway:
            gateway.line('"starting"')
            yield gateway


@pytest.mark.system
async def test_what_is_entered_becomes_a_gateway_that_publishes_to_home_assistants_broker(tmp_path):
    port = free_port()
    async with mosquitto(tmp_path, users={"addons": "secret"}) as broker:
        names = {"host": "127.0.0.1", "port": broker.port, "username": "addons", "password": "secret", "ssl": False}
        with sems_gateway("simulate", "--port", port) as cloud:
            cloud.line("ready")
            options = ENTERED | {"url": f"http://127.0.0.1:{port}"}
            with started(tmp_path / "data", options, names) as gateway:
                gateway.line('"mqtt".*"up"')
                login = {"username": "addons", "password": "secret"}
                seen = subscribe.simple(
                    "homeassistant/device/+/config", hostname="127.0.0.1", port=broker.port, auth=login
                )
                assert "homeassistant/device/" in seen.topic
    file = tmp_path / "data" / "gateway" / "config.yaml"
    assert file.stat().st_mode & 0o77 == 0, "it has passwords in it"


@pytest.mark.system
def test_every_option_has_its_effect(tmp_path):
    options = ENTERED | {
        "platform": "developer", "region": "eu", "mqtt_host": "127.0.0.1", "mqtt_port": free_port(),
        "mqtt_username": "me", "mqtt_password": "mine", "modbus": True, "page_token": "sixteen-characters",
        "control": ["active_power_limit"], "log_level": "debug",
    }  # fmt: skip
    assert options.keys() | {"url"} == CONFIG["schema"].keys()
    ports = {f"SEMS_GATEWAY_BRIDGES__{name}__PORT": str(free_port()) for name in ("MODBUS", "WEB")}
    ports["SEMS_GATEWAY_BRIDGES__SEMS__URL"] = f"http://127.0.0.1:{free_port()}"
    with started(tmp_path, options, **ports) as gateway:
        eventually(lambda: '"debug"' in gateway.text)
    written = yaml.safe_load((tmp_path / "gateway" / "config.yaml").read_text())
    done = finished("check", tmp_path / "gateway" / "config.yaml")
    assert done.returncode == 0, done.stderr
    assert "sems (open_api), mqtt (mqtt), modbus (modbus), web (web)" in done.stdout
    assert "read-only" not in done.stdout
    sems, mqtt = written["bridges"]["sems"], written["bridges"]["mqtt"]
    assert (sems["client_id"], sems["client_secret"], sems["region"]) == ("demo", "demo", "eu")
    assert (mqtt["port"], mqtt["username"], mqtt["password"]) == (options["mqtt_port"], "me", "mine")
    assert written["control"]["allow"] == [{"devices": ["*"], "setpoints": ["active_power_limit"]}]


@pytest.mark.system
def test_without_a_broker_it_runs_all_the_same_and_a_configuration_of_ones_own_counts_instead(tmp_path):
    url = {"SEMS_GATEWAY_BRIDGES__SEMS__URL": f"http://127.0.0.1:{free_port()}"}
    with started(tmp_path, ENTERED, **url) as gateway:
        assert "names no MQTT broker" in gateway.text
    assert set(yaml.safe_load((tmp_path / "gateway" / "config.yaml").read_text())["bridges"]) == {"sems"}
    (tmp_path / "own").mkdir()
    own = tmp_path / "own" / "config.yaml"
    own.write_text("gateway: {id: my-own}\nbridges: {sems: {type: open_api, account: a, password: b}}\n")
    with started(tmp_path, ENTERED, **url) as gateway:
        assert str(own) in gateway.text
