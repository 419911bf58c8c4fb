"""What can go wrong between the gateway and SEMS, by what is done next. `docs/errors.md` has them as a table.

Each kind has a short name that never changes, which is its label in the counter; the words the log begins its line
with; and what a person can do.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar

from gateway.core.errors import GatewayError, NotSentError, RefusedError, UnsureError
from gateway.core.text import MAX_REASON, plain


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


class KeptOutError(CallError, RefusedError):
    """SEMS wants a new login for one call, again and again, while it takes the token for others."""

    kind = "kept_out"
    words = "SEMS does not let this account into an interface"
    advice = "ask GoodWe for the right to it, or have it left out, see overrides in docs/sems.md"


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

    def __init__(self, text: str, *, found_it_closed: bool = False) -> None:
        super().__init__(text)
        self.found_it_closed = found_it_closed
        """Whether it was one kept open from an earlier call, and not a byte of an answer came."""


class ServerError(NoAnswerError):
    """HTTP 5xx: an error of SEMS's own servers."""

    kind = "server_error"
    words = "SEMS has an error of its own"
    advice = "nothing; where it goes on, ask GoodWe"


class SystemFailureError(NoAnswerError):
    """A code by which SEMS says that something of its own went wrong."""

    kind = "system_error"
    words = "SEMS says that it has an error of its own"
    advice = "nothing; where it goes on, ask GoodWe, with the code and the traceId"


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


class BadEncodingError(BadAnswerError):
    """Packed otherwise than was asked for, or not to be unpacked."""

    kind = "bad_encoding"
    words = "SEMS's answer can't be unpacked"
    advice = "check the url and proxies on the way"


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


class TimeUnreadableError(BadAnswerError):
    """Measurements without a time that can be read."""

    kind = "time_unreadable"
    words = "SEMS's times can't be read"
    advice = "set date_format to what the portal's account settings show"


class NoValuesError(BadAnswerError):
    """Success without a single value of the catalogue, where something was to be measured."""

    kind = "no_values"
    words = "SEMS's answer has no value in it"
    advice = "nothing; where it goes on, see in the portal whether the device has data, and in overrides what it brings"


class NoListError(BadAnswerError):
    """Success, but not the list that was asked for: no list says nothing, and is no empty one."""

    kind = "no_list"
    words = "SEMS's answer has no list in it"
    advice = "see in GoodWe's document where the list is, and say so by `lists` of the interface in overrides"


class NotUnderstoodError(BadAnswerError):
    """Something that nobody foresaw, of ours or SEMS's. It ends the call it came from, and no more."""

    kind = "not_understood"
    words = "SEMS's answer could not be used"
    advice = "report it, with the log at level debug; the rest goes on"


@contextmanager
def understood(what: str) -> Iterator[None]:
    """Have what nobody foresaw inside, e.g. a number that is out of all bounds, raised as NotUnderstoodError."""
    try:
        yield
    except GatewayError:
        raise
    except Exception as error:
        text = plain(str(error), MAX_REASON)  # it may repeat what SEMS said
        raise NotUnderstoodError(f"{what} could not be used ({type(error).__name__}: {text})") from error


class SemsRefusedError(CallError, RefusedError):
    """SEMS answered with an envelope code that is not success."""

    kind = "refused"
    words = "SEMS refused a call"
    advice = "look the code up in GoodWe's document; see in the portal what the account may do"

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"SEMS said {code}: {message or 'no reason given'}")
        self.code = code


class WrongParameterError(SemsRefusedError):
    """SEMS does not take the fields of a call. It is no limit of the account's calls, and no reason to wait."""

    kind = "wrong_parameter"
    words = "SEMS does not take the parameters of a call"
    advice = "compare the fields with GoodWe's document; put what it has otherwise into overrides (docs/sems.md)"

    def __init__(self, code: str, message: str, interface: str, fields: Iterable[str]) -> None:
        super().__init__(code, message)
        self.args = (f"{self} ({interface} was sent {', '.join(fields) or 'no fields'})",)


class NoRightError(SemsRefusedError):
    """SEMS says that the account has no right to what it asks."""

    kind = "no_right"
    words = "SEMS says that this account has no right to what it asks"
    advice = "see in the portal what the account may do; ask GoodWe whether it may use this interface"


class NotDoneError(SemsRefusedError):
    """SEMS could not do it: the device was not reached, or did not obey. Commands are repeated a few times."""

    kind = "not_done"
    words = "SEMS could not do what was asked"
    advice = "see in the portal whether the device is online"


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
