"""Errors by what the caller does next. A bridge raises these; the router knows nothing else."""

from gateway.core.text import MAX_DETAIL, plain


class GatewayError(Exception):
    """The root. Its text is for a person and says what to do; what it repeats of others is made plain."""

    def __str__(self) -> str:
        return plain(super().__str__(), MAX_DETAIL)


class NotSentError(GatewayError):
    """The command certainly did not reach the device: it may be tried again, or elsewhere.

    `retry_after` says in how many seconds that makes sense, where it is known.
    """

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class RefusedError(GatewayError):
    """The far side said no, and would say so again: the command failed."""


class UnsureError(GatewayError):
    """The command may or may not have arrived, e.g. no answer came. Ask before sending it again."""
