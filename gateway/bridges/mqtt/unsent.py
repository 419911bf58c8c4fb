"""What the broker did not get, and why: counted, told once by its topic, and shown in the bridge's status."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from gateway.bridges.mqtt.limits import Why
from gateway.core.metrics import Metrics, counter
from gateway.core.text import plain

MAX_LOGGED_OF_A_FAMILY: Final = 20
"""Topics of a kind that are told by name."""
MAX_LOGGED_TOPICS: Final = 500
"""Topics that are."""
SHOWN: Final = 100_000
"""Topics that the status counts."""
NAMED: Final = 3
"""Topics that the status names."""
TOPIC_SHOWN: Final = 200
"""Characters of a topic."""

_WORDS: Final[Mapping[Why, str]] = {
    Why.TOO_LARGE: "it is too large",
    Why.TOPIC: "the topic is too long or too deep",
    Why.WILDCARD: "it knows no wildcards in subscriptions",
    Why.HUNG_UP: "it hangs up over this: is the topic permitted, and does it take so many bytes, "
    "this QoS, and retained messages?",
    Why.REFUSED: "it is refused",
}


class Unsent:
    """Of one client. `changed` is called when `detail` has changed, and `news` is true until somebody took it in."""

    def __init__(
        self, family: Callable[[str], str], log: structlog.stdlib.BoundLogger, changed: Callable[[], None]
    ) -> None:
        self._family = family
        self._log = log
        self._changed = changed
        self.counts: Counter[Why] = Counter()
        """Messages, and subscriptions, since the bridge was started."""
        self.news = False
        self.topics: dict[str, str] = {}
        """Topic → why the broker does not get it."""
        self._told: dict[tuple[Why, str], set[str]] = {}
        self._told_in_all = 0

    def connected(self, *, other_limits: bool) -> None:
        """Begin a connection. With other limits what is told once is told again."""
        if other_limits:
            self.topics.clear()
            self._told.clear()
            self._told_in_all = 0

    def add(self, why: Why, topic: str, size: int, *, said: str = "", limit: int | None = None) -> None:
        """Take in a message of so many bytes that the broker did not get; `said` are its own words."""
        self.counts[why] += 1
        self._tell(why, topic, size, said, limit)
        if topic not in self.topics and len(self.topics) < SHOWN:
            self.topics[topic] = said or _WORDS[why].partition(":")[0]
            self.news = True
            self._changed()

    def accepted(self, topic: str) -> None:
        """Take in that the broker accepts a topic again."""
        if self.topics.pop(topic, None) is not None:
            self.news = True
            self._changed()

    def _tell(self, why: Why, topic: str, size: int, said: str, limit: int | None) -> None:
        told = self._told.setdefault((why, self._family(topic)), set())
        if topic in told or len(told) >= MAX_LOGGED_OF_A_FAMILY or self._told_in_all >= MAX_LOGGED_TOPICS:
            return
        told.add(topic)
        self._told_in_all += 1
        more = {name: value for name, value in (("reason", said), ("limit", limit)) if value}
        last = len(told) == MAX_LOGGED_OF_A_FAMILY
        event = "the broker does not take this" + ("; more of this kind are only counted" if last else "")
        self._log.warning(event, topic=plain(topic, TOPIC_SHOWN), why=_WORDS[why], bytes=size, **more)

    @property
    def detail(self) -> str:
        """What a status says; empty where the broker gets everything."""
        if not self.topics:
            return ""
        some = [f"{plain(topic, TOPIC_SHOWN)} ({why})" for topic, why in list(self.topics.items())[:NAMED]]
        rest = len(self.topics) - len(some)
        return f"the broker does not take {', '.join(some)}{f' and {rest} more topics' if rest else ''}"


METRICS: Final = Metrics[Unsent](
    counter(
        "sems_gateway_mqtt_unsent",
        "messages and subscriptions that the broker did not get, by reason",
        lambda unsent: {why.value: unsent.counts[why] for why in Why},
        "why",
    ),
)
