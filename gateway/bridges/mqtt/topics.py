"""Names of topics.

`<base>/bridge/…` is the gateway's, `<base>/response/…` is for answers to those who ask for them there, and
`<base>/<device>/…` is a device's.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final
from urllib.parse import unquote

import msgspec

TOPIC_LIMIT: Final = 256
"""Bytes of a response topic."""
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
AS: Final = "as"
"""`<base>/as/<user>/…`: the same as `<base>/…`, said by a user whom the broker knows by its access rules."""
TOTALS: Final = "totals"
"""Where earlier versions retained totals for Home Assistant."""

# Wildcards, the separator, what the escape itself uses, control characters, and what UTF-8 can't carry.
_AWKWARD: Final = re.compile("[+#/%\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def escape(serial: str) -> str:
    """Return a serial number as one level of a topic: `a/b` becomes `a%2Fb`."""
    level = percent_encoded(serial)
    # A device must not stand in a place of the gateway's own.
    return f"%{ord(level[0]):02X}{level[1:]}" if level in {BRIDGE, RESPONSE} else level


def percent_encoded(text: str) -> str:
    """Return a text without what no level of a topic may hold: `a/b` becomes `a%2Fb`."""
    return _AWKWARD.sub(_percent, text)


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "replace"))


def unescape(level: str) -> str | None:
    """Return the serial number that `escape` made this level of; None when it made none like it."""
    serial = unquote(level, errors="replace")
    return serial if escape(serial) == level else None


def default_responses(base: str) -> str:
    """Return the filter of response topics where the configuration names none."""
    return f"{base}/{RESPONSE}/#"


def _covers(filter_: str, topic: str) -> bool:
    """Return whether a topic is this one, or lies below a prefix like `a/b/#`."""
    prefix = filter_.removesuffix("#")
    return topic == filter_ if prefix == filter_ else topic.startswith(prefix)


class RequestName(StrEnum):
    """What the gateway itself may be asked for."""

    DEVICES = "devices"
    HEALTH = "health"
    RESTART = "restart"
    LOG_LEVEL = "log_level"
    HALT = "halt"
    RESUME = "resume"


class SetTopic(msgspec.Struct, frozen=True):
    """A topic that takes requests, taken apart."""

    root: str
    """`<base>/<device>`, as it came."""
    level: str
    """The device's level of the topic, escaped."""
    setpoint: str | None
    """None where the payload names the setpoints."""
    user: str = ""
    """Who says so; "" where the topic names nobody."""


class RequestTopic(msgspec.Struct, frozen=True):
    """A topic that asks the gateway itself for something, taken apart."""

    name: str
    user: str = ""


class Topics:
    """All topics under one base. `users` are those who may have topics of their own."""

    def __init__(self, base: str, users: Iterable[str] = (), responses: Iterable[str] | None = None) -> None:
        self.base = base
        self._users = frozenset(users)
        self.responses = (default_responses(base),) if responses is None else tuple(responses)
        """Filters of the response topics that anybody may name; users have topics of their own besides."""
        roots = [base, *(f"{base}/{AS}/{user}" for user in sorted(self._users))]
        self.bridge_state = f"{base}/{BRIDGE}/{STATE}"
        self.bridge_info = f"{base}/{BRIDGE}/{INFO}"
        self.bridge_health = f"{base}/{BRIDGE}/{HEALTH}"
        self.bridge_session = f"{base}/{BRIDGE}/{SESSION}"
        """Where the gateway speaks to itself, to know what a kept session has delivered."""
        self.requests = tuple(f"{root}/{BRIDGE}/{REQUEST}/+" for root in roots)
        """What to subscribe to."""
        self.sets = tuple(f"{root}/+/{SET}{rest}" for root in roots for rest in ("", "/+"))
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

    def parse_request(self, topic: str) -> RequestTopic | None:
        """Take a topic of `requests` apart; None for any other."""
        user, levels = self._levels(topic)
        match levels:
            case ["bridge", "request", name] if name:
                return RequestTopic(name, user)
            case _:
                return None

    def may_answer(self, topic: str, user: str) -> bool:
        """Return whether answers to this user, or "", may be published at a topic that was asked for."""
        own = (f"{self.base}/{AS}/{user}/{RESPONSE}/#",) if user else ()
        if not any(_covers(filter_, topic) for filter_ in (*self.responses, *own)):
            return False
        # Also `<base>/response/set` matches what the gateway subscribes to: it would ask itself.
        return self.parse_set(topic) is None and self.parse_request(topic) is None

    def parse_set(self, topic: str) -> SetTopic | None:
        """Take a topic of `sets` apart; None for any other."""
        user, levels = self._levels(topic)
        match levels:
            case [level, "set"]:
                return SetTopic(f"{self.base}/{level}", level, None, user)
            case [level, "set", setpoint]:
                return SetTopic(f"{self.base}/{level}", level, setpoint, user)
            case _:
                return None

    def _levels(self, topic: str) -> tuple[str, list[str]]:
        """Return the user that a topic names, or "", and its levels below base and user; none of a topic elsewhere."""
        prefix = f"{self.base}/"
        if not topic.startswith(prefix):
            return "", []
        levels = topic[len(prefix) :].split("/")
        # No topic of a device called "as" that we listen to has as many levels.
        if len(levels) > 3 and levels[0] == AS and levels[1] in self._users:
            return levels[1], levels[2:]
        return "", levels
