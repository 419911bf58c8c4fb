"""What was sent over a connection and is not answered yet: what may be the reason if it ends."""

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Final

import msgspec
from paho.mqtt.client import MQTTMessageInfo
from paho.mqtt.reasoncodes import ReasonCode

from gateway.bridges.mqtt.limits import Why
from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.suspicion import Sent, Suspicion
from gateway.bridges.mqtt.troubles import SUBSCRIBE
from gateway.bridges.mqtt.unsent import Unsent
from gateway.bridges.mqtt.wire import Published

RECENT: Final = 2.0
"""Seconds in which a broker hangs up that does so over a message."""
MAX_REFUSED: Final = 500
"""Topics of refused messages that are remembered."""


class Outgoing(msgspec.Struct, gc=False):
    """A message of QoS 1 or 2."""

    info: MQTTMessageInfo | Published
    topic: str
    payload: bytes
    unique: bool
    """The next message at this topic is another one, not a newer one."""
    kept: Message | None
    done: Callable[[bool], None] | None
    """Called when it is acknowledged, with whether it was accepted."""
    number: int = 0

    @property
    def sent(self) -> Sent:
        """As the watch for what ends connections has it."""
        return Sent(key_of(self.topic, self.payload, unique=self.unique), self.topic, len(self.payload))


def key_of(topic: str, payload: bytes, *, unique: bool) -> Hashable:
    """Return what tells a message from others, as `Sent.key` has it."""
    return (topic, payload) if unique else topic


def sent_filter(filter_: str) -> Sent:
    """Return a subscription as something that may end a connection."""
    topic = f"{SUBSCRIBE}{filter_}"
    return Sent(topic, topic, 0)


class UnderWay:
    """Of one client; `begin` begins a connection. A broker answers in the order in which it was sent to."""

    def __init__(self, suspicion: Suspicion, unsent: Unsent) -> None:
        self._suspicion = suspicion
        self._unsent = unsent
        self._outgoing: deque[Outgoing] = deque()
        self._unproven: dict[str, tuple[int, int, float]] = {}
        """Topic → number, bytes and time of the last message of QoS 0, since the last thing that was answered."""
        self.subscribing: Sequence[str] = ()
        """Filters of the SUBSCRIBE that is not answered."""
        self._number = 0
        """Of the last message."""
        self._pinged_at = 0
        """Number of the last message before the last ping."""
        self._refusals: dict[int, ReasonCode] = {}
        """Packet ids of those that are refused, until they count as acknowledged."""
        self.refused: dict[str, Sent] = {}
        """By topic."""

    def begin(self) -> None:
        """Forget the last connection."""
        self._outgoing.clear()
        self._unproven.clear()
        self.subscribing = ()
        self._number = self._pinged_at = 0
        self._refusals.clear()
        self.refused.clear()

    def __len__(self) -> int:
        """Return how many messages are to be acknowledged."""
        return len(self._outgoing)

    @property
    def unanswered(self) -> int:
        """How many messages there are of which it is not known that the broker bears them."""
        return len(self._outgoing) + len(self._unproven)

    def add(self, message: Outgoing) -> None:
        """Take in a message of QoS 1 or 2."""
        self._number += 1
        message.number = self._number
        self._outgoing.append(message)

    def add_unacknowledged(self, topic: str, size: int, now: float) -> None:
        """Take in one of QoS 0; `now` is monotonic."""
        self._number += 1
        # In the order in which they were sent.
        self._unproven.pop(topic, None)
        self._unproven[topic] = self._number, size, now

    def refuse(self, packet_id: int, code: ReasonCode) -> None:
        """Take in that the broker does not accept a message, which it acknowledges by that."""
        self._refusals[packet_id] = code

    def take_acknowledged(self) -> bool:
        """Take out what is acknowledged; return whether anything was."""
        outgoing = self._outgoing
        if not outgoing or not outgoing[0].info.is_published():
            return False
        while outgoing and outgoing[0].info.is_published():
            one = outgoing.popleft()
            refusal = self._refusals.pop(one.info.mid, None)
            if refusal is not None:
                if len(self.refused) < MAX_REFUSED:
                    self.refused[one.topic] = one.sent
                self._unsent.add(Why.REFUSED, one.topic, len(one.payload), said=str(refusal))
            else:
                self._borne(one.topic, one)
            if self._unproven:
                self._prove(one.number)
            if one.done is not None:
                one.done(refusal is None)
        return True

    def needs_ping(self) -> bool:
        """Return whether only a pong can prove what was sent, and none is on its way; then it counts as asked for."""
        if not self._unproven or self._pinged_at >= self._number:
            return False
        self._pinged_at = self._number
        return True

    def pong(self) -> None:
        """Take in that the broker has dealt with all that was sent before the last ping."""
        self._prove(self._pinged_at)

    def _prove(self, number: int) -> None:
        unproven = self._unproven
        while unproven:
            topic = next(iter(unproven))
            sent, size, _ = unproven[topic]
            if sent > number:
                break
            del unproven[topic]
            self._borne(topic, Sent(topic, topic, size))

    def _borne(self, topic: str, what: Sent | Outgoing) -> None:
        if self._suspicion.watching:
            self._suspicion.acquit(what if isinstance(what, Sent) else what.sent)
        if topic in self._unsent.topics:
            self._unsent.accepted(topic)

    def unproven(self, now: float) -> list[Sent]:
        """Return what the broker has not answered, of QoS 0 only what is recent: there silence is the rule."""
        return [
            *(one.sent for one in self._outgoing if not one.info.is_published()),
            *(Sent(topic, topic, size) for topic, (_, size, at) in self._unproven.items() if now - at <= RECENT),
            *map(sent_filter, self.subscribing),
        ]

    def take_back(self) -> list[Message]:
        """Return, once, what is to be kept and was not acknowledged, oldest first."""
        back = [one.kept for one in self._outgoing if one.kept is not None and not one.info.is_published()]
        self._outgoing.clear()
        return back
