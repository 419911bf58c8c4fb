"""What can go wrong between the gateway and SEMS, by what is done next."""

from gateway.core.errors import NotSentError, RefusedError, UnsureError


class UnreachableError(NotSentError):
    """No connection came about, so nothing was sent."""


class LoginRefusedError(NotSentError):
    """SEMS refused account or password. Tried again ever more seldom: repeated logins lock an account."""


class RateLimitedError(NotSentError):
    """The account's calls for this hour are used up, by SEMS's count or by ours."""


class TokenExpiredError(NotSentError):
    """SEMS wants a new login."""


class NoAnswerError(UnsureError):
    """A request left and no answer came: time-out, connection lost, or an error of SEMS's own servers."""


class BadAnswerError(UnsureError):
    """What came is no SEMS answer: HTML, truncated, too long, or not of the promised shape."""


class SemsRefusedError(RefusedError):
    """SEMS answered with an envelope code that is not success."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"SEMS said {code}: {message or 'no reason given'}")
        self.code = code
