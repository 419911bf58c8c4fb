"""What a person should read when the broker can't be reached, says no, or hangs up.

Each text ends a sentence about the broker. Where a code names the cause, the text does; else it lists what it may be,
and how to tell.
"""

import socket
import ssl
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from paho.mqtt.client import WebsocketConnectionError

from gateway.bridges.mqtt.suspicion import Sent
from gateway.core.text import MAX_REASON, plain

_UNKNOWN_CA: Final = "has a certificate of an unknown CA; set tls.ca to that CA's file"
_CLOCK: Final = "this machine's clock says {now}"

# X509_V_ERR_… of OpenSSL (x509_vfy.h): what is wrong with the broker's certificate, and the remedy.
_CERTIFICATES: Final[Mapping[int, str]] = {
    9: f"has a certificate that is not valid yet; {_CLOCK}: set it if that is wrong, else wait or have a new one made",
    10: f"has a certificate that has expired; have it renewed at the broker, or set the clock: {_CLOCK}",
    18: "has a certificate of its own making; name that file as tls.ca",
    19: _UNKNOWN_CA,
    20: f"{_UNKNOWN_CA}, and see that the broker sends its intermediate certificates",
    21: f"{_UNKNOWN_CA}, and see that the broker sends its intermediate certificates",
    23: "has a certificate that was revoked; have a new one made for the broker",
    24: "has a certificate that was signed by one that is no CA; set tls.ca to a CA's file, and look at how the "
    "broker's certificate was made",
    26: "has a certificate that is not for servers; have one made with the extended key usage serverAuth",
    62: "has a certificate for another name ({error}); write a name of the certificate as host, or have one made with "
    "this name",
    64: "has a certificate for another address ({error}); write a name of the certificate as host, or have one made "
    "with this address as its subjectAltName",
    66: "has a certificate whose key is too short; have one made with at least 2,048 bits of RSA, or with EC",
    68: "has a certificate with a signature that is too weak; have one made with SHA-256",
}
_CERTIFICATE: Final = "has a certificate that is not trusted ({error}); see tls.ca"

# Reasons of OpenSSL's errors: what the broker said in a TLS alert (RFC 8446 §6.2), and what it is that isn't TLS.
_TLS: Final[tuple[tuple[str, str], ...]] = (
    # The first that the reason contains counts.
    (
        "ALERT_UNKNOWN_CA",
        "does not know the CA of our certificate ({error}); it has to trust the one that signed tls.certfile",
    ),
    ("ALERT_CERTIFICATE_EXPIRED", f"says that our certificate has expired; renew tls.certfile; {_CLOCK}"),
    ("ALERT_CERTIFICATE_REVOKED", "says that our certificate was revoked; have a new tls.certfile made"),
    ("CERTIFICATE_REQUIRED", "wants a certificate of ours; set tls.certfile and tls.keyfile"),
    (
        "ALERT_BAD_CERTIFICATE",
        (
            "does not take our certificate ({error}); see that tls.certfile is whole, for clients, and signed by a CA "
            "that the broker trusts"
        ),
    ),
    ("ALERT_CERTIFICATE_UNKNOWN", "does not take our certificate ({error}); its log says why; see tls.certfile"),
    ("ALERT_UNSUPPORTED_CERTIFICATE", "does not take a certificate of this kind ({error}); see tls.certfile"),
    ("ALERT_ACCESS_DENIED", "takes our certificate, but does not let it in ({error}); see the broker's access rules"),
    ("NO_APPLICATION_PROTOCOL", "does not take any protocol of tls.alpn ({error})"),
    ("UNRECOGNIZED_NAME", "does not know the name that is written as host ({error})"),
    ("PROTOCOL_VERSION", "does not speak TLS 1.2 or newer ({error}); older versions are not safe"),
    ("UNSUPPORTED_PROTOCOL", "does not speak TLS 1.2 or newer ({error}); older versions are not safe"),
    (
        "HANDSHAKE_FAILURE",
        (
            "does not agree on TLS ({error}); it may want a certificate of ours (tls.certfile), or other ciphers: "
            "its log says which"
        ),
    ),
    ("WRONG_VERSION_NUMBER", "does not speak TLS at this port ({error}); TLS listeners usually have port 8883"),
    ("RECORD_LAYER_FAILURE", "does not speak TLS at this port ({error}); TLS listeners usually have port 8883"),
    (
        "UNEXPECTED_EOF",
        (
            "closed the connection within the TLS handshake; it may want a certificate of ours (tls.certfile), or "
            "speak no TLS at this port"
        ),
    ),
)

_ERRORS: Final[tuple[tuple[type[Exception], str], ...]] = (
    # The first that fits counts, so subclasses come before what they derive from.
    (ssl.SSLError, "does not agree on TLS ({error}); TLS listeners usually have port 8883"),
    (WebsocketConnectionError, "does not open a WebSocket ({error}); check port, path and headers"),
    (ConnectionRefusedError, "refused the connection"),
    (ConnectionResetError, "closed the connection"),
    (socket.gaierror, "has an unknown name ({error})"),
    (TimeoutError, "does not answer"),
    (OSError, "can't be reached ({error})"),
)

# MQTT 5.0 §3.2.2.2; paho translates the codes of 3.1.1 into these.
_REFUSALS: Final[Mapping[int, str]] = {
    132: "does not speak this version of MQTT; set protocol: 3.1.1",
    133: "does not accept the client id {client_id}; some brokers want a certain one, or a shorter one: see client_id",
    134: "does not accept the credentials of {user}; check username and password",
    135: "does not let {user} in; check username and password, and the broker's access rules for the client id "
    "{client_id}",
    136: "is not available at the moment",
    137: "is busy",
    138: "has banned this client",
    140: "wants another way of authentication than username, password and certificate",
    144: "does not take our will's topic; see its access rules and base",
    149: "finds our CONNECT too large; shorten client_id, username or password",
    151: "says that a quota is exceeded; it has as many connections, or messages, as it may",
    153: "does not take our will's payload",
    154: "takes no retained messages; the will goes without from now on",
    155: "does not take our will's QoS; it goes with a lower one from now on",
    156: "refers to another broker",
    157: "refers to another broker",
    159: "limits the rate of connections",
}
NO_RETAIN: Final = 154
LOWER_QOS: Final = 155
"""CONNACKs that say what a will may not have."""
AWAY: Final = frozenset({136, 137})
"""Those of a broker that is being stopped, or has just been started."""

# MQTT 5.0 §3.14.2.1.
_GOODBYES: Final[Mapping[int, str]] = {
    135: "closed the connection: not authorized{after}; see its access rules",
    139: "is shutting down",
    141: "heard nothing of us in time",
    142: "closed the connection because another client came with the id {client_id}; "
    "give each gateway its own gateway.id or client_id",
    144: "closed the connection: it does not take the topic{after}; see limits",
    147: "closed the connection: more messages under way than it takes; see limits.in_flight",
    149: "got a packet that is too large for it{after}; see limits.packet",
    150: "closed the connection: too many messages a second; see limits.rate",
    151: "says that a quota is exceeded{after}; see limits.rate, and its own quotas for messages and bytes",
    152: "closed the connection by an administrator's order",
    154: "closed the connection: it takes no retained messages{after}; see limits.retain",
    155: "closed the connection: it does not take this QoS{after}; see limits.qos",
    160: "closed the connection: it is open for as long as the broker permits",
    161: "closed the connection: it takes no subscription identifiers",
    162: "closed the connection: it knows no wildcards in subscriptions; see limits.wildcards",
}

# No word came from the broker: paho's own findings, in the same numbers.
_SILENT_ENDS: Final[Mapping[int, str]] = {
    130: "said what can't be understood",
    141: "answers no more",
}
HUNG_UP: Final = "closed the connection"
TOO_EARLY: Final = (
    "closed the connection without an answer to CONNECT; it may want TLS or WebSockets at this port, a certificate of "
    "ours (tls.certfile), another protocol, client_id or username, or have too many connections: its log says which"
)
SUBSCRIBE: Final = "SUBSCRIBE "
"""Before the filter, in the `topic` of a `Sent` that is a subscription."""

# MQTT 5.0 §3.14.2.1: unspecified, malformed, protocol error, its own rules, not authorized, filter, topic, size,
# format, retain flag, quality of service, wildcards.
_OVER_A_MESSAGE: Final = frozenset({128, 129, 130, 131, 135, 143, 144, 149, 153, 154, 155, 162})


def of_error(error: Exception, now: datetime) -> str:
    """Return why no connection came about; `now` is what this machine's clock says."""
    text = _of_tls(error) if isinstance(error, ssl.SSLError) else None
    if text is None:
        text = next((text for kind, text in _ERRORS if isinstance(error, kind)), "can't be used ({error})")
    return text.format(error=_words(error), now=now.isoformat(timespec="minutes"))


def _of_tls(error: ssl.SSLError) -> str | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _CERTIFICATES.get(error.verify_code, _CERTIFICATE)
    reason = (error.reason or str(error)).upper().replace(" ", "_")
    return next((text for part, text in _TLS if part in reason), None)


def _words(error: Exception) -> str:
    for name in ("verify_message", "reason", "strerror"):
        if text := getattr(error, name, None):
            return plain(str(text), MAX_REASON)
    return plain(str(error), MAX_REASON)


def of_refusal(code: int, name: str, user: str | None, client_id: str) -> str:
    """Return why the broker did not accept us."""
    text = _REFUSALS.get(code, f"refused us: {name}")
    return text.format(user=f"user {user}" if user else "clients without a username", client_id=client_id)


def of_goodbye(code: int, name: str, client_id: str, unproven: Sequence[Sent]) -> str:
    """Return why the broker sent us away; `unproven` is what it may not have borne."""
    over = code in _OVER_A_MESSAGE and unproven
    text = _GOODBYES.get(code, f"closed the connection: {name}{{after}}")
    return text.format(client_id=client_id, after=f", after {_after(unproven)}" if over else "")


def is_over_a_message(code: int, *, said: bool) -> bool:
    """Return whether a connection may have ended for what we sent; `said`: the broker gave this code itself."""
    return code in _OVER_A_MESSAGE if said else code not in _SILENT_ENDS


def of_silence(code: int, unproven: Sequence[Sent]) -> str:
    """Return why the connection ended without a word; `unproven` is what was under way and may be the reason."""
    if code in _SILENT_ENDS:
        return _SILENT_ENDS[code]
    if not unproven:
        return HUNG_UP
    if unproven[0].topic.startswith(SUBSCRIBE):
        return f"{HUNG_UP} after {_after(unproven)}; are these topics permitted, and so many at once (limits.filters)?"
    return f"{HUNG_UP} after {_after(unproven)}; if it does so again, that is found and set aside"


def of_refused(topics: Sequence[str]) -> str:
    """Return why the connection ended without a word after the broker had refused messages at these topics."""
    more = f" and {len(topics) - 1} more" if len(topics) > 1 else ""
    first = plain(topics[0], MAX_REASON)
    return f"refuses what we publish at {first}{more} and closed the connection; check its access rules"


def _after(unproven: Sequence[Sent]) -> str:
    first = plain(unproven[0].topic, MAX_REASON)
    if len(unproven) > 1:
        return f"{len(unproven)} messages, the first {first}"
    return first if first.startswith(SUBSCRIBE) else f"a message of {unproven[0].size} bytes at {first}"
