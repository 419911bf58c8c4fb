"""Lists that have lost much of what they had: kept as they were, until several in a row say the same.

On 2026-09-23 SEMS answered every call with success and nothing in it (SEMS.md). A list that loses a device or two is
believed at once; one that loses more than a third is not, for what is withdrawn takes topics and registers with it.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from gateway.api.bridge import Context
from gateway.core.findings import FindingCode

ROUNDS: Final = 3
"""Lists that must agree."""
AGAIN: Final = 60.0
"""Seconds from one of these to the next."""
SLACK: Final = 5.0
"""Seconds by which a round may come early."""


class _Doubt(msgspec.Struct):
    """What is doubted of one list."""

    left: frozenset[str]
    """What it still has of what there was."""
    had: int
    seen: int
    """How often it was seen so, a round apart."""
    at: float
    """When last, on the monotonic clock."""


class ListDoubts:
    """The doubts of one bridge."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._open: dict[str, dict[str, _Doubt]] = {}
        """Subject → name of the list → doubt."""

    def __bool__(self) -> bool:
        return bool(self._open)

    def believe(self, subject: str, name: str, had: Collection[str], listed: Collection[str]) -> bool:
        """Return whether what a list does not name any more is gone.

        `subject` is what it is a list of: a plant, a device, "" for the account; `name` is which of the lists of the
        same. `had` is what it named before, `listed` what it names now.
        """
        left = frozenset(serial for serial in had if serial in listed)
        if 3 * (len(had) - len(left)) <= len(had):
            self._end(subject, name)
            return True
        now = self._context.clock.monotonic()
        doubt = self._open.setdefault(subject, {}).get(name)
        if doubt is None or doubt.left != left:
            doubt = self._open[subject][name] = _Doubt(left, len(had), 1, now)
        elif now - doubt.at >= AGAIN - SLACK:
            doubt.seen += 1
            doubt.at = now
        if doubt.seen >= ROUNDS:
            self._context.log.warning(
                "a list that lost much is believed", list=name, of=subject, had=doubt.had, left=len(left)
            )
            self._end(subject, name)
            return True
        self._say(subject)
        return False

    def keep(self, subjects: Collection[str]) -> None:
        """Forget doubts about what is not among these."""
        for subject in [subject for subject in self._open if subject not in subjects]:
            del self._open[subject]
            self._context.settle(FindingCode.LIST_DOUBTED, subject)

    def _end(self, subject: str, name: str) -> None:
        doubts = self._open.get(subject)
        if doubts is None or doubts.pop(name, None) is None:
            return
        if doubts:
            self._say(subject)
        else:
            del self._open[subject]
            self._context.settle(FindingCode.LIST_DOUBTED, subject)

    def _say(self, subject: str) -> None:
        lists = (f"{name} lists {len(doubt.left)} of {doubt.had}" for name, doubt in self._open[subject].items())
        self._context.find(
            FindingCode.LIST_DOUBTED,
            subject,
            f"{'; '.join(lists)}; all are kept, and it is asked again in {AGAIN:g} s",
            f"none, if they are gone: {ROUNDS} lists that agree are believed; else see the portal for an outage",
        )
