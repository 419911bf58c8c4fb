# ruff: noqa: INP001, S603, T201 - a script that starts programs and prints
"""How much a gateway writes in a day, which is what wears a card out: at some 5, 50 and 500 devices.

    python benchmarks/bytes/run.py [--plants 1 9 99] [--seconds 900] [--store]

Each is the real program against the simulator, with MQTT (Home Assistant's discovery; `--store`: store and forward),
Modbus and the web bridge, and the calls an hour that are the default. From a minute after its start on, for
`--seconds`, what the kernel counts as sent to the disk is taken (`write_bytes` of /proc/PID/io), and scaled to a day.
900 s hold one of each thing that is written now and then: the longest pause is that of totals.json. Then ten commands
are sent, for what one costs. Logs go nowhere.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

ROOT = Path(__file__).parents[2]
DAY = 86_400
WARM = 60.0
COMMANDS = 10
CONFIG = """\
gateway: {{data_dir: data}}
log: {{level: error}}
bridges:
  sems: {{type: open_api, account: demo, password: demo, url: "http://127.0.0.1:{sems}"}}
  mqtt: {{type: mqtt, host: 127.0.0.1, port: {mqtt}, home_assistant: true, store: {{enabled: {store}}}}}
  modbus: {{type: modbus, port: {modbus}}}
  web: {{type: web, port: {web}, tokens: {{bench: {{token: a-token-of-some-length, write: true}}}}}}
control:
  enabled: true
  refresh_within: 0
  verify_within: 0
  allow: [{{devices: ["*"], setpoints: [export_limit]}}]
"""
ASK = build_opener(ProxyHandler({}))


class Box:
    """A simulator with so many plants, a broker, and a gateway."""

    def __init__(self, directory: Path, plants: int, *, store: bool) -> None:
        self.directory = directory
        ports = dict(zip(("sems", "mqtt", "modbus", "web"), free_ports(4), strict=True))
        self.web = ports["web"]
        (directory / "config.yaml").write_text(CONFIG.format(**ports, store=str(store).lower()))
        (directory / "mosquitto.conf").write_text(f"listener {ports['mqtt']} 127.0.0.1\nallow_anonymous true\n")
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            sys.exit("mosquitto is needed (Debian: apt-get install mosquitto)")
        gateway = [sys.executable, "-m", "gateway"]
        simulate = [*gateway, "simulate", "--port", str(ports["sems"]), "--plants", str(plants)]
        self.others = [
            self._start([program, "-c", str(directory / "mosquitto.conf")]),
            self._start([*simulate, "--calls-per-hour", "0"]),
        ]
        time.sleep(3)
        self.gateway = self._start([*gateway, "run", str(directory / "config.yaml")])

    @staticmethod
    def _start(command: list[str]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def written(self) -> int:
        """Return how many bytes were sent to the disk so far."""
        lines = Path(f"/proc/{self.gateway.pid}/io").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("write_bytes")))

    def devices(self) -> list[str]:
        """Return the serials that are known; none before it answers."""
        with contextlib.suppress(OSError):
            found = json.loads(ASK.open(self._request("devices"), timeout=30).read())
            return [one["serial"] for one in (found if isinstance(found, list) else found["devices"])]
        return []

    def send(self, serial: str, value: float) -> bool:
        """Send a setpoint; return whether it was accepted."""
        with contextlib.suppress(OSError):
            body = json.dumps({"export_limit": value}).encode()
            ASK.open(self._request(f"devices/{serial}/set", body), timeout=30).read()
            return True
        return False

    def _request(self, path: str, body: bytes | None = None) -> Request:
        headers = {"Authorization": "Bearer a-token-of-some-length", "Content-Type": "application/json"}
        return Request(f"http://127.0.0.1:{self.web}/api/v1/{path}", data=body, headers=headers)

    def stop(self) -> None:
        """End all of it."""
        for process in (self.gateway, *self.others):
            process.send_signal(signal.SIGTERM)
        for process in (self.gateway, *self.others):
            process.wait(30)


def free_ports(count: int) -> list[int]:
    """Return ports that were free just now."""
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until it is true."""
    while not condition():
        time.sleep(0.2)


def sizes(directory: Path) -> str:
    """Return the largest files."""
    found = sorted(((p.stat().st_size, p.name) for p in directory.iterdir() if p.is_file()), reverse=True)
    return ", ".join(f"{name} {size / 1e3:.0f} kB" for size, name in found[:4])


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plants", type=int, nargs="+", default=[1, 9, 99])
    parser.add_argument("--seconds", type=float, default=900.0)
    parser.add_argument("--store", action="store_true", help="with store and forward")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sems-bytes-", dir=Path.home()) as directory:
        boxes = []
        for plants in options.plants:
            own = Path(directory) / str(plants)
            own.mkdir()
            boxes.append(Box(own, plants, store=options.store))
        try:
            for box in boxes:
                wait_for(box.devices)
            time.sleep(WARM)
            began = [(time.monotonic(), box.written()) for box in boxes]
            time.sleep(options.seconds)
            for box, (at, first) in zip(boxes, began, strict=True):
                after, took = box.written(), time.monotonic() - at
                count = len(box.devices())
                mb = (after - first) / 1e6
                print(
                    f"{count} devices and plants: {mb:.2f} MB in {took:.0f} s, {mb / took * DAY:.1f} MB a day;", end=" "
                )
                print(f"{first / 1e6:.1f} MB from the start until then")
                print(f"  largest: {sizes(box.directory / 'data')}")
                before, sent = box.written(), 0
                for n in range(COMMANDS):
                    sent += any(box.send(serial, 1000.0 + n) for serial in box.devices()[:30])
                    time.sleep(1)
                time.sleep(30)
                print(f"  {sent} commands: {(box.written() - before) / max(1, sent) / 1e3:.0f} kB each")
        finally:
            for box in boxes:
                box.stop()


if __name__ == "__main__":
    main()
