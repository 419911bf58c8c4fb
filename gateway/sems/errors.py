"""What can go wrong between the gateway and SEMS, by what is done next. `docs/errors.md` has them as a table.

Each kind has a short name that never changes, which is its label in the counter; the words the log begins its line
with; and what a person can do.
"""

from typing import ClassVar

from gateway.core.errors import GatewayError, NotSentError, RefusedError, UnsureError


class CallError(GatewayError):
    """A call that did not work out."""

    kind: ClassVar[str]
    words: ClassVar[str]
    advice: str
    noted: bool = False
    """Whether it was counted and, if need be, logged."""


class UnreachableError(CallError, NotSentError):
    """No connection came about, so nothing was sent."""

    kind = "unreachable"
    words = "SEMS can't be reached"
    advice = "check the url, the network, DNS and the firewall"


class LoginRefusedError(CallError, NotSentError):
    """SEMS refused account or password. Tried again ever more seldom: repeated logins lock an account."""

    kind = "login_refused"
    words = "SEMS refused the login"
    advice = "check account and password"

    def __init__(self, text: str, retry_after: float, advice: str) -> None:
        super().__init__(text, retry_after)
        self.advice = advice


class LoginHeldError(CallError, NotSentError):
    """Too many logins of late, though each of them worked."""

    kind = "login_held"
    words = "logins to SEMS are held back"
    advice = "see whether another program logs in with this account; give the gateway one of its own"


class TokenExpiredError(CallError, NotSentError):
    """SEMS wants a new login."""

    kind = "token_expired"
    words = "SEMS does not take the token any more"
    advice = "nothing; where it goes on, see whether another program logs in with this account"


class RateLimitedError(CallError, NotSentError):
    """The account's calls for now are used up, by SEMS's count."""

    kind = "rate_limited"
    words = "SEMS limits this account's calls"
    advice = "see whether another program uses this account; else lower calls_per_hour"


class BudgetSpentError(RateLimitedError):
    """The account's calls for now are used up, by our count."""

    kind = "budget_spent"
    words = "this account's calls are used up"
    advice = "nothing; where it goes on, raise poll_interval, or calls_per_hour where GoodWe allows more"


class NoAnswerError(CallError, UnsureError):
    """A request left and no answer came."""


class TimedOutError(NoAnswerError):
    """It took too long."""

    kind = "timed_out"
    words = "SEMS did not answer in time"
    advice = "nothing; where it goes on, check the network"


class ConnectionLostError(NoAnswerError):
    """The connection broke before the answer was whole."""

    kind = "connection_lost"
    words = "SEMS broke the connection off"
    advice = "nothing; where it goes on, check the network and proxies on the way"


class ServerError(NoAnswerError):
    """HTTP 5xx: an error of SEMS's own servers."""

    kind = "server_error"
    words = "SEMS has an error of its own"
    advice = "nothing; where it goes on, ask GoodWe"


class BadAnswerError(CallError, UnsureError):
    """What came is no SEMS answer, or not of the promised shape."""


class HttpStatusError(BadAnswerError):
    """An HTTP status that is none of those that mean something."""

    kind = "http_status"
    words = "SEMS answered with an HTTP error"
    advice = "check the url"

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class WebPageError(BadAnswerError):
    """HTML, e.g. of a portal, a proxy or maintenance."""

    kind = "web_page"
    words = "SEMS answered with a web page"
    advice = "check the url and proxies on the way; during maintenance, nothing"


class TruncatedError(BadAnswerError):
    """JSON that ends too soon, or nothing at all."""

    kind = "truncated"
    words = "SEMS's answer is cut short"
    advice = "nothing; where it goes on, check proxies on the way"


class NotJsonError(BadAnswerError):
    """Neither JSON nor HTML."""

    kind = "not_json"
    words = "SEMS's answer is not JSON"
    advice = "check the url and proxies on the way"


class TooLongError(BadAnswerError):
    """More than is read."""

    kind = "too_long"
    words = "SEMS's answer is too long"
    advice = "check the url; else report it"


class NoCodeError(BadAnswerError):
    """JSON, but not SEMS's envelope."""

    kind = "no_code"
    words = "SEMS's answer has no code"
    advice = "check url and platform"


class NoDataError(BadAnswerError):
    """Success, but nothing in it where something was promised."""

    kind = "no_data"
    words = "SEMS's answer has no data"
    advice = "see in the portal whether the account may read this plant or device"


class SemsRefusedError(CallError, RefusedError):
    """SEMS answered with an envelope code that is not success."""

    kind = "refused"
    words = "SEMS refused a call"
    advice = "look the code up in GoodWe's document; see in the portal what the account may do"

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"SEMS said {code}: {message or 'no reason given'}")
        self.code = code


class NoLicenceError(SemsRefusedError):
    """SEMS says that the account may not use the API at all."""

    kind = "no_licence"
    words = "SEMS says that this account has no licence for what it asks"
    advice = "ask GoodWe whether the licence agreement of this API account is in force, and for this API"


class UnauthorisedError(SemsRefusedError):
    """SEMS says that the account may not read or set a device."""

    kind = "unauthorised"
    words = "SEMS does not let this account have a device"
    advice = "have GoodWe put the number on your whitelist, and the owner agree; or take it out of the configuration"
