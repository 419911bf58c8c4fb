"""The client programs: how each is built and started, and the version of what it drives."""

import asyncio
import json
import os
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from importlib.metadata import version as distribution
from pathlib import Path
from typing import NamedTuple

from tests.kit.bench import until
from tests.kit.process import PATIENCE, environment

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sems-gateway" / "clients"
"""What is built and fetched; tests/programs fetches what the tests need of it."""

BUILDS = {
    "JavaScript": [
        ["mkdir", "-p", CACHE / "node"],
        ["cp", HERE / "node" / "package.json", CACHE / "node"],
        ["npm", "install", "--prefix", CACHE / "node", "--ignore-scripts", "--no-audit", "--no-fund",
         "--no-package-lock", "--omit=dev", "--loglevel=error"],
    ],
    "Go": [["go", "-C", HERE / "go", "build", "-o", f"{CACHE}/go/", "./..."]],
    "Rust": [["cargo", "build", "--quiet", "--manifest-path", HERE / "rust" / "Cargo.toml",
              "--target-dir", CACHE / "rust"]],
    "Java": [
        ["mkdir", "-p", CACHE / "java"],
        ["cp", HERE / "java" / "pom.xml", CACHE / "java"],
        ["mvn", "-q", "-B", "-f", CACHE / "java" / "pom.xml", "dependency:copy-dependencies",
         "-DincludeScope=runtime", f"-DoutputDirectory={CACHE}/java/jars"],
        ["javac", "-cp", f"{CACHE}/java/jars/*", "-d", CACHE / "java", *sorted((HERE / "java").glob("*.java"))],
    ],
}  # fmt: skip


class Program(NamedTuple):
    name: str
    language: str
    command: list
    version: str
    quick: bool = False
    """Whether it runs in the tests: it needs no compiler."""


def build(language):
    """Fetch and compile all of a language; `subprocess.CalledProcessError` says what did not work."""
    for command in BUILDS.get(language, []):
        subprocess.run([str(word) for word in command], check=True)


def _pinned(file, pattern):
    return re.search(pattern, (HERE / file).read_text())[1]


def _npm(name):
    return json.loads((HERE / "node" / "package.json").read_text())["dependencies"][name]


def _go(module):
    return _pinned("go/go.mod", rf"{module} v(\S+)")


def _maven(artifact):
    return _pinned("java/pom.xml", rf"<artifactId>{artifact}</artifactId>\s*<version>(.*)</version>")


def _crate(name):
    return _pinned("rust/Cargo.toml", rf'{name} = {{ version = "=([^"]*)"')


def _mbpoll():
    try:
        said = subprocess.run(["mbpoll", "-V"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return "?"
    return said.split()[-1] if said else "?"


def _mosquitto():
    from tests.kit.mosquitto import find

    program = find("mosquitto")
    if program is None:
        return "?"
    return re.search(
        r"version (\S+)", subprocess.run([program, "-h"], capture_output=True, text=True, check=False).stdout
    )[1]


def _python(name):
    return [sys.executable, HERE / "python" / name]


def _node(name):
    return ["node", HERE / "node" / name]


def _java(name):
    return ["java", "-cp", f"{CACHE}/java:{HERE}/java:{CACHE}/java/jars/*", name]


def _rust(name):
    return [CACHE / "rust" / "debug" / name]


MODBUS = [
    Program("mbpoll (libmodbus)", "C", _python("with_mbpoll.py"), _mbpoll(), quick=True),
    Program("pymodbus", "Python", _python("with_pymodbus.py"), distribution("pymodbus"), quick=True),
    Program("modbus-serial", "JavaScript", _node("modbus.js"), _npm("modbus-serial"), quick=True),
    Program("j2mod", "Java", _java("Modbus"), _maven("j2mod")),
    Program("simonvetter/modbus", "Go", [CACHE / "go" / "modbus"], _go("simonvetter/modbus")),
    Program("tokio-modbus", "Rust", _rust("modbus"), _crate("tokio-modbus")),
]
SUNSPEC = [Program("pysunspec2", "Python", _python("with_pysunspec2.py"), distribution("pysunspec2"), quick=True)]
GOODWE = [
    Program("goodwe, TCP", "Python", [*_python("with_goodwe.py"), "tcp"], distribution("goodwe"), quick=True),
    Program("goodwe, UDP", "Python", [*_python("with_goodwe.py"), "udp"], distribution("goodwe"), quick=True),
]
PAHO = Program("paho, MQTT 5", "Python", [*_python("with_paho.py"), "5"], distribution("paho-mqtt"), quick=True)
PAHO_3 = PAHO._replace(name="paho, MQTT 3.1.1", command=[*_python("with_paho.py"), "4"], quick=False)
MQTT = [
    PAHO,
    PAHO_3,
    Program("MQTT.js, MQTT 5", "JavaScript", [*_node("mqtt.js"), "5"], _npm("mqtt"), quick=True),
    Program("MQTT.js, MQTT 3.1.1", "JavaScript", [*_node("mqtt.js"), "4"], _npm("mqtt")),
    Program("paho, MQTT 3.1.1", "Go", [CACHE / "go" / "mqtt"], _go("paho.mqtt.golang")),
    Program("rumqttc, MQTT 3.1.1", "Rust", _rust("mqtt"), _crate("rumqttc")),
]
SPARKPLUG = [
    Program("sparkplug-payload (Tahu)", "JavaScript", _node("sparkplug.js"), _npm("sparkplug-payload"), quick=True),
    Program("Eclipse Tahu", "Java", _java("Sparkplug"), _maven("tahu-core")),
]
BROKERS = [
    Program("mosquitto", "C", [], _mosquitto(), quick=True),
    Program("aedes", "JavaScript", _node("broker.js"), _npm("aedes"), quick=True),
    Program("mochi-mqtt", "Go", [CACHE / "go" / "broker"], _go("mochi-mqtt/server/v2")),
]
ALL = [*MODBUS, *SUNSPEC, *GOODWE, *MQTT, *SPARKPLUG, *BROKERS]


def _environment():
    return environment(NODE_PATH=str(CACHE / "node" / "node_modules"))


def _words(program, arguments):
    return [str(word) for word in [*program.command, *arguments]]


async def lines(program, *arguments):
    """Run it to its end; return what → its line. `AssertionError` has what it complained of."""
    process = await asyncio.create_subprocess_exec(
        *_words(program, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=_environment()
    )
    try:
        async with asyncio.timeout(PATIENCE):
            out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{program.name} ended with {process.returncode}: {errors.decode()[-500:]}"
    return {line["what"]: line for line in map(json.loads, out.decode().splitlines())}


async def started(program, *arguments):
    """Start one that goes on; it ends with its standard input."""
    pipe = asyncio.subprocess.PIPE
    command = _words(program, arguments)
    return await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=_environment(), limit=1 << 24)


class Talk:
    """A program that goes on: its lines as they come, and what it is told to publish."""

    def __init__(self, process):
        self._process = process
        self.lines = []
        self.newest = {}
        """Topic → its newest line."""
        self._other = ""

    async def read(self):
        while text := await self._process.stdout.readline():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                self._other += text.decode()
                continue
            self.lines.append(line)
            self.newest[line["what"]] = line

    def publish(self, topic, payload):
        self._process.stdin.write(f"{topic} {payload}\n".encode())

    async def until(self, condition, what):
        """Wait for it; return what it returned. `AssertionError` where it does not come, or the program has ended."""

        def come():
            return (result := condition()) or (self._process.returncode is not None and "ended") or result

        try:
            result = await until(come, what)
        except TimeoutError:
            raise AssertionError(f"{what}: it did not come; the client printed {self._other[-500:]!r}") from None
        assert result != "ended", f"{what}: the client had ended, with {self._process.returncode}"
        return result


@asynccontextmanager
async def talking(program, *arguments):
    process = await started(program, *arguments)
    talk = Talk(process)
    reading = asyncio.create_task(talk.read())
    try:
        yield talk
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(PATIENCE):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        await reading
