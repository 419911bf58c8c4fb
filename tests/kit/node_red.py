"""A real Node-RED from npm with its dashboard, and a client that does what a browser with the dashboard does."""

import json
import os
from contextlib import contextmanager

import pytest
import requests
import socketio
from engineio.payload import Payload

from tests.kit.mosquitto import need
from tests.kit.ports import free_port
from tests.kit.process import ROOT, environment, eventually, running

MODULES = ROOT / ".venv" / "node-red" / "node_modules"
"""Where tests/programs puts it. Node-RED finds the nodes that are beside itself."""
NEEDED = ("node-red/red.js", "@flowfuse/node-red-dashboard", "node-red-contrib-modbus")

# The dashboard sends more at once than the 16 packets that this client takes unless told.
Payload.max_decode_packets = 10_000

SETTINGS = {
    "uiHost": "127.0.0.1",
    "disableEditor": True,
    "telemetry": {"enabled": False, "updateNotification": False},
    "diagnostics": {"enabled": False, "ui": False},
    "runtimeState": {"enabled": False, "ui": False},
    "editorTheme": {"projects": {"enabled": False}, "tours": False},
    "externalModules": {
        "autoInstall": False,
        "palette": {"allowInstall": False, "allowUpload": False, "allowUpdate": False},
        "modules": {"allowInstall": False},
    },
    "credentialSecret": False,
}
"""It speaks to nobody but the loopback: no telemetry, no look for updates, nothing installed."""


def need_node_red():
    """Return the command that starts it; skip the test where it is missing, or fail where nothing may be skipped."""
    node = need("node")
    if not all((MODULES / name).exists() for name in NEEDED):
        text = "Node-RED is not installed (tests/programs does it, with npm)"
        pytest.fail(text) if os.environ.get("SEMS_GATEWAY_NO_SKIP") == "1" else pytest.skip(text)
    return [node, str(MODULES / NEEDED[0])]


class NodeRed:
    def __init__(self, process, port):
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    @contextmanager
    def dashboard(self, path="dashboard"):
        # The dashboard turns away a WebSocket that did not begin as polling.
        session = requests.Session()
        session.trust_env = False  # its thread would read the environment, in which pytest writes each test's name
        client = socketio.Client(reconnection=False, http_session=session)
        dashboard = Dashboard(client)
        client.connect(self.url, socketio_path=f"{path}/socket.io", transports=["polling"], wait_timeout=120)
        try:
            yield dashboard
        finally:
            client.disconnect()


class Dashboard:
    """What an open page of the dashboard is told and tells."""

    def __init__(self, client):
        self._client = client
        self._shown = {}
        self.config = None
        client.on("*", self._on_event)

    def _on_event(self, event, *arguments):
        if event == "ui-config":
            self.config = arguments[1]
        name, _, widget = event.partition(":")
        if name in {"msg-input", "widget-load"} and arguments and isinstance(arguments[0], dict):
            self._shown[widget] = arguments[0].get("payload")

    def shows(self, widget):
        """Return what a widget shows now; None for nothing."""
        self._client.emit("widget-load", widget)
        return self._shown.get(widget)

    def until_it_shows(self, widget, wanted, timeout=120):
        """Wait until the widget was told something of which `wanted` is true; returns that."""
        eventually(
            lambda: (self.shows(widget), widget in self._shown and wanted(self._shown[widget]))[1],
            timeout,
            lambda: f"{widget} never showed it, but {self._shown.get(widget)!r}",
        )
        return self._shown[widget]

    def enter(self, widget, value):
        """Type a value into a widget."""
        self._client.emit("widget-change", (widget, value))


@contextmanager
def node_red(directory, flow):
    """Run a flow (a list of nodes) until the end of the block; it has started when this returns."""
    command = need_node_red()
    port = free_port()
    directory.mkdir(parents=True, exist_ok=True)
    settings = directory / "settings.js"
    settings.write_text(f"module.exports = {json.dumps(SETTINGS | {'uiPort': port})}\n")
    file = directory / "flow.json"
    file.write_text(json.dumps(flow))
    arguments = ["--userDir", directory, "--settings", settings, file]
    with running(*command, *map(str, arguments), env=environment(HOME=str(directory)), cwd=directory) as process:
        process.line("Started flows")
        yield NodeRed(process, port)
