"""No text from outside reaches a terminal or the log as anything but text, whatever the command.

One gateway and one simulated SEMS whose plants, devices, alarms and refusals have names that would clear the screen,
rename the window, turn the writing round or never end; users, reasons and files of data_dir that have them too.
"""

import asyncio
import json

import httpx
import msgspec
import pytest
import typer

from gateway.bridges.local import LocalClient
from gateway.bridges.local.protocol import Explain, Send, StopControl
from gateway.cli import app
from tests.kit.ports import free_port
from tests.kit.process import eventually
from tests.kit.terminal import HOSTILE, Terminals, harm, on_terminal

INVERTER = "9010KETU218W0001"
CONFIG = """\
gateway: {{id: hostile, data_dir: {data_dir}}}
bridges:
  sems: {{type: open_api, account: demo, password: demo, url: "http://127.0.0.1:{sems}", poll_interval: 1,
    calls_per_hour: 1000000}}
  modbus: {{type: modbus, port: {modbus}}}
control:
  enabled: true
  allow: [{{devices: ["*"], setpoints: [active_power_limit]}}]
"""
BAD = 'gateway: {{"a\\e[2J\\u202e{long}": 1}}\nbridges: {{"b\\e]0;x\\a": {{type: "mqtt\\e[8m"}}}}\n'


def named(tag):
    return tag + HOSTILE


SAYS = {
    "plant_name": named("PLANT"),
    "name": named("DEVICE"),
    "model_type": named("MODEL"),
    "error_message": named("ALARM"),
    "msg": named("SAID"),
    "firmware": named("FIRMWARE"),
    "time_zone": named("ZONE"),
}


class World:
    def __init__(self, directory):
        self.directory = directory
        self.config, self.fresh, self.bad = directory / "config.yaml", directory / "fresh.yaml", directory / "bad.yaml"
        self.data_dir = directory / "data"
        self.terminals = Terminals()
        sems, modbus = free_port(), free_port()
        self.sems = f"http://127.0.0.1:{sems}"
        self.port = sems
        self.config.write_text(CONFIG.format(data_dir="data", sems=sems, modbus=modbus))
        self.fresh.write_text(CONFIG.format(data_dir="other", sems=sems, modbus=modbus))
        self.bad.write_text(BAD.format(long="y" * 10_000))

    async def say(self, request):
        """Speak to the gateway as no `sems-gateway` does."""
        async for _ in LocalClient(self.data_dir).ask(request):
            pass

    def order(self, **fields):
        httpx.post(f"{self.sems}/sim/faults", content=msgspec.json.encode(fields)).raise_for_status()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("hostile"))
    made.data_dir.mkdir()
    units = {"version": 1, "units": {"KEPT": 200, named("KEPT"): 201}, "ports": {}}
    (made.data_dir / "modbus-units.json").write_text(json.dumps(units))
    started = ("--port", made.port, "--start", "2026-06-21T10:00:00", "--calls-per-hour", 0)
    try:
        with on_terminal("simulate", *started) as made.simulator:
            made.simulator.says("ready")
            alarm = {"serial": INVERTER, "code": "E1", "text": "x", "severity": "fault"}
            refused = {"answer": "no_right", "interfaces": ["GetPlantAlarmList"], "says": SAYS}
            made.order(alarms=[alarm], answers=[refused, {"says": SAYS}])
            with on_terminal("run", made.config) as made.gateway:
                eventually(lambda: "PLANT" in made.terminals.run("devices", "--data-dir", made.data_dir)[1])
                yield made
    finally:
        made.terminals.close()


def commands(world):
    """Return what to say to each command, which a word of ours is expected in, if any."""
    c, d = world.config, world.directory
    wanted = ("--from", "2026-06-21", "--to", "2026-06-21", "--out")
    return {
        "init": [((d / "made.yaml", "--yes", "--no-try", "--kind", "\x1b[2J"), "control")],
        "run": [],  # as `world.gateway`
        "simulate": [],  # as `world.simulator`
        "check": [((c,), "in order"), ((world.bad,), "bad.yaml")],
        "devices": [((c,), "PLANT"), ((world.fresh,), "PLANT")],
        "doctor": [((c,), "PLANT"), ((c, "--json"), "PLANT"), ((world.fresh,), "plants")],
        "registers": [((c,), "KEPT"), *(((c, "--format", kind), "ac_power") for kind in ("csv", "json", "markdown"))],
        "units": [((c,), "KEPT"), ((c, "--free", HOSTILE), "10"), ((c, "--free", "\x1b[2J"), "control")],
        "plugins": [((), "modbus"), ((c,), "open_api"), ((c, "--json"), "open_api")],
        "schema": [((), "bridges")],
        "reload": [((c,), "nothing"), ((world.fresh,), "no gateway runs")],
        "plan": [((c,), "sum"), ((c, "--devices", named("WORD")), "WORD")],
        "send": [
            ((c, INVERTER, "active_power_limit", "50", "--wait"), INVERTER),
            ((c, named("WORD"), "active_power_limit", "50"), "WORD"),
            ((c, "--fleet", "active_power_limit", "50", "--yes"), "devices"),
        ],
        "explain": [((c, INVERTER, "active_power_limit", "50"), "permitted")],
        "halt": [((c,), "WHY"), ((c, "--reason", named("WORD")), "WHY")],  # it was halted already
        "resume": [((c,), "goes on")],
        "interfaces": [((), "SEMS"), ((c, "--format", "json"), "open_api"), (("--form", "\x1b[2J"), "control")],
        "history": [((c, INVERTER, *wanted, d / "h.csv"), "samples"), ((c, "nobody", *wanted, d / "n.csv"), "nobody")],
        "learn": [((c, "--wait", 0, "--into", d, "--record", d / "r.jsonl"), "answers")],
        "audit": [*(((c, "--format", kind), "USER") for kind in ("table", "csv", "json")), ((c, "--verify"), "")],
        "backup": [((c, d / "it.backup"), "it.backup"), ((c, "\x1b[2J/no"), "")],
        "restore": [((world.bad,), "backup"), ((d / "it.backup", d / "bad.yaml"), "--force")],
        "prove": [((c, named("WORD"), "--from", "1h", "--to", "0m", "--out", d / "p.json"), "WORD")],
        "demo": [(("--mqtt-port", world.port), "taken"), ((named("WORD"),), "WORD")],
    }  # fmt: skip


def test_every_command_shows_hostile_names_as_text(world):
    every = typer.main.get_command(app).commands
    said = commands(world)
    assert set(said) == set(every), "each command has its lines here"

    async def hostile():
        await world.say(Send(named("SERIAL"), named("SETPOINT"), named("VALUE"), named("USER")))
        await world.say(Explain(named("SERIAL"), named("SETPOINT"), named("VALUE"), named("USER")))
        await world.say(StopControl(named("USER"), named("WHY")))

    troubles = {}
    for name, lines in said.items():
        if name == "halt":
            asyncio.run(hostile())
        for arguments, word in lines:
            code, written = world.terminals.run(name, *arguments)
            found = harm(written)
            if word not in written:
                found.append(f"no {word!r}")
            if "Traceback" in written:
                found.append("traceback")
            if found:
                troubles[f"{name} {str(arguments)[:120]}: {code}"] = (found[:5], written[:500], written[-1500:])
    for name, program, word in (("run", world.gateway, "WHY"), ("simulate", world.simulator, "ready")):
        assert word in program.written
        if found := harm(program.written):
            troubles[name] = found[:5]
    assert not troubles, "\n".join(f"{name}\n  {found}\n" for name, found in troubles.items())


def test_json_stays_json(world):
    for arguments in (("doctor", "--json"), ("audit", "--format", "json"), ("registers", "--format", "json")):
        name, *options = arguments
        _, written = world.terminals.run(name, world.config, *options)
        text = written[written.index("[" if name == "audit" else "{") :]
        msgspec.json.decode(text[: text.rindex("]" if name == "audit" else "}") + 1])
