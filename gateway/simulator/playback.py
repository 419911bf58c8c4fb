"""A recording as a cloud: each call gets the answer that was recorded for it, with its times moved to now."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from gateway.sems.catalogue import Interface, Json, Use
from gateway.sems.recording import Answer, Recording
from gateway.simulator.requests import Refusal, RefusedError

NEAR: Final = timedelta(hours=36)
"""How far from when it was recorded a time in an answer is one of measurement; others are dates of something else."""
PLAYED: Final = frozenset(Use) - {Use.LOGIN, Use.CONTROL, Use.DISPATCH, Use.PARAMETERS_TASK}
"""Uses whose answers may be recorded. A recording obeys nobody."""
_TIME: Final = re.compile(r"(\d{1,4})([-/.])(\d{1,2})\2(\d{1,4})([ T])(\d\d?:\d\d(?::\d\d)?)(.*)", re.ASCII)
_ORDERS: Final = (("%Y", "%m", "%d"), ("%d", "%m", "%Y"), ("%m", "%d", "%Y"))
_ZONE: Final = re.compile(r"[A-Z][A-Za-z_]+(/[A-Za-z_+-]+)+")


class Playback:
    """The answers of a recording."""

    def __init__(self, recording: Recording) -> None:
        self.api = recording.api
        self._answers: dict[str, list[Answer]] = {}
        for answer in recording.answers:
            self._answers.setdefault(answer.interface, []).append(answer)
        self._first = min((answer.time for answer in recording.answers), default=recording.made)
        self._zone = next((zone for answer in recording.answers for zone in _zones(answer.body)), None)
        self._begun: datetime | None = None

    def answer(self, interface: Interface, params: Mapping[str, Json], now: datetime) -> Answer:
        """Return what was answered to a call. Raises RefusedError where nothing like it was recorded."""
        if interface.use not in PLAYED:
            raise RefusedError(Refusal.NOT_SUPPORTED, f"a recording takes no orders, so no {interface.name}")
        recorded = self._answers.get(interface.name, [])
        if not recorded:
            raise RefusedError(Refusal.NOT_FOUND, f"the recording has no answer of {interface.name}")
        wanted = {name: _plain(value) for name, value in params.items()}
        alike = [answer for answer in recorded if _args(answer) == wanted]
        found = self._timely(alike or _nearest(recorded, wanted), now)
        if not found:
            shown = ", ".join(f"{name}={value}" for name, value in sorted(wanted.items()))
            raise RefusedError(Refusal.NOT_FOUND, f"the recording has no answer of {interface.name} for {shown:.200}")
        body = found[0].body
        for other in found[1:]:
            body = _joined(body, other.body)
        return msgspec.structs.replace(found[0], body=self._moved(body, found[0].time, now))

    def _timely(self, answers: Sequence[Answer], now: datetime) -> list[Answer]:
        """Return, of those with the same arguments, the one as far into the recording as this call is into the play."""
        self._begun = self._begun or now
        played = self._first + (now - self._begun)
        best: dict[str, Answer] = {}
        for answer in sorted(answers, key=lambda answer: answer.time):
            key = repr(sorted(_args(answer).items()))
            if key not in best or answer.time <= played:
                best[key] = answer
        return list(best.values())

    def _moved(self, body: Json, then: datetime, now: datetime) -> Json:
        later = now - then
        local = later
        if self._zone is not None:  # The hour by the plant's clock is to be right in winter, too.
            local += (now.astimezone(self._zone).utcoffset() or timedelta()) - (
                then.astimezone(self._zone).utcoffset() or timedelta()
            )
        return _moved(body, then, later, local)


def _args(answer: Answer) -> dict[str, str | tuple[str, ...]]:
    return {name: _plain(value) for name, value in answer.args.items()}


def _plain(value: Json) -> str | tuple[str, ...]:
    """Return an argument without its type: the address of a GET knows text alone."""
    return tuple(sorted(map(str, value))) if isinstance(value, list) else str(value)


def _nearest(answers: Sequence[Answer], wanted: Mapping[str, str | tuple[str, ...]]) -> list[Answer]:
    """Return what was answered to nearly the same: about some of several devices, or of another day."""
    lists = {name: set(value) for name, value in wanted.items() if isinstance(value, tuple)}
    dates = {name for name, value in wanted.items() if isinstance(value, str) and re.match(r"\d{4}-\d\d", value)}
    found = []
    for answer in answers:
        args = _args(answer)
        same = all(args.get(name) == value for name, value in wanted.items() if name not in lists and name not in dates)
        if same and all(names & set(args.get(name, ())) for name, names in lists.items()):
            found.append(answer)
    if dates and found:
        newest = max(found, key=lambda answer: answer.time)
        return [answer for answer in found if _args(answer) == _args(newest)]
    return found


def _joined(one: Json, other: Json) -> Json:
    """Return two answers as one: their lists are put together, the rest is the first one's."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {**other, **{key: _joined(value, other.get(key)) for key, value in one.items()}}
    if isinstance(one, list) and isinstance(other, list):
        return one + [entry for entry in other if entry not in one]
    return one


def _moved(node: Json, then: datetime, later: timedelta, local: timedelta) -> Json:
    """Return an answer whose times are that much later: those without a zone by `local`."""
    if isinstance(node, dict):
        return {key: _moved(value, then, later, local) for key, value in node.items()}
    if isinstance(node, list):
        return [_moved(value, then, later, local) for value in node]
    if isinstance(node, str):
        return _moved_text(node, then, later, local)
    if isinstance(node, (int, float)) and not isinstance(node, bool):
        return _moved_number(node, then, later)
    return node


def _moved_number(number: float, then: datetime, later: timedelta) -> float:
    for per_second in (1, 1000):
        if abs(number / per_second - then.timestamp()) < NEAR.total_seconds():
            return number + type(number)(later.total_seconds() * per_second)
    return number


def _moved_text(text: str, then: datetime, later: timedelta, local: timedelta) -> str:
    if text.isascii() and text.isdigit() and 10 <= len(text) <= 13:
        return str(_moved_number(int(text), then, later))
    match = _TIME.fullmatch(text)
    if match is None:
        return text
    _, mark, _, _, between, clock, rest = match.groups()
    hours = "%H:%M:%S" if clock.count(":") == 2 else "%H:%M"
    readings = []
    for order in _ORDERS:
        form = mark.join(order) + between + hours
        try:
            time = datetime.strptime(text.removesuffix(rest), form).replace(tzinfo=UTC)
        except ValueError:
            continue
        readings.append((abs(time - then), time, form))
    # Of a day and a month that may be either, the reading is right which is near to when it was recorded.
    apart, time, form = min(readings, default=(NEAR, then, ""))
    return (time + (later if rest else local)).strftime(form) + rest if apart < NEAR else text


def _zones(node: Json) -> Iterator[ZoneInfo]:
    if isinstance(node, dict):
        for value in node.values():
            yield from _zones(value)
    elif isinstance(node, list):
        for value in node:
            yield from _zones(value)
    elif isinstance(node, str) and _ZONE.fullmatch(node) and (zone := _zone(node)) is not None:
        yield zone


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
