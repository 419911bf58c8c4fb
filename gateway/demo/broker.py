"""An MQTT broker for the demo, and for tests where mosquitto can't be had: iotcore's, with `mqtt_front` before it.

The broker runs in a child process. In this process it could not be stopped: it has no way to end its threads, so
each start would leave two of them and all they keep. The child costs a tenth of a second and
- ends with this process however that ends, also by SIGKILL: its standard input is a pipe from here, and it reads;
- sits in a session of its own, so that Ctrl-C, which goes to all of the terminal's foreground, does not end it
  before the gateway has published `offline`;
- keeps what a panic of its threads writes out of the terminal.
"""

import asyncio
import importlib.util
import ipaddress
import os
import socket
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from typing import Final

import structlog

from gateway.demo.mqtt_dialect import MAX_PACKET
from gateway.demo.mqtt_front import INNER_HOST, Front, answers

if importlib.util.find_spec("iotcore") is None:
    raise ModuleNotFoundError("iotcore is missing; pip install 'sems-gateway[demo]'", name="iotcore")

START_TIMEOUT: Final = 10.0
STOP_TIMEOUT: Final = 5.0
POLL: Final = 0.01
"""Seconds between looks whether the child listens; it can't say."""

_CHILD: Final = """\
import logging, os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
from iotcore import IotCoreBroker
logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
IotCoreBroker(sys.argv[1]).start()
sys.stdin.buffer.read()
os._exit(0)
"""
"""Ends with its standard input, and with nothing else. rumqttd logs each packet as an error, hence the level."""

_CONFIG: Final = """\
id = 0
[router]
id = 0
max_connections = 10000
max_outgoing_packet_count = 100000
max_segment_size = 1048576
max_segment_count = 10
[v5.1]
name = "demo"
listen = "{host}:{port}"
next_connection_delay_ms = 0
[v5.1.connections]
connection_timeout_ms = 10000
max_payload_size = {max_packet}
max_inflight_count = 500
dynamic_filters = true
"""
"""max_outgoing_packet_count also limits how many retained messages a subscription with QoS 0 gets. A filter that
was ever subscribed keeps up to max_segment_count times max_segment_size bytes of messages for slow subscribers."""

log = structlog.get_logger("demo.broker")


class DemoBroker:
    """MQTT 3.1, 3.1.1 and 5 on one loopback port, without passwords. Stopped and started again, it is empty."""

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"the demo's broker has no passwords, so it serves only this machine, not {host}")
        self.host = host
        self._port = port
        self._front: Front | None = None
        self._process: Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._last_words = ""

    @property
    def port(self) -> int:
        """Where it is. With port 0 this is known once it has been started, and then stays."""
        return self._port

    async def start(self) -> None:
        """Take clients. Raises OSError when the port can't be had, or the broker inside does not start."""
        if self._front is not None:
            return
        bound = self._bind()
        try:
            front = Front(await self._start_child())
            try:
                await front.start(bound)
            except OSError as error:
                raise self._no_port(error) from None
        except BaseException:
            bound.close()
            await self._stop_child()
            raise
        self._port = bound.getsockname()[1]
        self._front = front

    async def stop(self) -> None:
        """Close every connection and end the broker. Does nothing when it does not run."""
        front, self._front = self._front, None
        if front is not None:
            await front.stop()
        await self._stop_child()

    def _bind(self) -> socket.socket:
        """Take the port, but no clients yet: those would come to a broker that is not there."""
        bound = _socket(self.host)
        try:
            bound.bind((self.host, self._port))
        except OSError as error:
            bound.close()
            raise self._no_port(error) from None
        return bound

    def _no_port(self, error: OSError) -> OSError:
        return OSError(
            error.errno, f"the MQTT port {self.host}:{self._port} can't be had ({error.strerror}); name another"
        )

    async def _start_child(self) -> int:
        """Start the broker inside; returns its port."""
        with _socket(INNER_HOST) as reserved, tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            # Held until the child listens, so that nobody else is given that port.
            reserved.bind((INNER_HOST, 0))
            port: int = reserved.getsockname()[1]
            file.write(_CONFIG.format(host=INNER_HOST, port=port, max_packet=2 * MAX_PACKET))
            file.flush()
            self._last_words = ""
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a file in the working directory must not stand in for a module
                "-c",
                _CHILD,
                file.name,
                stdin=PIPE,
                stdout=DEVNULL,
                stderr=PIPE,
                start_new_session=True,
                env={**os.environ, "RUST_BACKTRACE": "0"},
            )
            self._watcher = asyncio.create_task(self._watch(process), name="mqtt broker's errors")
            try:
                async with asyncio.timeout(START_TIMEOUT):
                    await self._ready(process, port)
            except TimeoutError:
                raise OSError(f"the MQTT broker inside did not start within {START_TIMEOUT:.0f} s") from None
        return port

    async def _ready(self, process: Process, port: int) -> None:
        """Wait until the child takes clients."""
        while process.returncode is None:
            if await answers(port):
                return
            await asyncio.sleep(POLL)
        if self._watcher is not None:
            await self._watcher
        raise OSError(f"the MQTT broker inside did not start: {self._last_words}")

    async def _stop_child(self) -> None:
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        if self._watcher is not None:
            await self._watcher

    async def _watch(self, process: Process) -> None:
        """Read what the child writes: Rust's panics, and why Python ended."""
        if process.stderr is None:
            return
        panics = 0
        async for line in process.stderr:
            text = line.decode(errors="replace").strip()
            if text:
                self._last_words = text
            if "panicked" in text:
                panics += 1  # one can bring hundreds: from then on each new connection ends in another
                if panics == 1:
                    log.warning("the demo's MQTT broker has hit a defect of its own", detail=text)
        if panics > 1:
            log.warning("the demo's MQTT broker has hit defects of its own", times=panics)
        if self._front is not None:
            log.error("the demo's MQTT broker has ended; start the demo again")


def _socket(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made
