"""Names of topics. `<base>/bridge/…` is the gateway's, `<base>/<device>/…` a device's."""

import re
from enum import StrEnum
from typing import Final
from urllib.parse import unquote

import msgspec

BRIDGE: Final = "bridge"
STATE: Final = "state"
INFO: Final = "info"
HEALTH: Final = "health"
REQUEST: Final = "request"
RESPONSE: Final = "response"
SESSION: Final = "session"

AVAILABILITY: Final = "availability"
DEVICE: Final = "device"
HISTORY: Final = "history"
RESULT: Final = "result"
ALARM: Final = "alarm"
SET: Final = "set"
TOTALS: Final = "totals"

# Wildcards, the separator, what the escape itself uses, control characters, and what UTF-8 can't carry.
_AWKWARD: Final = re.compile("[+#/%\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def escape(serial: str) -> str:
    """Return a serial number as one level of a topic: `a/b` becomes `a%2Fb`."""
    level = _AWKWARD.sub(_percent, serial)
    # A device must not stand in the gateway's own place.
    return "%62ridge" if level == BRIDGE else level


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "replace"))


def unescape(level: str) -> str | None:
    """Return the serial number that `escape` made this level of; None when it made none like it."""
    serial = unquote(level, errors="replace")
    return serial if escape(serial) == level else None


class RequestName(StrEnum):
    """What the gateway itself may be asked for."""

    DEVICES = "devices"
    HEALTH = "health"
    RESTART = "restart"
    LOG_LEVEL = "log_level"


class SetTopic(msgspec.Struct, frozen=True):
    """A topic that takes wishes, taken apart."""

    root: str
    """`<base>/<device>`, as it came."""
    level: str
    """The device's level of the topic, escaped."""
    setpoint: str | None
    """None where the payload names the setpoints."""


class Topics:
    """All topics under one base."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.bridge_state = f"{base}/{BRIDGE}/{STATE}"
        self.bridge_info = f"{base}/{BRIDGE}/{INFO}"
        self.bridge_health = f"{base}/{BRIDGE}/{HEALTH}"
        self.bridge_session = f"{base}/{BRIDGE}/{SESSION}"
        """Where the gateway speaks to itself, to know what a kept session has delivered."""
        self.requests = f"{base}/{BRIDGE}/{REQUEST}/+"
        """What to subscribe to."""
        self.sets = (f"{base}/+/{SET}", f"{base}/+/{SET}/+")
        """What to subscribe to."""

    def root(self, serial: str) -> str:
        """Return a device's own topic, where its state is and under which its other topics are."""
        return f"{self.base}/{escape(serial)}"

    def request(self, name: str) -> str:
        """Return where to ask the gateway itself for something."""
        return f"{self.base}/{BRIDGE}/{REQUEST}/{name}"

    def response(self, name: str) -> str:
        """Return where the gateway answers."""
        return f"{self.base}/{BRIDGE}/{RESPONSE}/{name}"

    def parse_request(self, topic: str) -> str | None:
        """Return what a topic of `requests` asks for; None for any other."""
        prefix = self.request("")
        name = topic[len(prefix) :]
        return name if topic.startswith(prefix) and name and "/" not in name else None

    def is_ours(self, topic: str) -> bool:
        """Return whether a topic lies under the base."""
        return topic == self.base or topic.startswith(f"{self.base}/")

    def parse_set(self, topic: str) -> SetTopic | None:
        """Take a topic of `sets` apart; None for any other."""
        prefix = f"{self.base}/"
        if not topic.startswith(prefix):
            return None
        match topic[len(prefix) :].split("/"):
            case [level, "set"]:
                return SetTopic(prefix + level, level, None)
            case [level, "set", setpoint]:
                return SetTopic(prefix + level, level, setpoint)
            case _:
                return None
