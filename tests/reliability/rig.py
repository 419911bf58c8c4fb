"""The programs of a run: mosquitto, the simulated SEMS, and the gateway that is killed again and again."""

import json
import os
import secrets
import signal
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tests.kit import hasty as hasty_program
from tests.kit.mosquitto import need
from tests.kit.ports import free_port
from tests.kit.process import COMMAND, ROOT, Process, eventually, running
from tests.reliability.records import (
    CALLS,
    Records,
    read_calls,
    read_executed,
    read_in_force,
    read_journal,
    read_published,
    read_timers,
)
from tests.reliability.streams import DEVICES
from tests.reliability.watcher import Watcher

CONFIG = """\
gateway: {{id: reliability, data_dir: {data_dir}}}
log: {{level: {log}, format: json}}
bridges:
  sems:
    type: open_api
    account: demo
    password: demo
    url: http://127.0.0.1:{sems}
    poll_interval: {poll}
    calls_per_hour: 1000000
  mqtt: {{type: mqtt, host: 127.0.0.1, port: {mqtt}, session_expiry: 3600, ttl: 30}}
{modbus_bridge}  web: {{type: web, port: {web}, tokens: {{tester: {{token: {token}, write: true}}}}}}
{more}control:
  enabled: true
  max_per_minute: 100000
  writes_per_day: 1000000
  refresh_within: 10
  verify_within: 1
  allow: [{{devices: ["*"], setpoints: [active_power_limit, reactive_power, export_limit]}}]
"""


class Rig:
    """`directory` is the run's own; `disk` a `SmallDisk` for its data_dir; `environment` is added to the gateway's.

    `devices` are the serials that a gateway has to know to be ready, each read every `poll` seconds. A fleet does
    without `modbus`: a port has no more than 247 units, and many registers take long to be laid out. `hasty` are
    constants of the gateway that are shorter here, see tests/kit/hasty.py.
    """

    def __init__(
        self,
        directory,
        disk=None,
        *,
        more="",
        environment=None,
        log="warning",
        devices=DEVICES,
        poll=5,
        modbus=True,
        hasty=None,
    ):
        self.devices = set(devices)
        self.directory = Path(directory)
        self.data_dir = (disk.outside if disk else self.directory) / "data"
        """As we see it."""
        self.prefix = disk.prefix if disk else ()
        self.environment = environment
        self.hasty = hasty
        self.sems, self.mqtt, self.modbus, self.web = (free_port() for _ in range(4))
        self.token = secrets.token_urlsafe(24)
        self.config = self.directory / "config.yaml"
        values = {
            "data_dir": (disk.inside if disk else self.directory) / "data",
            "log": log,
            "poll": poll,
            "sems": self.sems,
            "mqtt": self.mqtt,
            "modbus_bridge": f"  modbus: {{type: modbus, port: {self.modbus}}}\n" if modbus else "",
            "web": self.web,
            "token": self.token,
            "more": more,
        }
        self.config.write_text(CONFIG.format_map(values))
        self.gateway = None
        self.logs = []
        """Output of all gateways so far."""
        self.lives = []
        """Of each gateway: when it was up, None where it never was, and when it ended. POSIX seconds."""
        self.troubles = []
        """From when to when the cloud was spoilt on purpose."""
        self.watcher = None

    @contextmanager
    def surroundings(self, **settings):
        """Broker, cloud with these settings, and who writes down what is published."""
        config = self.directory / "mosquitto.conf"
        config.write_text(
            f"listener {self.mqtt} 127.0.0.1\nallow_anonymous true\nuser root\nmax_queued_messages 0\n"
            "max_inflight_messages 0\n"
        )
        with running(need("mosquitto"), "-c", str(config)), self.cloud(**settings):
            self.watcher = Watcher(self.mqtt)
            try:
                yield self
            finally:
                self.watcher.close()
                self.kill()

    @contextmanager
    def cloud(self, **settings):
        program = [sys.executable, "-m", "tests.reliability.cloud", str(self.sems), json.dumps(settings)]
        with running(*program, cwd=ROOT) as cloud:
            cloud.line("^ready")
            yield cloud

    # the gateway

    def start(self):
        # Each crash counts a minute's calls as spent, so sixty within an hour would leave none.
        for budget in self.data_dir.glob("*-budget.json") if self.data_dir.exists() else ():
            with suppress(OSError):  # its card may be read-only
                budget.unlink()
        options = {} if self.environment is None else {"env": os.environ | self.environment}
        arguments = ["run", str(self.config)]
        command = hasty_program.command(self.hasty, *arguments) if self.hasty else [*COMMAND, *arguments]
        self.gateway = Process([*self.prefix, *command], **options)
        self.lives.append([None, None])
        return self.gateway

    def kill(self, number=signal.SIGKILL):
        """End it; returns its exit code, or None where none runs."""
        gateway, self.gateway = self.gateway, None
        if gateway is None:
            return None
        with suppress(ProcessLookupError):
            gateway.send_signal(number)
        code = gateway.wait()
        self.lives[-1][1] = time.time()
        self.logs += gateway.lines
        return code

    def stop(self):
        """End it in good order."""
        assert self.kill(signal.SIGTERM) == 0, "\n".join(self.logs[-30:])

    @contextmanager
    def running(self):
        """One life of it, from when it takes commands to a good end."""
        self.start()
        self.wait_until_ready()
        yield self.gateway
        self.stop()

    @property
    def code(self):
        """The exit code of the gateway, None while it runs."""
        return self.gateway.code

    def wait_until_ready(self, timeout=400):
        """Until the cloud's devices are known and MQTT is up.

        Refused tokens hold logins back for minutes, also over restarts.
        """
        begun = time.time()
        eventually(
            lambda: self.watcher.devices_since(begun) >= self.devices or self.gateway_ended(),
            timeout,
            lambda: "the gateway does not become ready:\n" + self.gateway.text,
        )
        if self.lives[-1][0] is None:
            self.lives[-1][0] = time.time()

    @property
    def is_up(self):
        """Whether a gateway has become ready and was not ended since."""
        return bool(self.lives) and self.lives[-1][0] is not None and self.lives[-1][1] is None

    def gateway_ended(self):
        assert self.gateway.code is None, f"the gateway has ended:\n{self.gateway.text}"
        return False

    # its HTTP API

    def set(self, lane, value, **more):
        """Ask for one setpoint; returns the answer."""
        serial, setpoint = lane
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"http://127.0.0.1:{self.web}/api/v1/devices/{serial}/set"
        return httpx.post(url, json={setpoint: value} | more, headers=headers, timeout=120, trust_env=False)

    # behind the cloud

    def spoil(self, **order):
        answer = httpx.post(f"http://127.0.0.1:{self.sems}/sim/faults", json=order, timeout=120, trust_env=False)
        answer.raise_for_status()
        if order.get("clear") and self.troubles and self.troubles[-1][1] is None:
            self.troubles[-1][1] = time.time()
        if order.get("answers"):
            self.troubles.append([time.time(), None])

    def ask(self, path):
        answer = httpx.get(f"http://127.0.0.1:{self.sems}/sim/{path}", timeout=60, trust_env=False)
        answer.raise_for_status()
        return answer.json()

    # what is known

    @property
    def journal(self):
        return self.data_dir / "journal.sqlite"

    def commands(self):
        """Return all that the journal has now."""
        return list(read_journal(self.journal)[0].values())

    def ended(self, lane, value):
        """Return how the command for this value ended; None before, or where there is none."""
        return next((c.end for c in self.commands() if (c.lane, c.value) == (lane, value)), None)

    def unended(self):
        return [f"{c.id} {c.lane} = {c.value}: {c.path}" for c in self.commands() if c.end is None]

    def timers(self):
        """Return the dead-man's timers that run."""
        return read_timers(self.journal)

    def records(self, promised=()):
        journal, audit = read_journal(self.journal)
        return Records(
            journal=journal,
            audit=audit,
            executed=read_executed(self.ask("controls?limit=2000000")["controls"]),
            calls=[
                call
                for name in CALLS
                for call in read_calls(self.ask(f"calls?limit=2000000&interface={name}")["calls"])
            ],
            published=read_published(self.watcher.results),
            promised=list(promised),
            in_force=read_in_force(self.ask("state")),
            lives=self.lives,
            troubles=self.troubles,
        )
