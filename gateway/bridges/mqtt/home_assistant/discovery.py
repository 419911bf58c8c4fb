"""Publishes discovery configs, keeps them true, and clears them."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from gateway.api.bridge import Context
from gateway.bridges.mqtt import payloads as mqtt_payloads
from gateway.bridges.mqtt.client import Client
from gateway.bridges.mqtt.delivery import TopicClass
from gateway.bridges.mqtt.home_assistant import entities, names, payloads
from gateway.bridges.mqtt.home_assistant.entities import Component, platform
from gateway.bridges.mqtt.home_assistant.memory import Entry, kept_file
from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.outbox import Outbox
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.bridges.mqtt.topics import RequestName, Topics
from gateway.core.model import Device, DeviceKind, DeviceState, Origin, Range, Value
from gateway.core.points import POINTS
from gateway.core.timer import Timer

SETTLE: Final = 2.0
"""Seconds in which changes gather before a config is published. Home Assistant loses parts of one that comes while it
still works on the one before (mqtt/discovery.py, `discovery_pending_discovered`)."""
BIRTH_JITTER: Final = (0.5, 3.0)
"""Seconds after Home Assistant's birth: everybody's devices come then."""
STATES_AFTER: Final = 2.0
"""Seconds that Home Assistant has to subscribe to the topics that a config names."""
LEFTOVERS_AFTER: Final = 600.0
"""Seconds for which every bridge has to be up before a device that nobody knows any more counts as gone."""
BIRTH: Final = b"online"


class _Seen(msgspec.Struct):
    """What is known of a device, as far as its config depends on it."""

    root: str
    device: Device
    permitted: Mapping[str, Range]
    points: set[str]
    """Points that had a value, ever."""
    firmware: str


class Discovery:
    """Works on the connection's task, as the publisher does. Switched off, it clears what it once published."""

    def __init__(
        self, settings: MqttSettings, context: Context, topics: Topics, client: Client, outbox: Outbox
    ) -> None:
        self._settings = settings
        self._own = settings.home_assistant
        self._context = context
        self._topics = topics
        self._client = client
        self._config = settings.sending(TopicClass.DISCOVERY)
        self._state = settings.sending(TopicClass.STATE)
        self._id = names.object_id(context.gateway_id)
        self._file = kept_file(context.data_dir / f"{context.name}-home-assistant.json", context.log)
        self._entries: dict[str, Entry] = {}
        """Object id → what was published."""
        self._saved: bytes | None = None
        """What the file holds of them; None before it was read."""
        self._seen: dict[str, _Seen] = {}
        self._bridges: set[str] = set()
        """Those that the gateway's config shows."""
        self._dirty: dict[str, None] = {}
        """Serials whose config is to be published, in order; "" is the gateway itself."""
        self._due: dict[Callable[[], Awaitable[None]], float] = {}
        """What to do → when, monotonic."""
        self._timer = Timer(outbox.wake)
        self._all_up_since: float | None = None
        self._pruned = False
        self._states_wanted = False

    # what the bridge, the inbox and the publisher call

    @property
    def enabled(self) -> bool:
        """Whether Home Assistant shall find anything."""
        return self._own.enabled

    @property
    def filters(self) -> tuple[str, ...]:
        """What to subscribe to."""
        return (self._own.status_topic,) if self.enabled else ()

    def receive(self, message: Message) -> None:
        """Take a message of the status topic. A retained birth is old news: all was published on this connection."""
        if message.payload.strip() == BIRTH and not message.retain:
            self._plan(self._greet, random.uniform(*BIRTH_JITTER))  # noqa: S311 - jitter, no secret

    async def begin(self) -> None:
        """Publish every config: the broker may have forgotten them. Raises LostError."""
        await self._load()
        self._due.clear()
        await self._forget_elsewhere()
        if not self.enabled:
            return
        for state in self._context.states():
            self._note(state)
        await self._publish(everything=True)
        self._all_up_since = None
        self._plan(self._look_for_leftovers, 0)

    async def flush(self) -> bool:
        """Do what is due; return whether all states are to be published anew. Raises LostError."""
        now = self._context.clock.monotonic()
        for work in [work for work, at in self._due.items() if at <= now]:
            del self._due[work]
            await work()
        if self._due:
            self._timer.within(min(self._due.values()) - self._context.clock.monotonic())
        wanted, self._states_wanted = self._states_wanted, False
        return wanted

    def show(self, state: DeviceState) -> None:
        """Take in a state that is being published."""
        if self.enabled and self._note(state):
            self._plan(self._publish, SETTLE)

    async def clear(self, serial: str) -> None:
        """Clear the config of a device. Raises LostError."""
        await self._load()
        seen = self._seen.pop(serial, None)
        self._dirty.pop(serial, None)
        object_id = names.object_id(self._context.gateway_id, serial)
        if (entry := self._entries.get(object_id)) is not None:
            await self._tell(entry.topic, mqtt_payloads.CLEARED)
            del self._entries[object_id]
            self._plan(self._save, SETTLE)
        if seen is not None:
            self._hang_anew(seen.device)
            if self._dirty:
                self._plan(self._publish, SETTLE)

    def bridges_changed(self) -> None:
        """Take in that a bridge may be new."""
        names_now = {bridge.name for bridge in self._context.bridges()}
        if self.enabled and names_now != self._bridges:
            self._dirty[""] = None
            self._plan(self._publish, SETTLE)

    # what is due at times

    def _plan(self, work: Callable[[], Awaitable[None]], delay: float) -> None:
        """Have `flush` do something after a while; sooner where that is planned already."""
        if work not in self._due:
            self._due[work] = self._context.clock.monotonic() + delay
            self._timer.within(delay)

    async def _greet(self) -> None:
        """Home Assistant is there, and knows nothing."""
        await self._publish(everything=True)
        self._plan(self._show_states, STATES_AFTER)

    async def _show_states(self) -> None:
        self._states_wanted = True

    async def _look_for_leftovers(self) -> None:
        """Clear what devices left that went while the gateway was away. Who is late to come is not gone."""
        now = self._context.clock.monotonic()
        others = [bridge for bridge in self._context.bridges() if bridge.name != self._context.name]
        if not all(bridge.up for bridge in others):
            self._all_up_since = None
        elif self._all_up_since is None:
            self._all_up_since = now
        if self._all_up_since is None or now - self._all_up_since < LEFTOVERS_AFTER:
            self._plan(self._look_for_leftovers, max(LEFTOVERS_AFTER / 10, 0.05))
            return
        for object_id, entry in list(self._entries.items()):
            if entry.serial and self._context.state(entry.serial) is None:
                await self._forget(object_id, entry)
        await self._save()
        self._pruned = True
        self._dirty[""] = None
        await self._publish()

    # configs

    def _note(self, state: DeviceState) -> bool:
        """Take in a state; return whether the device's config has to change."""
        device = state.device
        seen = self._seen.get(device.serial)
        if seen is None:
            seen = self._seen[device.serial] = self._remembered(device)
            self._hang_anew(device)
            changed = True
        elif changed := seen.device != device:
            seen.device = device
            seen.permitted = self._context.permitted(device, Origin(self._context.name))
        for point, value in state.values.items():
            if value is not None and point not in seen.points and point in POINTS:
                seen.points.add(point)
                changed = True
        firmware = _text(state.values.get("firmware")) or seen.firmware
        if firmware != seen.firmware:
            seen.firmware = firmware
            changed = True
        if changed:
            self._dirty[device.serial] = None
        return changed

    def _hang_anew(self, device: Device) -> None:
        """Have what belongs to a plant that came or went say what it hangs on now."""
        if device.kind is DeviceKind.PLANT:
            mine = [serial for serial, seen in self._seen.items() if seen.device.plant == device.serial]
            self._dirty.update(dict.fromkeys(mine))

    def _remembered(self, device: Device) -> _Seen:
        """Begin with a device as it was before a restart: entities must not come and go with each."""
        entry = self._entries.get(names.object_id(self._context.gateway_id, device.serial))
        points = {key for key in entry.components if key in POINTS} if entry else set()
        if entry and entities.FAULT in entry.components:
            points.add("status")
        return _Seen(
            root=self._topics.root(device.serial),
            device=device,
            permitted=self._context.permitted(device, Origin(self._context.name)),
            points=points,
            firmware="",
        )

    async def _publish(self, *, everything: bool = False) -> None:
        """Publish the configs that have changed, first writing down what will be there to clear."""
        if everything:
            self._dirty = dict.fromkeys(["", *self._seen])
        else:
            # The gateway comes before what hangs on it.
            self._dirty = dict.fromkeys(sorted(self._dirty, key=bool))
        before = {serial: self._entries.get(self._object_id(serial)) for serial in self._dirty}
        taken = {entry.entity for entry in self._entries.values()}
        made = {serial: self._made(serial, taken) for serial in self._dirty}
        await self._save()
        for serial, (entry, block, components) in made.items():
            await self._publish_one(serial, before[serial], entry, block, components)
            self._dirty.pop(serial, None)
        if made and not self._state.retain:
            # The broker has no states for Home Assistant to find.
            self._plan(self._show_states, STATES_AFTER)

    def _made(self, serial: str, taken: set[str]) -> tuple[Entry, dict[str, Any], dict[str, Component]]:
        """Return what to publish of a device, or of the gateway, and note in memory that it is."""
        object_id = self._object_id(serial)
        if serial:
            seen = self._seen[serial]
            block, components, root = self._device_block(seen), self._components(seen), seen.root
        else:
            block, root = payloads.about_gateway(object_id, self._context.gateway_id), ""
            statuses = self._context.bridges()
            self._bridges = {bridge.name for bridge in statuses}
            components = payloads.bridges(
                self._topics, statuses, may_restart=RequestName.RESTART in self._settings.requests
            )
        known = self._entries.get(object_id)
        entry = Entry(
            topic=f"{self._own.prefix}/device/{object_id}/config",
            root=root,
            serial=serial,
            entity=known.entity if known else _entity(serial, str(block["name"]), taken),
            components={key: platform(component) for key, component in components.items()},
        )
        if not serial and known and not self._pruned:
            # A bridge that has not said how it does is none that is gone.
            entry.components = known.components | entry.components
        self._entries[object_id] = entry
        return entry, block, components

    async def _publish_one(
        self, serial: str, before: Entry | None, entry: Entry, block: dict[str, Any], components: dict[str, Component]
    ) -> None:
        object_id = self._object_id(serial)

        def body(with_gone: dict[str, Component]) -> bytes:
            if not serial:
                return payloads.of_gateway(self._topics, object_id, entry.entity, block, components | with_gone)
            return payloads.of_device(self._topics, entry.root, object_id, entry.entity, block, components | with_gone)

        gone = {
            key: {"platform": platform_}
            for key, platform_ in (before.components if before else {}).items()
            if key not in entry.components
        }
        if gone:
            await self._tell(entry.topic, body(gone))
        await self._tell(entry.topic, body({}))

    def _components(self, seen: _Seen) -> dict[str, Component]:
        bridge = payloads.availability(self._topics.bridge_state)
        return {
            **entities.shown(seen.points, seen.permitted),
            **entities.health(seen.points, bridge),
            **entities.controls(seen.root, seen.permitted, dated=self._settings.session_expiry > 0),
        }

    def _device_block(self, seen: _Seen) -> dict[str, Any]:
        device, gateway_id = seen.device, self._context.gateway_id
        object_id = names.object_id(gateway_id, device.serial)
        # A plant that is not shown can't be hung on.
        has_plant = device.plant and device.plant != device.serial and device.plant in self._seen
        via = names.object_id(gateway_id, device.plant) if has_plant else self._id
        return payloads.about_device(object_id, device, seen.firmware, via)

    def _object_id(self, serial: str) -> str:
        return names.object_id(self._context.gateway_id, serial or None)

    # memory

    async def _load(self) -> None:
        if self._saved is not None:
            return
        found = await asyncio.to_thread(self._file.read)
        self._entries = found or {}
        self._saved = b"" if self._file.damaged else msgspec.json.encode(self._entries)

    async def _save(self) -> None:
        body = msgspec.json.encode(self._entries)
        if body != self._saved and await self._file.write(body):
            self._saved = body

    async def _forget_elsewhere(self) -> None:
        """Clear what stands where nothing of ours will be again: another prefix, base, or discovery is off."""
        for object_id, entry in list(self._entries.items()):
            topic = f"{self._own.prefix}/device/{self._object_id(entry.serial)}/config"
            moved = bool(entry.serial) and entry.root != self._topics.root(entry.serial)
            if not self.enabled or entry.topic != topic or moved:
                await self._forget(object_id, entry)
        await self._save()

    async def _forget(self, object_id: str, entry: Entry) -> None:
        await self._tell(entry.topic, mqtt_payloads.CLEARED)
        del self._entries[object_id]

    async def _tell(self, topic: str, payload: bytes) -> None:
        await self._client.publish(topic, payload, self._config.qos, self._config.retain or not payload)


def _text(value: Value) -> str:
    return value if isinstance(value, str) else ""


def _entity(serial: str, name: str, taken: set[str]) -> str:
    """Return how entity ids begin: by the name, with the serial number where another has it already."""
    own = names.slug(serial)
    entity = names.slug(name) or own or "sems"
    if entity in taken:
        entity = f"{entity}_{own}"
    taken.add(entity)
    return entity
