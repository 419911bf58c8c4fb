"""Why a request is not taken."""

from enum import StrEnum


class Outcome(StrEnum):
    """What became of a push."""

    TAKEN = "taken"
    DUPLICATE = "duplicate"
    LATE = "late"
    """Older than what is known: for histories alone."""
    BAD = "bad"
    UNAUTHORISED = "unauthorised"
    TOO_LARGE = "too_large"
    NOT_STORED = "not_stored"


class RefusalError(Exception):
    """An answer other than "taken". Its text goes to the sender, so it tells nothing of secrets."""

    def __init__(self, status: int, text: str, outcome: Outcome, retry_after: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.outcome = outcome
        self.retry_after = retry_after
        """Seconds."""


class BadPushError(Exception):
    """A push that can't be used, and could not if it came again. The text is for the sender."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        """Few words, the same for all of their kind: logged once."""
