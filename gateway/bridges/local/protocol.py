"""What goes over the socket: one JSON object a line, both ways.

The client sends one request; the gateway answers with a stream of replies and then closes. The socket is
readable by its owner alone, which is all the authentication there is.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from gateway.core.model import BridgeStatus, CommandEvent, DeviceState, Outline, Page, Pause, Resolution, Value

SOCKET_NAME: Final = "control.sock"
MAX_LINE: Final = 1 << 20
MAX_PATH: Final = 100
"""A Unix socket's path must fit into 108 bytes (unix(7))."""


class Send(msgspec.Struct, frozen=True, tag="send"):
    """Submit a command and follow it to its end."""

    serial: str
    setpoint: str
    value: Value
    user: str
    id: str = ""
    ttl: float | None = None
    revert_after: float | None = None
    revert_value: Value = None


class Devices(msgspec.Struct, frozen=True, tag="devices"):
    """Ask for all devices and bridges."""


class History(msgspec.Struct, frozen=True, tag="history"):
    """Ask for what was measured before."""

    serial: str
    start: str
    """A local date of the plant, or an RFC 3339 time."""
    end: str
    """The same; a date is included, a time is not."""
    resolution: Resolution = Resolution.MINUTES
    since: datetime | None = None
    """What is before this time is there already."""


class Step(msgspec.Struct, frozen=True, tag="step"):
    """One step of the command that was submitted."""

    event: CommandEvent


class Inventory(msgspec.Struct, frozen=True, tag="inventory"):
    """Every device with its last known state, and how every bridge does."""

    states: list[DeviceState]
    bridges: list[BridgeStatus]


class HistoryOutline(msgspec.Struct, frozen=True, tag="history_outline"):
    """What follows: so many pages, of these points. The first reply to `History`."""

    outline: Outline


class HistoryPage(msgspec.Struct, frozen=True, tag="history_page"):
    """The next page."""

    page: Page


class HistoryPause(msgspec.Struct, frozen=True, tag="history_pause"):
    """The next page takes a while."""

    pause: Pause


class HistoryEnd(msgspec.Struct, frozen=True, tag="history_end"):
    """That was all."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The request made sense, but what it asked for did not come about."""

    detail: str


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The request made no sense."""

    detail: str


Request = Send | Devices | History
Reply = Step | Inventory | HistoryOutline | HistoryPage | HistoryPause | HistoryEnd | Failed | Refused


@contextmanager
def socket_path(data_dir: Path) -> Iterator[str]:
    """Give a path to the socket that is short enough for the kernel, however deep `data_dir` lies."""
    path = data_dir / SOCKET_NAME
    if len(str(path)) <= MAX_PATH:
        yield str(path)
        return
    directory = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{SOCKET_NAME}"
    finally:
        os.close(directory)
