"""One pushed object: which interface's answer it is, of whom, and the answer itself.

What is pushed is the body of the matching query, with `interface` naming it and `sn` or `plant_id` beside
(SEMS.md, assumed): as it is, under `data`, or in the query's envelope.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

import msgspec

from gateway.sems.catalogue import Catalogue, Interface, Json, Use
from gateway.sems.pushed.outcome import BadPushError

USES: Final = frozenset({Use.PLANTS, Use.DEVICES, Use.DETAIL, Use.LIVE, Use.ALARMS, Use.SERIES, Use.PARAMETERS})
"""What brings data. The others are for a client's own calls."""
MAX_SERIAL_CHARS: Final = 64
SHOWN: Final = 40
"""Characters of what somebody sent that an answer or a log repeats."""


class Message(msgspec.Struct, frozen=True):
    """A push that names itself well. What its data are worth is not known yet."""

    interface: Interface
    subject: str
    """Serial of the device, or id of the plant, that was asked about; "" where the entries say theirs."""
    plant: str
    """Id of the plant it belongs to, where that is said; the subject itself if that is one."""
    data: Json
    day: datetime | None
    """The day that was asked for, for times that are hours and minutes alone."""


class Reader:
    """Finds interfaces by their names."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._success = catalogue.success
        self._by_name = {interface.name.casefold(): interface for interface in catalogue.interfaces}
        self._plants = {i.name for i in catalogue.interfaces if {"plant", "plants"} & i.args}

    def read(self, pushed: Json) -> Message:
        """Return what an object is. Raises BadPushError."""
        if not isinstance(pushed, dict):
            raise BadPushError("no object", "this is no JSON object")
        interface = self._interface(pushed.get("interface"))
        by_plant = interface.name in self._plants
        plant = _serial(pushed, ("plant_id", "plantId", *_names(interface, "plant")))
        if by_plant:
            # Of what a plant has, each entry names itself.
            subject = plant if "plant" in interface.of else ""
        else:
            subject = _serial(pushed, ("sn", *_names(interface, "serial")))
        return Message(interface, subject, plant, self._data(pushed, interface), _day(pushed.get("date")))

    def _interface(self, name: Json) -> Interface:
        if not isinstance(name, str) or not name:
            raise BadPushError("no interface", "`interface` is missing: it names the query whose answer this is")
        interface = self._by_name.get(name.casefold())
        if interface is None:
            raise BadPushError("unknown interface", f"there is no interface {name[:SHOWN]!r}")
        if interface.use not in USES:
            raise BadPushError(f"interface {interface.name}", f"{interface.name} brings no data")
        return interface

    def _data(self, pushed: Mapping[str, Json], interface: Interface) -> Json:
        code = pushed.get("code")
        if "data" not in pushed:
            return {name: value for name, value in pushed.items() if name != "interface"}
        if code is not None and _plain(code) not in self._success:
            raise BadPushError(f"failed {interface.name}", f"the envelope says that {interface.name} has failed")
        if not isinstance(pushed["data"], (dict, list)):
            raise BadPushError(f"empty {interface.name}", f"{interface.name} has no data")
        return pushed["data"]


def is_serial(text: str) -> bool:
    """Return whether this may name a device."""
    return 0 < len(text) <= MAX_SERIAL_CHARS and text.isprintable()


def _names(interface: Interface, arg: str) -> Iterator[str]:
    """Yield under what names the query itself has a serial number or a plant."""
    return (row.field for row in interface.request if row.arg in (arg, f"{arg}s") and "." not in row.field)


def _serial(pushed: Mapping[str, Json], names: tuple[str, ...]) -> str:
    for name in names:
        value = pushed.get(name)
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            serial = str(value).strip()
            if not is_serial(serial):
                raise BadPushError("odd serial", f"`{name}` must have 1 to {MAX_SERIAL_CHARS} printable characters")
            return serial
    return ""


def _plain(code: Json) -> str:
    return str(code) if isinstance(code, (str, int)) and not isinstance(code, bool) else ""


def _day(raw: Json) -> datetime | None:
    try:
        return datetime.strptime(str(raw), "%Y-%m-%d")  # noqa: DTZ007 - a day of the plant's, without a zone
    except ValueError:
        return None
