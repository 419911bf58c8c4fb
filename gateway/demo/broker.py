"""An MQTT broker for the demo: mosquitto where it is installed, else amqtt, which comes with the extra `demo`.

mosquitto runs below a child that waits for the end of its standard input, a pipe from here. So it ends with this
process however that ends, also by SIGKILL; and it is in a session of its own, so that Ctrl-C, which goes to all of the
terminal's foreground, does not end it before the gateway has published `offline`.
"""

import asyncio
import importlib.util
import ipaddress
import logging
import os
import shutil
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path
from typing import Any, Final, Literal

MOSQUITTO: Final = "mosquitto"
START_WITHIN: Final = 10.0
STOP_WITHIN: Final = 5.0
POLL: Final = 0.01
"""Seconds between looks whether mosquitto listens; it can't say."""
WITHOUT: Final = "mosquitto is not installed, so the broker is amqtt: it speaks MQTT 3.1.1, not 5"

_CHILD: Final = """\
import os, signal, subprocess, sys, threading
signal.signal(signal.SIGINT, signal.SIG_IGN)
broker = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
def end():
    sys.stdin.buffer.read()
    broker.terminate()
threading.Thread(target=end, daemon=True).start()
os._exit(broker.wait() & 255)
"""
_CONFIG: Final = """\
listener {port} {host}
allow_anonymous true
persistence false
log_dest stderr
log_type error
"""


def mosquitto() -> str | None:
    """Return where mosquitto is; Debian has it where only root looks for programs."""
    return shutil.which(MOSQUITTO, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))


class DemoBroker:
    """A broker on one loopback port, without passwords. Stopped and started again, it is empty.

    Raises ModuleNotFoundError where neither mosquitto nor amqtt is installed.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"the demo's broker has no passwords, so it serves only this machine, not {host}")
        self.host = host
        self.port = port
        self._program = mosquitto()
        if self._program is None and importlib.util.find_spec("amqtt") is None:
            raise ModuleNotFoundError("neither mosquitto nor amqtt is installed", name="amqtt")
        self._process: Process | None = None
        self._amqtt: Any = None

    @property
    def protocol(self) -> Literal["5", "3.1.1"]:
        """The newest version of MQTT that it speaks."""
        return "3.1.1" if self._program is None else "5"

    async def start(self) -> None:
        """Take clients. Raises OSError when the port can't be had, or the broker does not start."""
        _expect_free(self.host, self.port)
        if self._program is None:
            await self._start_amqtt()
        else:
            await self._start_mosquitto(self._program)

    async def stop(self) -> None:
        """Close every connection and end the broker. Does nothing when it does not run."""
        broker, self._amqtt = self._amqtt, None
        if broker is not None:
            await broker.shutdown()
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            async with asyncio.timeout(STOP_WITHIN):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _start_amqtt(self) -> None:
        from amqtt.broker import Broker  # noqa: PLC0415 - an extra that may be missing

        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._amqtt = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{self.host}:{self.port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        await self._amqtt.start()

    async def _start_mosquitto(self, program: str) -> None:
        with tempfile.TemporaryDirectory(prefix="sems-gateway-demo-") as directory:
            file = Path(directory) / "mosquitto.conf"
            file.write_text(_CONFIG.format(host=self.host, port=self.port))
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a file in the working directory must not stand in for a module
                "-c",
                _CHILD,
                program,
                "-c",
                str(file),
                stdin=PIPE,
                stdout=PIPE,
                stderr=STDOUT,
                start_new_session=True,
            )
            try:
                async with asyncio.timeout(START_WITHIN):
                    while not await _answers(self.host, self.port):
                        if process.returncode is not None:
                            raise OSError(f"mosquitto did not start: {await _last_words(process)}")
                        await asyncio.sleep(POLL)
            except TimeoutError:
                await self.stop()
                raise OSError(f"mosquitto did not start within {START_WITHIN:.0f} s") from None
            except BaseException:
                await self.stop()
                raise


async def _last_words(process: Process) -> str:
    said = (await process.stdout.read()).decode(errors="replace") if process.stdout else ""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return "; ".join(lines[-2:]) or f"it ended with {process.returncode} and said nothing"


async def _answers(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


def _expect_free(host: str, port: int) -> None:
    """Raise OSError where something listens already: it would be taken for the broker."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        raise OSError(
            error.errno, f"the MQTT port {host}:{port} can't be had ({error.strerror}); name another"
        ) from None
