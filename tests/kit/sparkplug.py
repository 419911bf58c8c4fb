"""A Sparkplug host that we did not write (pysparkplug, on Tahu's schema), in a process of its own."""

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.bench import until
from tests.kit.process import eventually

SCRIPT = Path(__file__).with_name("sparkplug_host.py")
HOST_PYTHON = Path(sys.prefix, "sparkplug-host", "bin", "python")


def need_host():
    """Return the Python that has pysparkplug; skip the test where there is none, or fail where nothing may be."""
    if not HOST_PYTHON.exists():
        text = "pysparkplug is not installed (run tests/programs)"
        pytest.fail(text) if os.environ.get("SEMS_GATEWAY_NO_SKIP") == "1" else pytest.skip(text)
    return str(HOST_PYTHON)


class Host:
    """`raw` and `decoded` hold all messages in order; a raw one as the wire has it, field by field."""

    def __init__(self, port, group="sems", node="test-gateway"):
        self.group, self.node = group, node
        self.raw, self.decoded, self.errors = [], [], []
        self.ready = False
        self._popen = subprocess.Popen(
            [need_host(), "-I", str(SCRIPT), "127.0.0.1", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        kinds = {"raw": self.raw, "decoded": self.decoded, "error": self.errors}
        for text in self._popen.stdout:
            line = json.loads(text)
            if line["kind"] == "ready":
                self.ready = True
            else:
                kinds[line["kind"]].append(line)

    def end(self):
        self._popen.stdin.close()
        try:
            self._popen.wait(10)
        finally:
            self._popen.kill()
        self._reader.join(5)
        self._popen.stdout.close()

    # what it does

    def order(self, **order):
        self._popen.stdin.write(json.dumps(order) + "\n")
        self._popen.stdin.flush()

    def rebirth(self, **more):
        self.order(do="rebirth", group=self.group, node=self.node, **more)

    def write(self, device, *metrics, **more):
        self.order(do="write", group=self.group, node=self.node, device=device, metrics=metrics, **more)

    def state(self, online, time=None, host="scada"):
        self.order(do="state", host=host, online=online, time=time)

    # what it has seen

    def all(self, type_, device=None):
        return [m for m in list(self.raw) if m["type"] == type_ and m["device"] == device]

    def values(self, type_, device=None):
        """Each decoded message of a type, as metric name → value."""
        return [
            {name: m["value"] for name, m in line["metrics"].items()}
            for line in list(self.decoded)
            if line["type"] == type_ and line["device"] == device
        ]

    async def until(self, condition, what=""):
        try:
            return await until(condition, what)
        except TimeoutError:
            raise AssertionError(
                f"{what}: {[(m['type'], m['device']) for m in self.raw[-20:]]} {self.errors}"
            ) from None

    async def count(self, number, type_, device=None):
        """Wait until there are so many; return the last of them, as the wire has it."""
        await self.until(lambda: len(self.all(type_, device)) >= number, f"{number} {type_}")
        await self.until(lambda: len(self.values(type_, device)) >= number, f"{number} decoded {type_}")
        return self.all(type_, device)[number - 1]

    async def told(self, device, name, value, type_="DDATA"):
        """Wait until a metric was told to have this value."""
        await self.until(lambda: any(v.get(name, ...) == value for v in self.values(type_, device)), f"{name} {value}")


@contextmanager
def sparkplug_host(port, **options):
    host = Host(port, **options)
    try:
        eventually(lambda: host.ready, otherwise="the host is not ready")
        yield host
    finally:
        host.end()


def metrics_of(message):
    """A raw message's metrics by name."""
    return {m.get("name"): m for m in message["payload"].get("metrics", ())}


def properties_of(metric):
    """A raw metric's properties as name → value."""
    found = metric.get("properties", {})
    return {
        key: next((v for name, v in value.items() if name.endswith("_value")), None)
        for key, value in zip(found.get("keys", ()), found.get("values", ()), strict=True)
    }
