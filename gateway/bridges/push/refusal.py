"""Why a request is not taken."""

from gateway.sems.pushed import Outcome


class RefusalError(Exception):
    """An answer other than "taken". Its text goes to the sender, so it tells nothing of secrets."""

    def __init__(self, status: int, text: str, outcome: Outcome, retry_after: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.outcome = outcome
        self.retry_after = retry_after
        """Seconds."""
