"""Discovery configs, whole: `device`, `origin`, `components`, and what all components share."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway import __version__
from gateway.bridges.mqtt.home_assistant.entities import SET_PREFIX, Component, platform
from gateway.bridges.mqtt.home_assistant.names import MAX_NAME, slug
from gateway.bridges.mqtt.topics import AVAILABILITY, RequestName, Topics
from gateway.core.model import BridgeStatus, Device, DeviceKind

MANUFACTURER: Final = "GoodWe"
BRIDGE_PREFIX: Final = "bridge_"
RESTART_PREFIX: Final = "restart_"

_encode: Final = msgspec.json.Encoder().encode
_ORIGIN: Final = {"name": "sems-gateway", "sw_version": __version__}


def availability(topic: str) -> Component:
    """Return one condition of being available."""
    return {"topic": topic, "payload_available": "online", "payload_not_available": "offline"}


def name_of(device: Device) -> str:
    """Return how Home Assistant calls a device."""
    return (device.name or device.serial)[:MAX_NAME]


def about_device(object_id: str, device: Device, firmware: str, via: str) -> dict[str, Any]:
    """Return the `device` block of a device; `via` is the object id of what it hangs on."""
    is_plant = device.kind in {DeviceKind.PLANT, DeviceKind.FLEET}
    block: dict[str, Any] = {
        "identifiers": [object_id],
        "name": name_of(device),
        "manufacturer": MANUFACTURER,
        "model": device.model or device.kind.replace("_", " ").capitalize(),
        "via_device": via,
    }
    if not is_plant:
        block["serial_number"] = device.serial
    return block | ({"sw_version": firmware} if firmware else {})


def about_gateway(object_id: str, gateway_id: str) -> dict[str, Any]:
    """Return the `device` block of the gateway itself."""
    return {
        "identifiers": [object_id],
        "name": gateway_id,
        "manufacturer": "sems-gateway",
        "model": "SEMS gateway",
        "sw_version": __version__,
    }


def of_device(
    topics: Topics, root: str, object_id: str, entity: str, block: Mapping[str, Any], components: dict[str, Component]
) -> bytes:
    """Return a device's config."""
    return _config(
        object_id,
        entity,
        block,
        [availability(topics.bridge_state), availability(f"{root}/{AVAILABILITY}")],
        root,
        components,
    )


def of_gateway(
    topics: Topics, object_id: str, entity: str, block: Mapping[str, Any], components: dict[str, Component]
) -> bytes:
    """Return the gateway's own config."""
    return _config(object_id, entity, block, [availability(topics.bridge_state)], topics.bridge_health, components)


def bridges(topics: Topics, statuses: Sequence[BridgeStatus], *, may_restart: bool) -> dict[str, Component]:
    """Return what shows how the bridges do, and buttons that restart them."""
    components: dict[str, Component] = {}
    for bridge in statuses:
        components[BRIDGE_PREFIX + bridge.name] = {
            "platform": "binary_sensor",
            "name": f"Bridge {bridge.name}",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
            "value_template": f"{{{{ 'ON' if value_json.bridges.get('{bridge.name}', {{}}).get('up') else 'OFF' }}}}",
        }
        if may_restart:
            components[RESTART_PREFIX + bridge.name] = {
                "platform": "button",
                "name": f"Restart bridge {bridge.name}",
                "device_class": "restart",
                "entity_category": "config",
                "command_topic": topics.request(RequestName.RESTART),
                "payload_press": _encode({"bridge": bridge.name}).decode(),
                "qos": 1,
            }
    for quality in ("good", "stale", "offline"):
        components[f"devices_{quality}"] = {
            "platform": "sensor",
            "name": f"Devices {quality}",
            "state_class": "measurement",
            "entity_category": "diagnostic",
            "icon": "mdi:solar-power-variant",
            "value_template": f"{{{{ value_json.devices.{quality} }}}}",
        }
    return components


def _config(
    object_id: str,
    entity: str,
    block: Mapping[str, Any],
    available: list[Component],
    state_topic: str,
    components: Mapping[str, Component],
) -> bytes:
    return _encode(
        {
            "device": block,
            "origin": _ORIGIN,
            "availability": available,
            "availability_mode": "all",
            "state_topic": state_topic,
            "components": {
                key: component
                if len(component) == 1  # nothing but its platform: Home Assistant takes it away
                else component
                | {
                    "unique_id": f"{object_id}_{key}",
                    "default_entity_id": f"{platform(component)}.{entity}_{slug(key.removeprefix(SET_PREFIX))}",
                }
                for key, component in components.items()
            },
        }
    )
