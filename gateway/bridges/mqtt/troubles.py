"""What a person should read when the broker can't be reached, says no, or hangs up."""

import socket
import ssl
from collections.abc import Mapping
from typing import Final

from paho.mqtt.client import WebsocketConnectionError

_ERRORS: Final[tuple[tuple[type[Exception], str], ...]] = (
    # The first that fits counts, so subclasses come before what they derive from.
    (ssl.SSLCertVerificationError, "has a certificate that is not trusted ({error}); set tls.ca to its CA"),
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
    133: "does not accept the client id {client_id}",
    134: "does not accept the credentials of {user}; check username and password",
    135: "does not let {user} in; check username and password, and the broker's access rules",
    136: "is not available at the moment",
    137: "is busy",
    138: "has banned this client",
    156: "refers to another broker",
    157: "refers to another broker",
    159: "limits the rate of connections",
}

# MQTT 5.0 §3.14.2.1.
_GOODBYES: Final[Mapping[int, str]] = {
    139: "is shutting down",
    141: "heard nothing of us in time",
    142: "closed the connection because another client came with the id {client_id}; "
    "give each gateway its own gateway.id or client_id",
    149: "got a packet that is too large for it",
    151: "says that a quota is exceeded",
    152: "closed the connection by an administrator's order",
}

# No word came from the broker: paho's own findings, in the same numbers.
_SILENT_ENDS: Final[Mapping[int, str]] = {
    130: "said what can't be understood",
    141: "answers no more",
}
HUNG_UP: Final = "closed the connection"


def of_error(error: Exception) -> str:
    """Return why no connection came about, as the end of a sentence about the broker."""
    text = next((text for kind, text in _ERRORS if isinstance(error, kind)), "can't be used ({error})")
    return text.format(error=getattr(error, "reason", None) or getattr(error, "strerror", None) or error)


def of_refusal(code: int, name: str, user: str | None, client_id: str) -> str:
    """Return why the broker did not accept us, as the end of a sentence about the broker."""
    text = _REFUSALS.get(code, f"refused us: {name}")
    return text.format(user=f"user {user}" if user else "clients without a username", client_id=client_id)


def of_goodbye(code: int, name: str, client_id: str) -> str:
    """Return why the broker sent us away, as the end of a sentence about the broker."""
    return _GOODBYES.get(code, f"closed the connection: {name}").format(client_id=client_id)


def of_silence(code: int, refusal: str) -> str:
    """Return why the connection ended without a word; `refusal` is what the broker last said to a publish."""
    if refusal and code not in _SILENT_ENDS:
        return f"refuses what we publish ({refusal}) and closed the connection; check its access rules"
    return _SILENT_ENDS.get(code, HUNG_UP)
