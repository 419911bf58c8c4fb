"""Messages: commands of several devices in one, and what results say. Results are untrusted."""

from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from gateway.bridges.batch.interfaces import Route
from gateway.core.controller import Outcome
from gateway.core.model import Command, CommandState, Device, Value
from gateway.sems.catalogue import Catalogue, Json, SemsError
from gateway.sems.normalise import entries, texts
from gateway.sems.orders import together, window

MAX_RESULTS: Final = 10_000
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
    battery_window: float = 0.0
    """Seconds for which an order for a battery holds that has no dead-man's timer."""


class Result(msgspec.Struct, frozen=True):
    """What is said of one device of one request."""

    request: str
    """In small letters, as we make them."""
    serial: str
    """In capitals, whatever was sent and said."""
    outcome: Outcome
    error: SemsError | None = None


def item(command: Command, in_force: Mapping[str, Value], device: Device, battery_window: float) -> Item:
    """Return a command with the setpoints that share its call. Raises RefusedError."""
    return Item(command, together(command, in_force, device), battery_window)


def encode(route: Route, request: str, items: Sequence[Item], now: datetime, expires: datetime) -> bytes:
    """Return one message for all the items; none of them is executed after `expires`."""
    interface = route.interface
    args: dict[str, object] = {
        "receipt": request,
        "now": _milliseconds(now),
        "expires": _milliseconds(expires),
    }
    has_times = not interface.args.isdisjoint(("begins", "ends"))
    whole: dict[str, Json] = {}
    for one in items:
        times = window(one.command, now, one.battery_window) if has_times else {}
        filled = {**args, **times, "serial": one.command.serial, **one.setpoints}
        _add(whole, interface.parameters(filled, one.command.setpoint))
    return _ENCODER.encode(whole)


def decode(route: Route, catalogue: Catalogue, value: bytes) -> tuple[list[Result], int, Json]:
    """Return what a message says of its devices, how many entries say nothing, and all of it.

    Raises BadResultError.
    """
    try:
        data: Json = _DECODER.decode(value.removeprefix(BOM_UTF8))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadResultError("not_json", f"is no JSON: {error}") from None
    results: list[Result] = []
    empty = 0
    # One result alone may stand there bare, without a list.
    found = entries(route.interface, data) or ([data] if isinstance(data, dict) else [])
    for entry in found[:MAX_RESULTS]:
        said = texts(route.interface, entry)
        request, serial, code = said.get("receipt"), said.get("serial"), said.get("code")
        if request and serial and code:
            results.append(_result(catalogue, request.lower(), serial.upper(), code.upper(), said.get("detail", "")))
        elif entry is not data:
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
