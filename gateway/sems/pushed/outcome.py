"""What becomes of what was sent."""

from enum import StrEnum


class Outcome(StrEnum):
    """What became of a message."""

    TAKEN = "taken"
    DUPLICATE = "duplicate"
    LATE = "late"
    """Older than what is known: for histories alone."""
    BAD = "bad"
    UNKNOWN = "unknown"
    """Of a device that nobody knows, and that is not announced for being pushed."""
    UNAUTHORISED = "unauthorised"
    TOO_LARGE = "too_large"
    NOT_STORED = "not_stored"


class BadPushError(Exception):
    """A message that can't be used, and could not if it came again. The text is for the sender."""

    def __init__(self, kind: str, text: str, outcome: Outcome = Outcome.BAD) -> None:
        super().__init__(text)
        self.outcome = outcome
        self.kind = kind
        """Few words, the same for all of their kind: logged once."""
