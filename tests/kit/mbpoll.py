"""`mbpoll`, a Modbus client of its own (C, libmodbus), as a test drives it."""

import asyncio
import os
import re
import shutil
import subprocess

import msgspec
import pytest

_LINE = re.compile(r"^\[(\d+)\]:\s+(\S+)", re.MULTILINE)

TIMED_OUT = b"timed out"
MOST = 6
"""Reads until one is answered: mbpoll waits 10 s at most, and this machine may be busy for longer."""


class Polled(msgspec.Struct):
    """What one run of mbpoll brought."""

    values: list[float]
    error: str
    """What it printed, e.g. `Write output (holding) register failed: Illegal data value`; "" when all went well."""


def need_mbpoll():
    """Skip the test where mbpoll is not installed, or fail it where nothing may be skipped."""
    if shutil.which("mbpoll"):
        return
    if os.environ.get("SEMS_GATEWAY_NO_SKIP") == "1":
        pytest.fail("mbpoll is not installed: apt-get install mbpoll")
    pytest.skip("mbpoll is not installed: apt-get install mbpoll")


def command(port, address, *write, unit=1, table="4:int", count=1, swapped=False):
    """Return the command line that reads `count` values from a 0-based address, or writes those given.

    Tables: 3 or 4, 4:int, 4:float, 4:hex.
    """
    need_mbpoll()
    options = ["-m", "tcp", "-p", str(port), "-a", str(unit), "-0", "-r", str(address), "-t", table, "-1", "-o", "10"]
    options += [] if swapped else ["-B"]
    options += [] if write else ["-c", str(count)]
    return ["mbpoll", *options, "127.0.0.1", *(["--", *map(str, write)] if write else [])]


async def mbpoll(port, address, *write, **how):
    """Run `command`; a read is tried again until it is answered."""
    for _ in range(MOST):
        process = await asyncio.create_subprocess_exec(
            *command(port, address, *write, **how), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, errors = await process.communicate()
        if write or TIMED_OUT not in errors:
            break
    found = [float(int(v, 16) if v.startswith("0x") else float(v)) for _, v in _LINE.findall(out.decode())]
    return Polled(found, errors.decode().strip() if process.returncode else "")


def poll_float(port, address, *write, unit):
    """Read a float32, or write one, once, from a test that is not asynchronous."""
    line = command(port, address, *write, unit=unit, table="4:float")
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    found = [float(value) for _, value in _LINE.findall(done.stdout)]
    return Polled(found, done.stderr.strip() if done.returncode else "")
