"""Looks at what a gateway needs before it runs: this machine, its ports, and what each bridge connects to."""

import asyncio
import errno
import os
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from gateway.api.bridge import Claim
from gateway.api.capabilities import Probing
from gateway.core import files
from gateway.core.probe import Mark, Probe
from gateway.http import descriptors
from gateway.run import data_dir
from gateway.run.app import Gateway
from gateway.run.listeners import connections_of
from gateway.run.settings import BridgeConfig, Config

LITTLE_SPACE: Final = 500 * 2**20
"""Bytes: a year of the journal of a small plant."""
BRIDGE_WITHIN: Final = 60.0
"""Seconds that a bridge has to look round."""
LAST_PRIVILEGED: Final = 1023


async def looked_at(config: Config) -> AsyncIterator[tuple[str, Probe]]:
    """Yield each thing that was looked at, after the bridge it is about; "" for the machine. No gateway may run."""
    for probe in _machine(config):
        yield "", probe
    gateway = Gateway(config)
    found = await asyncio.gather(*(_probed(gateway, bridge) for bridge in config.bridges))
    for bridge, probes in zip(config.bridges, found, strict=True):
        for probe in probes:
            yield bridge.name, probe


async def _probed(gateway: Gateway, config: BridgeConfig) -> list[Probe]:
    bridge = gateway.runners[config.name].bridge
    probes = [_port(claim) for claim in config.settings.claims(gateway.config.root.gateway.id) if claim.port]
    try:
        async with asyncio.timeout(BRIDGE_WITHIN):
            if isinstance(bridge, Probing):
                async for probe in bridge.probe():
                    probes.append(probe)  # noqa: PERF401 - what there is counts, also where time is over
    except TimeoutError:
        probes.append(Probe(Mark.WRONG, "bridge", f"it did not answer within {BRIDGE_WITHIN:g} s"))
    return probes


def _machine(config: Config) -> Iterator[Probe]:
    directory = config.data_dir
    try:
        files.make_directory(directory)
        os.close(data_dir.hold(directory))
    except data_dir.DataDirError as error:
        yield Probe(Mark.WRONG, "data_dir", str(error))
    except OSError as error:
        yield Probe(
            Mark.WRONG,
            "data_dir",
            f"{directory} can't be made or written ({error.strerror})",
            f"have its owner be the user the gateway runs as: chown {os.geteuid()} {directory}",
        )
    else:
        yield Probe(Mark.WELL, "data_dir", f"{directory} can be written, and no other gateway uses it")
        free = shutil.disk_usage(directory).free
        few = free < LITTLE_SPACE
        remedy = "make room; where the disk is full, no command is taken" if few else ""
        yield Probe(Mark.NOTE if few else Mark.WELL, "disk", f"{free / 2**30:.1f} GiB are free there", remedy)
    short = descriptors.shortage(connections_of(config))
    yield (
        Probe(Mark.NOTE, "descriptors", short)
        if short
        else Probe(Mark.WELL, "descriptors", f"{descriptors.limit()} files and sockets may be open")
    )


def _port(claim: Claim) -> Probe:
    """Take the port for a moment, as the bridge will."""
    at = f"{claim.host or '0.0.0.0'}:{claim.port}"  # noqa: S104 - said, not listened on
    family = socket.AF_INET6 if ":" in claim.host else socket.AF_INET
    with socket.socket(family) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((claim.host, claim.port))
            taken.listen(1)
        except OSError as error:
            return Probe(
                Mark.WRONG,
                "port",
                f"{claim.setting}: {at} can't be listened on ({error.strerror})",
                _freed(claim, error),
            )
    return Probe(Mark.WELL, "port", f"{at} is free")


def _freed(claim: Claim, error: OSError) -> str:
    """Return what to do."""
    if error.errno == errno.EADDRINUSE:
        who = user_of(claim.port)
        return (
            f"{who} has it; stop that, or choose another {claim.setting}" if who else f"choose another {claim.setting}"
        )
    if error.errno == errno.EACCES and claim.port <= LAST_PRIVILEGED:
        return (
            "ports below 1024 need a right: AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit, "
            "`sysctl net.ipv4.ip_unprivileged_port_start=0`, or a port above"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; `ip addr` lists those it has, 0.0.0.0 is all of them"
    return "see whether the host is an address of this machine"


def user_of(port: int) -> str:
    """Return which process listens on a TCP port, as far as we may see; "" where it can't be told."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = [line.split() for line in Path(table).read_text("ascii").splitlines()[1:]]
        except OSError:
            continue
        inodes |= {row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(one.readlink()) in wanted for one in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            continue
    return ""
