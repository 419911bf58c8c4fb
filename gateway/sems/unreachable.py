"""Why no connection to a cloud came about, and what to do, in the words of whoever sits before it."""

import socket
import ssl
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from gateway.core.model import iso
from gateway.core.text import MAX_REASON, plain
from gateway.sems.errors import UnreachableError

_CLOCK: Final = "this machine's clock says {now}: set it, by NTP, if that is wrong"
_BETWEEN: Final = (
    "something between may show a certificate of its own (a proxy or firewall that looks into TLS): have it let this "
    "host through"
)

# X509_V_ERR_… of OpenSSL (x509_vfy.h).
_CERTIFICATES: Final[Mapping[int, tuple[str, str]]] = {
    9: ("shows a certificate that is not valid yet", _CLOCK),
    10: ("shows a certificate that has expired", f"{_CLOCK}; else wait until they have renewed it"),
    18: ("shows a certificate of its own making", _BETWEEN),
    19: ("shows a certificate of an unknown CA", _BETWEEN),
    20: ("shows a certificate of an unknown CA", _BETWEEN),
    62: ("shows a certificate for another name", f"check the url; {_BETWEEN}"),
    64: ("shows a certificate for another address", f"check the url; {_BETWEEN}"),
}
_CERTIFICATE: Final = ("shows a certificate that is not trusted", f"{_CLOCK}; {_BETWEEN}")
_ERRORS: Final[tuple[tuple[type[BaseException], str, str], ...]] = (
    # The first that fits counts, so subclasses come before what they derive from.
    (ssl.SSLError, "does not agree on TLS", "check the url; a proxy or firewall may stand between"),
    (socket.gaierror, "has an unknown name", "check the url, and that this machine has DNS and the internet"),
    (ConnectionRefusedError, "refuses the connection", "check the url; a firewall may stand between"),
    (TimeoutError, "does not answer", "check the network; a firewall may drop what is sent there"),
)


def unreachable(url: str, error: BaseException, now: datetime) -> UnreachableError:
    """Return what is to be raised where no connection came about."""
    cause, what, advice = meaning(error)
    said = plain(str(cause), MAX_REASON) or type(cause).__name__
    because = ": it ".join(filter(None, ("can't be reached", what)))
    found = UnreachableError(f"SEMS at {url} {because} ({said})")
    found.advice = advice.format(now=iso(now))
    return found


def meaning(error: BaseException) -> tuple[BaseException, str, str]:
    """Return why no connection came about: the cause, what the far side does ("" where unknown), and advice."""
    chain = list(causes(error))
    if isinstance(error, TimeoutError):  # ours; what it cut off is no reason
        return error, *_ERRORS[-1][1:]
    for cause in chain:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause, *_CERTIFICATES.get(cause.verify_code, _CERTIFICATE)
    for kind, what, advice in _ERRORS:
        for cause in chain:
            if isinstance(cause, kind):
                return cause, what, advice
    return error, "", UnreachableError.advice


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from. httpx's own text says least."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
