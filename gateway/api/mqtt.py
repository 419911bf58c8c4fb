"""Payload formats of plug-ins: how a device's values are written to MQTT topics.

An entry point of the group `sems_gateway.mqtt_payloads` names a class or an object with these methods, and
`api_version`; its name is then one that `payload:` of an MQTT bridge takes. Topics stay, and so does JSON in all that
is no value of a device: what a device is, how bridges do, commands and their results. Home Assistant and `store` need
JSON.
"""

from typing import Protocol

from gateway.core.model import DeviceState, Value


class PayloadFormat(Protocol):
    """What is published of a device. Must not block; whatever a method raises is logged, and nothing is published."""

    def state(self, state: DeviceState, /) -> bytes:
        """Return what stands at `<base>/<device>`, retained: the newest values."""
        ...

    def point(self, value: Value, /) -> bytes:
        """Return what stands at `<base>/<device>/<point>`; nothing for None, which clears it."""
        ...
