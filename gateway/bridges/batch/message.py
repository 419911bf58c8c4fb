"""Messages: commands of several devices in one, and what results say. Results are untrusted."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from gateway.bridges.batch.interfaces import Route
from gateway.core.bridge import Outcome
from gateway.core.model import Command, CommandState, Value
from gateway.sems.catalogue import Catalogue, Json, SemsError
from gateway.sems.normalise import entries, read
from gateway.sems.orders import WINDOW, together

RESULTS_MOST: Final = 10_000
"""In one message; what comes after these is not looked at."""
REFUSALS: Final = {
    SemsError.UNAUTHORISED: "GoodWe has not whitelisted {serial} for you, or its owner has not agreed; "
    "ask GoodWe, or take it out of the whitelist",
    SemsError.DISOBEYED: "the device did not obey",
}
_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder()


class BadResultError(Exception):
    """A message that says nothing. `kind` is for metrics."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Item(msgspec.Struct, frozen=True):
    """A command, ready to go into a message."""

    command: Command
    setpoints: Mapping[str, Value]
    """All that the call carries."""


class Result(msgspec.Struct, frozen=True):
    """What is said of one device of one request."""

    request: str
    serial: str
    outcome: Outcome
    error: SemsError | None = None


def item(command: Command, in_force: Mapping[str, Value], lowest_soc: float) -> Item:
    """Return a command with the setpoints that share its call."""
    return Item(command, together(command, in_force, lowest_soc))


def encode(route: Route, request: str, items: Sequence[Item], now: datetime, expires: datetime) -> bytes:
    """Return one message for all the items; none of them is executed after `expires`."""
    whole: dict[str, Json] = {}
    args: dict[str, object] = {
        "receipt": request,
        "now": _milliseconds(now),
        "expires": _milliseconds(expires),
        "begins": int(now.timestamp()),
        "ends": int((now + WINDOW).timestamp()),
    }
    for one in items:
        filled = {**args, "serial": one.command.serial, **one.setpoints}
        _add(whole, route.interface.parameters(filled, one.command.setpoint))
    return _ENCODER.encode(whole)


def decode(route: Route, catalogue: Catalogue, value: bytes, now: datetime) -> tuple[list[Result], int, Json]:
    """Return what a message says of its devices, how many entries say nothing, and all of it.

    Raises BadResultError.
    """
    try:
        data: Json = _DECODER.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadResultError("not_json", f"is no JSON: {error}") from None
    results: list[Result] = []
    empty = 0
    for entry in entries(route.interface, data)[:RESULTS_MOST]:
        reading = read(route.interface, entry, UTC, now)
        request, serial, code = (reading.text(name) for name in ("receipt", "serial", "code"))
        if request and serial and code:
            results.append(_result(catalogue, request, serial, code, reading.text("detail")))
        else:
            empty += 1
    if not results and not empty:
        raise BadResultError("no_results", "says nothing of any device")
    return results, empty, data


def _result(catalogue: Catalogue, request: str, serial: str, code: str, said: str) -> Result:
    if code in catalogue.success:
        return Result(request, serial, Outcome(CommandState.SUCCEEDED, said or "GoodWe says it is done"))
    error = catalogue.error_of(code)
    words = REFUSALS.get(error, "GoodWe refuses it").format(serial=serial) if error else "GoodWe refuses it"
    detail = f"{words} ({code}: {said})" if said else f"{words} ({code})"
    return Result(request, serial, Outcome(CommandState.FAILED, detail), error)


def _add(whole: dict[str, Json], more: Mapping[str, Json]) -> None:
    """Put the lists of one message at the end of another's."""
    for name, value in more.items():
        known = whole.get(name)
        if isinstance(known, list) and isinstance(value, list):
            known.extend(value)
        elif isinstance(known, dict) and isinstance(value, dict):
            _add(known, value)
        else:
            whole[name] = value


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
