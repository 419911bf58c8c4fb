"""What a bridge doubts, or has found out, about what the far side says: for a person to read and to put right.

A finding is no error, and but for those of `ALARMING` no alarm of a device. It stands until it is settled, is logged
once when it begins and once when it ends, and is shown with the state of its bridge. Where there are many of a kind, or
one comes and goes, the log says so once an hour, and no more of each.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec
import structlog

from gateway.core.text import escaped

MAX_FINDINGS: Final = 1000
"""Of one bridge. What is beyond has to wait until one is settled."""
MAX_TEXT: Final = 1000
"""Characters of a sentence, and of a remedy."""
MAX_LINES: Final = 10
"""Of one kind that are logged one by one in an `HOUR`."""
HOUR: Final = timedelta(hours=1)


class FindingCode(StrEnum):
    """What kind of finding it is. `SHOWN` has a word for each."""

    LIST_DOUBTED = "list_doubted"
    INTERFACE_REFUSED = "interface_refused"
    NO_DATA = "no_data"
    TIME_UNREADABLE = "time_unreadable"
    DATE_ORDER = "date_order"
    ZONE_UNKNOWN = "zone_unknown"
    ZONE_INFERRED = "zone_inferred"
    VALUE_UNREADABLE = "value_unreadable"
    NOT_STEERABLE = "not_steerable"
    """A device is a member of a fleet, and the fleet can't steer it."""
    LIMIT_NOT_HELD = "limit_not_held"
    STEERED_TWICE = "steered_twice"
    LEFT_AS_TOLD = "left_as_told"
    """A fleet or a limit has told a device something, and steers it no more."""
    FIELDS_UNKNOWN = "fields_unknown"
    SIGN_DOUBTFUL = "sign_doubtful"
    VALUE_DOUBTFUL = "value_doubtful"
    DEVICES_UNKNOWN = "devices_unknown"
    DEVICES_WITHOUT_UNIT = "devices_without_unit"


SHOWN: Final[Mapping[FindingCode, str]] = {
    FindingCode.LIST_DOUBTED: "a list lost much of what it had; kept until it is believed",
    FindingCode.INTERFACE_REFUSED: "SEMS refuses an interface; what it alone brings is missing",
    FindingCode.NO_DATA: "answers have no value in them",
    FindingCode.TIME_UNREADABLE: "a time can't be read",
    FindingCode.DATE_ORDER: "which is the day and which the month was found out",
    FindingCode.ZONE_UNKNOWN: "nothing says in which time zone its times are",
    FindingCode.ZONE_INFERRED: "its time zone was found out from its times",
    FindingCode.VALUE_UNREADABLE: "a value can't be read",
    FindingCode.NOT_STEERABLE: "a member that a fleet can't steer",
    FindingCode.LIMIT_NOT_HELD: "more is fed in, or drawn, than a limit permits",
    FindingCode.STEERED_TWICE: "a limit and a fleet, or two limits, steer one device; each writes over the other",
    FindingCode.LEFT_AS_TOLD: "a device stands as a fleet or a limit told it that does not steer it any more",
    FindingCode.FIELDS_UNKNOWN: "answers have fields that the catalogue does not know",
    FindingCode.SIGN_DOUBTFUL: "the other sign fits better",
    FindingCode.VALUE_DOUBTFUL: "a power does not fit what the device is rated for; its unit may be another",
    FindingCode.DEVICES_UNKNOWN: "devices are pushed that nobody knows; not taken",
    FindingCode.DEVICES_WITHOUT_UNIT: "devices have no Modbus unit, and are not served there",
}
FOR_INFORMATION: Final = frozenset({FindingCode.DATE_ORDER, FindingCode.ZONE_INFERRED, FindingCode.FIELDS_UNKNOWN})
"""Nothing is wrong with these: they say what was found out."""
SAID_ONCE: Final = frozenset({FindingCode.FIELDS_UNKNOWN})
"""Of these the log has the first of an `HOUR` alone: a cloud that adds a field adds it to all of its interfaces."""
ALARMING: Final = frozenset({FindingCode.SIGN_DOUBTFUL})
"""These are an alarm of the device they are about, too: who reads its values must know."""


class Finding(msgspec.Struct, frozen=True):
    """One of them."""

    code: FindingCode
    subject: str
    """A serial number, the id of a plant, the name of an interface; "" for the bridge as a whole."""
    text: str
    remedy: str
    """What to do about it, e.g. lines to put into the configuration; "" where nothing needs doing."""
    since: datetime

    @property
    def is_trouble(self) -> bool:
        """Whether somebody should look at it."""
        return self.code not in FOR_INFORMATION


class Findings:
    """Those of one bridge."""

    def __init__(self, log: structlog.stdlib.BoundLogger) -> None:
        self._log = log
        self._known: dict[tuple[FindingCode, str], Finding] = {}
        self._logged: set[tuple[FindingCode, str]] = set()
        """Those whose end is worth a line, too."""
        self._lines: dict[FindingCode, tuple[datetime, int]] = {}
        """When its hour began, and how many began in it."""

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._known.values())

    def find(self, code: FindingCode, subject: str, text: str, remedy: str, now: datetime) -> bool:
        """Take one in; True where that changes something. Logged when it is new, not when its words change."""
        key = (code, subject)
        text, remedy = escaped(text, MAX_TEXT), escaped(remedy, MAX_TEXT, keep="\n")
        known = self._known.get(key)
        if known is not None and (known.text, known.remedy) == (text, remedy):
            return False
        if known is None and len(self._known) >= MAX_FINDINGS:
            return False
        self._known[key] = Finding(code, subject, text, remedy, now if known is None else known.since)
        if known is None:
            self._tell(self._known[key], now)
        return True

    def _tell(self, finding: Finding, now: datetime) -> None:
        code, subject = finding.code, finding.subject
        begun, lines = self._lines.get(code, (now, 0))
        if not timedelta(0) <= now - begun < HOUR:
            begun, lines = now, 0
        self._lines[code] = begun, lines + 1
        said = self._log.info if code in FOR_INFORMATION else self._log.warning
        once = code in SAID_ONCE
        if lines < (1 if once else MAX_LINES):
            self._logged.add((code, subject))
            remedy = {"remedy": finding.remedy} if finding.remedy else {}
            more = {"more": "others like it only show with the state; see `sems-gateway doctor`"} if once else {}
            said(finding.text, finding=code.value, subject=subject, **remedy, **more)
        elif lines == MAX_LINES and not once:
            said("there are more of this finding; for an hour they only show with the state", finding=code.value)

    def settle(self, code: FindingCode, subject: str) -> bool:
        """End one; True where there was one."""
        known = self._known.pop((code, subject), None)
        was_logged = (code, subject) in self._logged
        self._logged.discard((code, subject))
        if known is not None and known.is_trouble and was_logged:
            self._log.info("settled", finding=code.value, subject=subject)
        return known is not None

    def clear(self) -> None:
        """Forget all: the bridge begins anew, and finds anew what still holds."""
        self._known.clear()
        self._logged.clear()
