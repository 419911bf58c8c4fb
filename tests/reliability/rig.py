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

from tests.kit.mosquitto import need
from tests.kit.ports import free_port
from tests.kit.process import COMMAND, ROOT, Process, eventually, running
from tests.reliability.records import Records, read_executed, read_in_force, read_journal, read_published, read_timers
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
    poll_interval: 5
    calls_per_hour: 1000000
  mqtt: {{type: mqtt, host: 127.0.0.1, port: {mqtt}, session_expiry: 3600, ttl: 30}}
  modbus: {{type: modbus, port: {modbus}}}
  web: {{type: web, port: {web}, tokens: {{tester: {{token: {token}, write: true}}}}}}
{more}control:
  enabled: true
  max_per_minute: 100000
  refresh_within: 10
  verify_within: 1
  allow: [{{devices: ["*"], setpoints: [active_power_limit, reactive_power, export_limit]}}]
"""


class Rig:
    """`directory` is the run's own; `disk` a `SmallDisk` for its data_dir; `environment` is added to the gateway's."""

    def __init__(self, directory, disk=None, *, more="", environment=None, log="warning"):
        self.directory = Path(directory)
        self.data_dir = (disk.outside if disk else self.directory) / "data"
        """As we see it."""
        self.prefix = disk.prefix if disk else ()
        self.environment = environment
        self.sems, self.mqtt, self.modbus, self.web = (free_port() for _ in range(4))
        self.token = secrets.token_urlsafe(24)
        self.config = self.directory / "config.yaml"
        values = {
            "data_dir": (disk.inside if disk else self.directory) / "data",
            "log": log,
            "sems": self.sems,
            "mqtt": self.mqtt,
            "modbus": self.modbus,
            "web": self.web,
            "token": self.token,
            "more": more,
        }
        self.config.write_text(CONFIG.format_map(values))
        self.gateway = None
        self.logs = []
        """Output of all gateways so far."""
        self.watcher = None

    @contextmanager
    def surroundings(self):
        """Broker, cloud, and who writes down what is published."""
        config = self.directory / "mosquitto.conf"
        config.write_text(
            f"listener {self.mqtt} 127.0.0.1\nallow_anonymous true\nuser root\nmax_queued_messages 0\n"
            "max_inflight_messages 0\n"
        )
        with running(need("mosquitto"), "-c", str(config)), self.cloud():
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
            budget.unlink()
        options = {} if self.environment is None else {"env": os.environ | self.environment}
        self.gateway = Process([*self.prefix, *COMMAND, "run", str(self.config)], **options)
        return self.gateway

    def kill(self, number=signal.SIGKILL):
        """End it; returns its exit code, or None where none runs."""
        gateway, self.gateway = self.gateway, None
        if gateway is None:
            return None
        with suppress(ProcessLookupError):
            gateway.send_signal(number)
        code = gateway.wait()
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

    def wait_until_ready(self, timeout=60):
        """Until the cloud's devices are known and MQTT is up."""
        begun = time.time()
        eventually(
            lambda: self.watcher.devices_since(begun) >= DEVICES or self.gateway_ended(),
            timeout,
            lambda: "the gateway does not become ready:\n" + self.gateway.text,
        )

    def gateway_ended(self):
        assert self.gateway.code is None, f"the gateway has ended:\n{self.gateway.text}"
        return False

    # its HTTP API

    def set(self, lane, value, **more):
        """Ask for one setpoint; returns the answer."""
        serial, setpoint = lane
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"http://127.0.0.1:{self.web}/api/v1/devices/{serial}/set"
        return httpx.post(url, json={setpoint: value} | more, headers=headers, timeout=30, trust_env=False)

    # behind the cloud

    def spoil(self, **order):
        answer = httpx.post(f"http://127.0.0.1:{self.sems}/sim/faults", json=order, timeout=10, trust_env=False)
        answer.raise_for_status()

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
            published=read_published(self.watcher.results),
            promised=list(promised),
            in_force=read_in_force(self.ask("state")),
        )
