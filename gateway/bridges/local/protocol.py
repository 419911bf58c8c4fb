"""What goes over the socket: one JSON object a line, both ways.

The client sends one request; the gateway answers with a stream of replies and then closes. The socket is
readable by its owner alone, which is all the authentication there is.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec

from gateway.core.balance import Sheet
from gateway.core.controller import CallEstimate
from gateway.core.model import (
    BridgeStatus,
    CommandEvent,
    Device,
    DeviceState,
    Halt,
    HistoryPlan,
    Page,
    RateLimitWait,
    Resolution,
    Value,
    Written,
)
from gateway.core.verdict import Verdict

SOCKET_NAME: Final = "control.sock"
MAX_LINE: Final = 1 << 20
MAX_PATH: Final = 100
"""A Unix socket's path must fit into 108 bytes (unix(7))."""

Seconds = Annotated[float, msgspec.Meta(ge=0, le=10 * 366 * 86_400)]
"""Of a request: times are reckoned with it, and ten years from now there are still times."""


class Send(msgspec.Struct, frozen=True, tag="send"):
    """Submit a command and follow it to its end."""

    serial: str
    setpoint: str
    value: Value
    user: str
    id: str = ""
    ttl: Seconds | None = None
    revert_after: Seconds | None = None
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
    ttl: Seconds | None = None
    """Seconds; None for as long as the calls there are will take."""
    spread: Seconds = 0.0
    """Seconds to spread the commands over."""
    revert_after: Seconds | None = None
    revert_value: Value = None


class Go(msgspec.Struct, frozen=True, tag="go"):
    """Carry the plan out."""


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """End what has not left yet."""


class Devices(msgspec.Struct, frozen=True, tag="devices"):
    """Ask for all devices and bridges."""


class Examine(msgspec.Struct, frozen=True, tag="examine"):
    """Ask how the gateway does, and what it doubts."""


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
    revert_after: Seconds | None = None
    revert_value: Value = None


class StopControl(msgspec.Struct, frozen=True, tag="halt"):
    """Have all control stopped."""

    user: str
    reason: str = ""


class ResumeControl(msgspec.Struct, frozen=True, tag="resume"):
    """Have commands let in again."""

    user: str


class Reload(msgspec.Struct, frozen=True, tag="reload"):
    """Have the configuration read again."""


class Reloaded(msgspec.Struct, frozen=True, tag="reloaded"):
    """It was, and this was done."""

    done: str
    """A line, and one for each warning."""


class Step(msgspec.Struct, frozen=True, tag="step"):
    """One step of the command that was submitted."""

    event: CommandEvent


class Outage(msgspec.Struct, frozen=True, tag="outage"):
    """Who would carry commands out and can't now. Comes before the first step of a `Send`, where there is any."""

    down: dict[str, str]
    """Bridge → why it is down."""
    stranded: int
    """Devices that no other bridge reaches: what is for them waits, and expires."""


class FleetPlan(msgspec.Struct, frozen=True, tag="fleet_plan"):
    """What a command for many devices takes."""

    serials: list[str]
    without: int
    """Devices that match, but have no such setpoint."""
    call_estimates: dict[str, CallEstimate]
    """Bridge → what it takes there, where that is known."""
    seconds: float
    """About how long until the last has left."""
    ttl: float
    """Seconds after which what has not left expires."""
    known: bool
    """Whether there is a setpoint of that name at all."""
    reached: dict[str, int]
    """Bridge → for how many of the devices it is the first choice."""
    outage: Outage


class FleetCancelled(msgspec.Struct, frozen=True, tag="fleet_cancelled"):
    """So many had not left."""

    count: int


class Inventory(msgspec.Struct, frozen=True, tag="inventory"):
    """Every device with its last known state, and how every bridge does."""

    states: list[DeviceState]
    bridges: list[BridgeStatus]
    written: list[Written] = []
    """How often the setpoints of devices were written; empty where no gateway runs."""


class Examined(msgspec.Struct, frozen=True, tag="examined"):
    """How the gateway does."""

    bridges: list[BridgeStatus]
    """With what each has found."""
    journal_trouble: str
    """Why no command can be taken; "" where all is well."""
    halted: Halt | None
    quality: dict[str, int]
    """How many plants and devices are of each quality."""
    plants: list[Device]
    sheets: list[Sheet]
    """pv + battery + grid = load of every plant, as it came out last."""


class Explained(msgspec.Struct, frozen=True, tag="explained"):
    """What would become of it."""

    verdict: Verdict


class ControlState(msgspec.Struct, frozen=True, tag="control"):
    """Whether control is halted now, after what was asked for, and whether it was before."""

    halted: Halt | None
    before: Halt | None = None


class HistoryPlanned(msgspec.Struct, frozen=True, tag="history_outline"):
    """What follows: so many pages, of these points. The first reply to `History`."""

    history_plan: HistoryPlan


class HistoryPage(msgspec.Struct, frozen=True, tag="history_page"):
    """The next page."""

    page: Page


class HistoryWait(msgspec.Struct, frozen=True, tag="history_pause"):
    """The next page takes a while."""

    pause: RateLimitWait


class HistoryEnd(msgspec.Struct, frozen=True, tag="history_end"):
    """That was all."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The request made sense, but what it asked for did not come about."""

    detail: str


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The request made no sense."""

    detail: str


Request = Send | SendFleet | Devices | Examine | History | Explain | StopControl | ResumeControl | Reload
Answer = Go | Cancel
"""What a client says after a `FleetPlan`."""
Reply = (
    Reloaded
    | Step
    | Outage
    | FleetPlan
    | FleetCancelled
    | Inventory
    | Examined
    | Explained
    | ControlState
    | HistoryPlanned
    | HistoryPage
    | HistoryWait
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
