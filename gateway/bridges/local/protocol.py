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

from gateway.core.bridge import Effort
from gateway.core.model import (
    BridgeStatus,
    CommandEvent,
    DeviceState,
    Halt,
    Outline,
    Page,
    Pause,
    Resolution,
    Value,
)
from gateway.core.policy.checks import Verdict

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


class SendFleet(msgspec.Struct, frozen=True, tag="send_fleet"):
    """Submit a command for each of many devices. Answered by a `FleetPlan`; `Go` has it carried out."""

    setpoint: str
    value: Value
    user: str
    plant: str = ""
    kind: str = ""
    devices: tuple[str, ...] = ("*",)
    """Serial numbers or patterns."""
    ttl: float | None = None
    """Seconds; None for as long as the calls there are will take."""
    spread: float = 0.0
    """Seconds to spread the commands over."""
    revert_after: float | None = None
    revert_value: Value = None


class Go(msgspec.Struct, frozen=True, tag="go"):
    """Carry the plan out."""


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """End what has not left yet."""


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


class Explain(msgspec.Struct, frozen=True, tag="explain"):
    """Ask what would become of a command."""

    serial: str
    setpoint: str
    value: Value
    origin: str
    revert_after: float | None = None
    revert_value: Value = None


class StopControl(msgspec.Struct, frozen=True, tag="halt"):
    """Have all control stopped."""

    user: str
    reason: str = ""


class ResumeControl(msgspec.Struct, frozen=True, tag="resume"):
    """Have commands let in again."""

    user: str


class Step(msgspec.Struct, frozen=True, tag="step"):
    """One step of the command that was submitted."""

    event: CommandEvent


class FleetPlan(msgspec.Struct, frozen=True, tag="fleet_plan"):
    """What a command for many devices takes."""

    serials: list[str]
    without: int
    """Devices that match, but have no such setpoint."""
    efforts: dict[str, Effort]
    """Bridge → what it takes there, where it can tell."""
    seconds: float
    """About how long until the last has left."""
    ttl: float
    """Seconds after which what has not left expires."""
    known: bool
    """Whether there is a setpoint of that name at all."""


class FleetCancelled(msgspec.Struct, frozen=True, tag="fleet_cancelled"):
    """So many had not left."""

    count: int


class Inventory(msgspec.Struct, frozen=True, tag="inventory"):
    """Every device with its last known state, and how every bridge does."""

    states: list[DeviceState]
    bridges: list[BridgeStatus]


class Explained(msgspec.Struct, frozen=True, tag="explained"):
    """What would become of it."""

    verdict: Verdict


class ControlState(msgspec.Struct, frozen=True, tag="control"):
    """Whether control is halted now, after what was asked for."""

    halted: Halt | None


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


Request = Send | SendFleet | Devices | History | Explain | StopControl | ResumeControl
Answer = Go | Cancel
"""What a client says after a `FleetPlan`."""
Reply = (
    Step
    | FleetPlan
    | FleetCancelled
    | Inventory
    | Explained
    | ControlState
    | HistoryOutline
    | HistoryPage
    | HistoryPause
    | HistoryEnd
    | Failed
    | Refused
)


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
