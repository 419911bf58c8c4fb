"""Topics of one kind, written as the line of an access rule that permits them: `sems/+/device`."""

from typing import Final

from gateway.bridges.mqtt.sparkplug.topics import NAMESPACE
from gateway.bridges.mqtt.topics import ALARM, AVAILABILITY, BRIDGE, DEVICE, HISTORY, RESPONSE, RESULT, TOTALS

_OF_A_DEVICE: Final = frozenset({AVAILABILITY, DEVICE, HISTORY, RESULT, ALARM, TOTALS})


def family(base: str, topic: str) -> str:
    """Return the kind of a topic that the gateway publishes to; the topic itself where it has none beside it."""
    levels = topic.split("/")
    own = topic.removeprefix(f"{base}/").split("/")
    match own:
        case [_] if own != levels:
            return f"{base}/+"
        case [device, name] if own != levels and device not in {BRIDGE, RESPONSE}:
            return f"{base}/+/{name if name in _OF_A_DEVICE else '+'}"
    match levels:
        case [*prefix, "device", _, "config"]:
            return "/".join([*prefix, "device", "+", "config"])
        case [first, group, kind, node, _] if first == NAMESPACE:
            return f"{first}/{group}/{kind}/{node}/+"
    return topic
