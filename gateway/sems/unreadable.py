"""Says of which fields the values can't be read: once each, until all who had one can be read again."""

from collections.abc import Mapping
from typing import Final

from gateway.api.contexts import BaseContext
from gateway.core.findings import FindingCode

MAX_SUBJECTS: Final = 1000
"""Of one field. What is beyond is counted as read."""
MAX_SHOWN: Final = 8
REMEDY: Final = "see what GoodWe's document says of it, and `overrides` in docs/sems.md: another point, scale or unit"


class Unreadable:
    """What can't be read, of one bridge."""

    def __init__(self, context: BaseContext) -> None:
        self._context = context
        self._fields: dict[str, dict[str, dict[str, str]]] = {}
        """Interface → field → serial → text seen."""

    def note(self, interface: str, serial: str, found: Mapping[str, str]) -> None:
        """Take in what of one answer about a device can't be read."""
        known = self._fields.get(interface)
        if known is None:
            if not found:
                return
            known = self._fields[interface] = {}
        for field in [field for field in known if field not in found]:
            known[field].pop(serial, None)
            if not known[field]:
                del known[field]
        for field, text in found.items():
            seen = known.setdefault(field, {})
            if serial in seen or len(seen) < MAX_SUBJECTS:
                seen.setdefault(serial, text)
        self._say(interface, known)

    def forget(self, serial: str) -> None:
        """Take in that a device is gone."""
        for interface in list(self._fields):
            self.note(interface, serial, {})

    def _say(self, interface: str, known: dict[str, dict[str, str]]) -> None:
        if not known:
            del self._fields[interface]
            self._context.settle(FindingCode.VALUE_UNREADABLE, interface)
            return
        said = [f"{field} {next(iter(seen.values()))!r}" for field, seen in list(known.items())[:MAX_SHOWN]]
        more = f" and {len(known) - MAX_SHOWN} more" if len(known) > MAX_SHOWN else ""
        text = f"SEMS answers {interface} with what can't be read: {', '.join(said)}{more}"
        self._context.find(FindingCode.VALUE_UNREADABLE, interface, text, REMEDY)
