"""Names of Sparkplug topics: `spBv1.0/<group>/<message type>/<node>[/<device>]` (Sparkplug 3.0 §4.1)."""

from enum import StrEnum
from typing import Final
from urllib.parse import unquote

import msgspec

from gateway.bridges.mqtt.topics import percent_encoded

NAMESPACE: Final = "spBv1.0"

device_id: Final = percent_encoded
"""Makes a device id of a serial number."""


class MessageType(StrEnum):
    """What a message is."""

    NBIRTH = "NBIRTH"
    NDATA = "NDATA"
    NDEATH = "NDEATH"
    NCMD = "NCMD"
    DBIRTH = "DBIRTH"
    DDATA = "DDATA"
    DDEATH = "DDEATH"
    DCMD = "DCMD"


def serial_of(id_: str) -> str | None:
    """Return the serial number that `device_id` made this of; None when it made none like it."""
    serial = unquote(id_, errors="replace")
    return serial if device_id(serial) == id_ else None


class CommandTopic(msgspec.Struct, frozen=True):
    """A topic that takes commands, taken apart."""

    device: str | None
    """Device id as it came; None for the node itself."""


class SparkplugTopics:
    """All topics of one edge node, and its primary host's."""

    def __init__(self, group: str, node: str, primary_host: str | None) -> None:
        self._group = group
        self._node = node
        self._ncmd = self.of(MessageType.NCMD)
        self._dcmd = self.of(MessageType.DCMD)
        self.state = f"{NAMESPACE}/STATE/{primary_host}" if primary_host else None
        self.filters = (self._ncmd, f"{self._dcmd}/+", *([self.state] if self.state else []))
        """What to subscribe to."""

    def of(self, type_: MessageType, device: str | None = None) -> str:
        """Return the topic for a message of the node, or of a device by its id."""
        topic = f"{NAMESPACE}/{self._group}/{type_}/{self._node}"
        return topic if device is None else f"{topic}/{device}"

    def parse_command(self, topic: str) -> CommandTopic | None:
        """Take an NCMD or DCMD topic of ours apart; None for any other."""
        if topic == self._ncmd:
            return CommandTopic(None)
        above, _, device = topic.rpartition("/")
        return CommandTopic(device) if above == self._dcmd and device else None
