"""Times as SEMS writes them.

Dates are written in the account's own format, and `12/11/2026` alone does not show which number is the month
(SEMS.md, seen). So the order is a property of the account: set, said by an answer, or learned from dates that have but
one meaning. It is never guessed for one value: while it is not known, such a date has no meaning at all.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Final

import msgspec

AHEAD: Final = timedelta(minutes=2)
"""By how much SEMS's clock may be ahead of ours."""
CLEARLY_AHEAD: Final = timedelta(hours=36)
"""No measurement is from so far ahead, whatever the zone."""
RECENT: Final = timedelta(hours=48)
"""What is no older than this looks like the time of a measurement."""
EARLIEST: Final = 2000
"""Year before which there was nothing to measure: what is older stands for "never"."""
MAX_SHOWN: Final = 64
"""Characters of a time that are shown."""
SINCE_1970: Final = (946_684_800, 4_102_444_800)
"""Seconds from 2000 to 2100: other numbers are no times."""
MAX_COUNT: Final = SINCE_1970[1] * 1000
"""Milliseconds."""
MAX_KEPT: Final = 1000
"""Things of one interface whose times can't be read, by name; of more, nobody learns when the last can be."""
AUTO: Final = "auto"

_TIME: Final = re.compile(
    r"""\s*
    (?: (?P<year>\d{4}) (?P<dash>[-/.]) (?P<month>\d\d?) (?: (?P=dash) (?P<day>\d\d?) )?
      | (?P<first>\d\d?) (?P<slash>[-/.]) (?P<second_>\d\d?) (?P=slash) (?P<last>\d{4}) )?
    (?: (?:(?<=\d)(?:,?[ ]+|T)|(?<!\d)) (?P<hour>\d\d?) : (?P<minute>\d\d) (?: : (?P<second>\d\d) (?: \.\d+ )? )?
        (?: \s* (?P<half>[AaPp])\.?[Mm]\.? )? \s* (?P<offset> Z | [+-]\d\d:?\d\d )? )?
    \s*""",
    re.VERBOSE | re.ASCII,
)
"""A day, a day and a time, or hours and minutes alone: `2026-06-21 13:05:00`, `21.06.2026 1:05:00 PM`, `13:05`."""
_FORMAT: Final = re.compile(r"(d\d?d?|m+|y{4})([-/.])(d+|m+)\2(d+|m+|y{4})", re.IGNORECASE)


class Order(StrEnum):
    """Where a date that ends with the year has its month."""

    DAY_FIRST = "dd/MM/yyyy"
    MONTH_FIRST = "MM/dd/yyyy"

    @property
    def other(self) -> "Order":
        """The other one."""
        return Order.MONTH_FIRST if self is Order.DAY_FIRST else Order.DAY_FIRST


def order_of(date_format: str) -> Order | None:
    """Return the order that a format such as `dd/MM/yyyy` or `MM.dd.yyyy` means; None where the year comes first.

    Raises ValueError for what is none.
    """
    match = _FORMAT.fullmatch(date_format.strip().partition(" ")[0])
    letters = "".join(part[0].lower() for part in match.group(1, 3, 4)) if match else ""
    match letters:
        case "dmy":
            return Order.DAY_FIRST
        case "mdy":
            return Order.MONTH_FIRST
        case "ymd":
            return None
    raise ValueError(f"{date_format!r} is no date format; write one like dd/MM/yyyy, MM.dd.yyyy or yyyy/MM/dd")


class Written(msgspec.Struct, frozen=True):
    """A time as it stands there. Nothing is read into it yet."""

    text: str
    year: int
    """0 where there is no date."""
    first: int
    """The number before `second`: the month where the year comes first, else nobody knows by this alone."""
    second: int
    year_first: bool
    clock: timedelta
    """Since midnight."""
    offset: str = ""
    """As it is written; empty where the plant's zone counts."""

    def on(self, order: Order) -> datetime | None:
        """Return the local time that it is if dates have that order; None where there is no such day."""
        month, day = (self.second, self.first) if order is Order.DAY_FIRST else (self.first, self.second)
        try:
            # A day that ends at 24:00 ends when the next begins.
            local = datetime(self.year, month, day) + self.clock  # noqa: DTZ001 - the zone follows
            return datetime.fromisoformat(f"{local.isoformat()}{self.offset}") if self.offset else local
        except (ValueError, OverflowError):
            return None


def written(raw: object) -> Written | None:
    """Read a text, or a count since 1970, as a time; None where it is none, or there can be none such."""
    counted = _since_1970(raw)
    if counted is not None:
        return counted
    match = _TIME.fullmatch(raw) if isinstance(raw, str) and len(raw) <= MAX_SHOWN else None
    if match is None:
        return None
    part = match.groupdict()
    clock = _clock(part)
    if clock is None:
        return None
    year = int(part["year"] or part["last"] or 0)
    if not year:
        return None if part["hour"] is None or part["offset"] else Written(match[0], 0, 0, 0, False, clock)
    if year < EARLIEST:
        return None
    first, second = part["month"] or part["first"], (part["day"] or "1") if part["year"] else part["second_"]
    return Written(match[0], year, int(first), int(second), bool(part["year"]), clock, part["offset"] or "")


def _since_1970(raw: object) -> Written | None:
    """Read a count of seconds or milliseconds, as a number or its digits; None where it is no day of this century."""
    if isinstance(raw, str):
        digits = raw.strip()[:MAX_SHOWN]
        count = float(digits) if digits.isascii() and digits.isdigit() else math.nan
    elif isinstance(raw, int | float) and not isinstance(raw, bool) and 0 < raw < MAX_COUNT:
        count = float(raw)
    else:
        return None
    for per_second in (1, 1000):
        if SINCE_1970[0] <= count / per_second < SINCE_1970[1]:
            time = datetime.fromtimestamp(count / per_second, UTC)
            clock = timedelta(hours=time.hour, minutes=time.minute, seconds=time.second)
            return Written(str(raw)[:MAX_SHOWN], time.year, time.month, time.day, True, clock, "+00:00")
    return None


def _clock(part: Mapping[str, str | None]) -> timedelta | None:
    """Return the time since midnight; None where no clock shows that."""
    hour, minute, second = (int(part[name] or 0) for name in ("hour", "minute", "second"))
    if part["half"] is not None:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if part["half"] in "Pp" else 0)
    if minute > 59 or second > 59 or hour * 3600 + minute * 60 + second > 24 * 3600:
        return None
    return timedelta(hours=hour, minutes=minute, seconds=second)


def is_there(raw: object) -> bool:
    """Return whether a field for a time has something in it, be it readable or not."""
    return not (raw is None or raw == 0 or (isinstance(raw, str) and raw.strip() in ("", "0", "-", "--", "null")))


class Dates:
    """How one account writes dates, and which of its interfaces have times that can't be read."""

    def __init__(self, given: Order | None = None) -> None:
        self._given = given
        """What the user has set: that nothing corrects."""
        self._order = given
        self._said = ""
        """The format that an answer named last."""
        self.evidence = ""
        """The date, or the format, by which the order is known; empty where nobody had to find out."""
        self._unread: dict[str, set[str]] = {}
        """Interface → serials whose times can't be read."""
        self.on_learned: Callable[[], None] = lambda: None
        """Called when the order was found out, or turned out to be another."""
        self.on_unread: Callable[[str, str], None] = lambda _, __: None
        """Called with an interface and the text seen when its times begin to be unreadable; with "" when that ends."""

    @property
    def order(self) -> Order | None:
        """The order of dates that end with the year; None while it is not known."""
        return self._order

    def restore(self, order: Order, evidence: str) -> None:
        """Go by what was found out before."""
        if self._given is None:
            self._order, self.evidence = order, evidence

    def say(self, date_format: str) -> None:
        """Take in the format that an answer names. The same again is no news: a date may have contradicted it."""
        if date_format == self._said:
            return
        try:
            order = order_of(date_format)
        except ValueError:
            return
        self._said = date_format
        if order is not None:
            self._learn(order, date_format[:MAX_SHOWN])

    def local(self, time: Written, now: datetime, day: datetime | None = None) -> datetime | None:
        """Return the local time that was written (aware where it has an offset); None where that is unknown.

        `day` is the local day that was asked for, or the first of the days. What shows the order is remembered.
        """
        if time.year_first or time.first == time.second:
            return time.on(Order.MONTH_FIRST)
        if self._given is not None:
            return time.on(self._given)
        order = self._order_by(time, now, day)
        if order is not None:
            self._learn(order, time.text.strip())
            return time.on(order)
        meanings = [meaning for order in Order if (meaning := time.on(order)) is not None]
        if len(meanings) == 1:
            return meanings[0]  # from far ahead, so nothing is learned from it
        return time.on(self._order) if self._order is not None else None

    def note(self, interface: str, serial: str, unread: Mapping[str, str]) -> None:
        """Take note that something's times can be read, or of those that can't: attribute → text."""
        troubled = self._unread.get(interface)
        if unread:
            if troubled is None:
                self._unread[interface] = {serial}
                self.on_unread(interface, next(iter(unread.values())))
            elif len(troubled) < MAX_KEPT:
                troubled.add(serial)
        elif troubled is not None:
            troubled.discard(serial)
            if not troubled:
                del self._unread[interface]
                self.on_unread(interface, "")

    def forget(self, serial: str) -> None:
        """Forget something that is known no more."""
        for interface, troubled in list(self._unread.items()):
            if serial in troubled:
                self.note(interface, serial, {})

    def _order_by(self, time: Written, now: datetime, day: datetime | None) -> Order | None:
        """Return the order that this date shows: it has no other meaning, or none that can be."""
        read = {order: meaning for order in Order if (meaning := time.on(order)) is not None}
        if day is not None and len(read) == 2:
            asked = [order for order, meaning in read.items() if (meaning.year, meaning.month) == (day.year, day.month)]
            return asked[0] if len(asked) == 1 else None
        age = {order: _age(meaning, now) for order, meaning in read.items()}
        possible = [order for order in read if age[order] > -CLEARLY_AHEAD]
        if len(possible) != 1:
            return None
        (order,) = possible
        # Of two, the other is from the future. That is proof against what was learned; to begin with it takes more.
        if len(read) == 1 or self._order is order.other or age[order] < RECENT:
            return order
        return None

    def _learn(self, order: Order, evidence: str) -> None:
        if self._given is None and order is not self._order:
            self._order, self.evidence = order, evidence
            self.on_learned()


def _age(meaning: datetime, now: datetime) -> timedelta:
    return now - (meaning if meaning.tzinfo is not None else meaning.replace(tzinfo=UTC))


def instant(
    said: Written | datetime | None,
    zone: tzinfo,
    now: datetime,
    day: datetime | None,
    after: datetime | None,
    dates: Dates,
) -> tuple[datetime | None, datetime | None]:
    """Return the time in UTC that a time means, and as it is local to the plant where its zone had to be known.

    The hour that a clock set back shows twice has two meanings. In a series it is the first that comes after the
    entry before. Elsewhere it is the later one, for SEMS answers with the newest it has, unless that is yet to come.
    """
    local: datetime | None
    if not isinstance(said, Written):
        local = said
    elif said.year:
        local = dates.local(said, now, day)
    else:
        local = None if day is None else datetime(day.year, day.month, day.day) + said.clock  # noqa: DTZ001
    if local is None:
        return None, None
    try:
        if local.tzinfo is not None:
            return local.astimezone(UTC), None
        earlier, later = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    except (ValueError, OverflowError):
        return None, None
    if later <= earlier:  # one meaning; or none, where clocks were set forward over it: then as if they were not yet
        return earlier, local
    if after is not None:
        return (earlier if earlier > after else later), local
    return (later if later <= now + AHEAD else earlier), local
