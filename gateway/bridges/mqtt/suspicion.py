"""Finds the message on which a broker hangs up, and sets it aside.

A broker that is sent what it can't bear (a topic that is not permitted, too many bytes) often just hangs up, and what
was sent last is sent first over the next connection: without this, for ever. So what a broker that hung up had not yet
acknowledged is suspect. Over the next connection suspects are sent a few at a time with nothing else beside them, an
eighth of them each time, until one was alone under way: that is a strike. After `STRIKES` of them it is set aside: of
its topic, nothing of that size or more is sent, until a while has passed; and where two topics of a family were set
aside, none of the family is.

A broker that is stopped hangs up as well, without a word under MQTT 3.1.1. So what was under way is named only when it
was suspect before; and where the next connection finds no broker, it was the broker's stop, and nothing is suspect.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Final

import msgspec

from gateway.bridges.mqtt.limits import MAX_PACKET

PROVEN_AFTER: Final = 2.0
"""Seconds after which a connection works: what ends it from then on is what was sent last."""
STRIKES: Final = 2
"""Connections that end right after a message was sent alone, until it is set aside."""
SHARE: Final = 8
"""Of the suspects one in so many is under way at once."""
OF_A_FAMILY: Final = 2
"""Topics of a family that are set aside, until the family is."""
PAUSE_FIRST: Final = 3600.0
MAX_PAUSE_SECONDS: Final = 86_400.0
"""Seconds after which what was set aside is tried again: access rules change. One connection is the price."""


class Sent(msgspec.Struct, frozen=True):
    """What may have been the reason why a connection ended."""

    key: Hashable
    """Of a live value its topic, for the next one is like it; of a message that is kept, the message."""
    topic: str
    size: int
    """Bytes of the payload."""


class _Bar(msgspec.Struct, frozen=True):
    size: int
    until: float


class Suspicion:
    """Of one client, over all its connections. `now` gives monotonic seconds."""

    def __init__(self, family: Callable[[str], str], now: Callable[[], float]) -> None:
        self._family = family
        self._now = now
        self.suspects: set[Hashable] = set()
        self._strikes: dict[Hashable, int] = {}
        self._bars: dict[str, _Bar] = {}
        """Topic, or family → what of it is not sent."""
        self._convicted: dict[str, dict[str, int]] = {}
        """Family → its topics that were set aside, and the bytes."""
        self._pauses: dict[str, float] = {}
        """Topic, or family → for how long it was set aside last."""

    @property
    def at_once(self) -> int:
        """How many suspects may be under way."""
        return max(1, len(self.suspects) // SHARE)

    def bars(self, topic: str, size: int) -> bool:
        """Return whether a message is set aside."""
        return bool(self._bars) and (
            self._bars_by(topic, topic, size) or self._bars_by(self._family(topic), topic, size)
        )

    def _bars_by(self, name: str, topic: str, size: int) -> bool:
        bar = self._bars.get(name)
        if bar is None or size < bar.size:
            return False
        if self._now() < bar.until:
            return True
        # Its time is over. One strike is enough to set it aside again.
        del self._bars[name]
        self._strikes[topic] = STRIKES - 1
        self.suspects.add(topic)
        for other in self._convicted.get(name, ()):
            self._bars.pop(other, None)
        return False

    @property
    def watching(self) -> bool:
        """Whether anything is suspect, or was."""
        return bool(self.suspects or self._strikes or self._convicted)

    def room(self, topic: str) -> int:
        """Return the most bytes that a payload at this topic may have for not being set aside."""
        sizes = [bar.size for name in (topic, self._family(topic)) if (bar := self._bars.get(name))]
        return min(sizes) - 1 if sizes else MAX_PACKET

    def acquit(self, sent: Sent) -> None:
        """Take in that the broker has borne a message."""
        self.suspects.difference_update((sent.key, sent.topic))
        self._strikes.pop(sent.key, None)
        self._strikes.pop(sent.topic, None)
        family = self._family(sent.topic)
        convicted = self._convicted.get(family, {})
        if sent.size >= convicted.get(sent.topic, sent.size + 1):
            del convicted[sent.topic]
            self._pauses.pop(sent.topic, None)
            self._pauses.pop(family, None)

    def known_of(self, unproven: Iterable[Sent]) -> list[Sent]:
        """Return what was suspect before: the first end with it under way may have been a stop of the broker."""
        known = self.suspects | self._strikes.keys()
        return [one for one in unproven if not known.isdisjoint((one.key, one.topic))]

    def broker_was_away(self) -> None:
        """Take in that a connection found no broker: it was stopped, so the end before was nobody's fault."""
        self.suspects.clear()
        self._strikes.clear()

    def forgive(self) -> None:
        """Begin anew: the broker has other limits now."""
        for kept in (self.suspects, self._strikes, self._bars, self._convicted, self._pauses):
            kept.clear()

    def ended(self, unproven: Iterable[Sent], *, proven: bool) -> None:
        """Take in that the broker hung up while these were under way.

        `proven`: the connection had worked for a while before the first of them was sent.
        """
        sent = {one.key: one for one in unproven}
        if not sent:
            return
        self.suspects = set(sent)
        if len(sent) == 1 and proven:
            self.strike(*sent.values())

    def strike(self, one: Sent) -> None:
        """Take in that a connection ended for this."""
        strikes = self._strikes[one.key] = max(self._strikes.get(one.key, 0), self._strikes.get(one.topic, 0)) + 1
        if strikes >= STRIKES:
            self._set_aside(one)

    def _set_aside(self, one: Sent) -> None:
        self.suspects.discard(one.key)
        self._strikes.pop(one.key, None)
        family = self._family(one.topic)
        convicted = self._convicted.setdefault(family, {})
        convicted[one.topic] = min(one.size, convicted.get(one.topic, one.size))
        self._bar(one.topic, one.size)
        if family != one.topic and len(convicted) >= OF_A_FAMILY:
            self._bar(family, min(convicted.values()))

    def _bar(self, name: str, size: int) -> None:
        pause = self._pauses[name] = min(self._pauses.get(name, PAUSE_FIRST / 2) * 2, MAX_PAUSE_SECONDS)
        self._bars[name] = _Bar(size, self._now() + pause)
