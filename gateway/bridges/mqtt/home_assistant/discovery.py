"""Publishes discovery configs, keeps them true, and clears them."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, Final

import msgspec

from gateway.api.bridge import Context
from gateway.bridges.mqtt import payloads as mqtt_payloads
from gateway.bridges.mqtt.client import Client
from gateway.bridges.mqtt.delivery import TopicClass
from gateway.bridges.mqtt.home_assistant import entities, names, payloads
from gateway.bridges.mqtt.home_assistant.entities import Component, platform
from gateway.bridges.mqtt.home_assistant.memory import Entry, as_kept, kept_file, restored
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
_encode: Final = msgspec.json.Encoder().encode
MADE_PER_TURN: Final = 5
"""Configs that are made before others on the loop get their turn, 0.2 ms each."""
NOTED_PER_TURN: Final = 50
"""Devices that are looked at in one turn."""
ENCODED_PER_TURN: Final = 500
"""Entries of the file that are encoded in one turn."""
MAX_KINDS: Final = 1000
"""Kinds of devices that are remembered."""


class _Kind(msgspec.Struct, frozen=True):
    """What the configs of devices of a kind have in common; made once, however many there are."""

    points: frozenset[str]
    """Points that had a value, ever."""
    permitted: Mapping[str, Range]
    shown: Mapping[str, Component]
    """Components that are the same for all of them."""
    platforms: dict[str, str]
    """Component → platform, of all components."""


class _Seen(msgspec.Struct, gc=False):
    """What is known of a device, as far as its config depends on it."""

    root: str
    device: Device
    kind: _Kind
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
        self._loaded = False
        self._unsaved = False
        """Whether the file holds something else."""
        self._seen: dict[str, _Seen] = {}
        self._hanging: dict[str, set[str]] = {}
        """Serial of a plant → those of the devices seen that belong to it."""
        self._kinds: dict[Hashable, _Kind] = {}
        self._platforms: dict[frozenset[tuple[str, str]], dict[str, str]] = {}
        """Components of entries, so that equal ones are the same."""
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
        for n, state in enumerate(self._context.states(), 1):
            self._note(state)
            if n % NOTED_PER_TURN == 0:
                await asyncio.sleep(0)
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
            self._unsaved = True
            self._plan(self._save, SETTLE)
        if seen is not None:
            self._hang(seen.device, None)
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
            self._hang(None, device)
            self._hang_anew(device)
            changed = True
        elif changed := seen.device != device:
            self._hang(seen.device, device)
            seen.device = device
            seen.kind = self._kind(seen.kind.points, self._context.permitted(device, Origin(self._context.name)))
        known = seen.kind.points
        new = [p for p, value in state.values.items() if value is not None and p not in known and p in POINTS]
        if new:
            seen.kind = self._kind(known.union(new), seen.kind.permitted)
            changed = True
        firmware = _text(state.values.get("firmware")) or seen.firmware
        if firmware != seen.firmware:
            seen.firmware = firmware
            changed = True
        if changed:
            self._dirty[device.serial] = None
        return changed

    def _hang(self, before: Device | None, now: Device | None) -> None:
        """Keep which devices belong to which plant."""
        if before is not None and before.plant in self._hanging:
            self._hanging[before.plant].discard(before.serial)
            if not self._hanging[before.plant]:
                del self._hanging[before.plant]
        if now is not None and now.plant:
            self._hanging.setdefault(now.plant, set()).add(now.serial)

    def _hang_anew(self, device: Device) -> None:
        """Have what belongs to a plant that came or went say what it hangs on now."""
        if device.kind is DeviceKind.PLANT:
            self._dirty.update(dict.fromkeys(sorted(self._hanging.get(device.serial, ()))))

    def _remembered(self, device: Device) -> _Seen:
        """Begin with a device as it was before a restart: entities must not come and go with each."""
        entry = self._entries.get(names.object_id(self._context.gateway_id, device.serial))
        points = {key for key in entry.components if key in POINTS} if entry else set()
        if entry and entities.FAULT in entry.components:
            points.add("status")
        permitted = self._context.permitted(device, Origin(self._context.name))
        return _Seen(
            root=self._topics.root(device.serial),
            device=device,
            kind=self._kind(frozenset(points), permitted),
            firmware="",
        )

    def _kind(self, points: frozenset[str], permitted: Mapping[str, Range]) -> _Kind:
        """Return what devices with these points and permissions have in common."""
        key = points, tuple(permitted.items())
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= MAX_KINDS:
                self._kinds.clear()
                self._platforms.clear()
            shown = {
                **entities.shown(points, permitted),
                **entities.health(points, payloads.availability(self._topics.bridge_state)),
            }
            platforms = {k: platform(component) for k, component in (shown | self._controls("", permitted)).items()}
            kind = self._kinds[key] = _Kind(points, permitted, shown, self._shared(platforms))
        return kind

    def _controls(self, root: str, permitted: Mapping[str, Range]) -> dict[str, Component]:
        return entities.controls(root, permitted, dated=self._settings.session_expiry > 0)

    def _shared(self, platforms: dict[str, str]) -> dict[str, str]:
        return self._platforms.setdefault(frozenset(platforms.items()), platforms)

    async def _publish(self, *, everything: bool = False) -> None:
        """Publish the configs that have changed, first writing down what will be there to clear."""
        if everything:
            self._dirty = dict.fromkeys(["", *self._seen])
        else:
            # The gateway comes before what hangs on it.
            self._dirty = dict.fromkeys(sorted(self._dirty, key=bool))
        if not self._dirty:
            await self._save()
            return
        taken = {entry.entity for entry in self._entries.values()}
        await asyncio.sleep(0)
        gone: dict[str, dict[str, Component]] = {}
        for n, serial in enumerate(list(self._dirty), 1):
            before, entry = self._entries.get(self._object_id(serial)), self._enter(serial, taken)
            if before and (left := before.components.keys() - entry.components.keys()):
                gone[serial] = {key: {"platform": before.components[key]} for key in before.components if key in left}
            if n % NOTED_PER_TURN == 0:
                await asyncio.sleep(0)
        await self._save()
        for n, serial in enumerate(list(self._dirty), 1):
            await self._publish_one(serial, gone.get(serial, {}))
            self._dirty.pop(serial, None)
            if n % MADE_PER_TURN == 0:
                await asyncio.sleep(0)
        if not self._state.retain:
            # The broker has no states for Home Assistant to find.
            self._plan(self._show_states, STATES_AFTER)

    def _enter(self, serial: str, taken: set[str]) -> Entry:
        """Note in memory what is about to be published of a device, or of the gateway."""
        object_id = self._object_id(serial)
        known = self._entries.get(object_id)
        if serial:
            seen = self._seen[serial]
            name, root, platforms = payloads.name_of(seen.device), seen.root, seen.kind.platforms
        else:
            self._bridges = {bridge.name for bridge in self._context.bridges()}
            name, root = self._context.gateway_id, ""
            platforms = {key: platform(component) for key, component in self._of_gateway().items()}
            if known and not self._pruned:
                # A bridge that has not said how it does is none that is gone.
                platforms = known.components | platforms
        entry = Entry(
            topic=f"{self._own.prefix}/device/{object_id}/config",
            root=root,
            serial=serial,
            entity=known.entity if known else _entity(serial, name, taken),
            components=platforms,
        )
        if entry != known:
            self._entries[object_id] = entry
            self._unsaved = True
        return entry

    def _of_gateway(self) -> dict[str, Component]:
        may_restart = RequestName.RESTART in self._settings.requests
        return payloads.bridges(self._topics, self._context.bridges(), may_restart=may_restart)

    async def _publish_one(self, serial: str, gone: dict[str, Component]) -> None:
        """Publish a config; where components are gone, first one that says so."""
        object_id = self._object_id(serial)
        entry = self._entries[object_id]
        if serial:
            seen = self._seen[serial]
            block = self._device_block(seen)
            components = {**seen.kind.shown, **self._controls(seen.root, seen.kind.permitted)}
        else:
            block, components = payloads.about_gateway(object_id, self._context.gateway_id), self._of_gateway()

        def body(with_gone: dict[str, Component]) -> bytes:
            if not serial:
                return payloads.of_gateway(self._topics, object_id, entry.entity, block, components | with_gone)
            return payloads.of_device(self._topics, entry.root, object_id, entry.entity, block, components | with_gone)

        if gone:
            await self._tell(entry.topic, body(gone))
        await self._tell(entry.topic, body({}))

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
        if self._loaded:
            return
        self._loaded = True
        self._entries = await asyncio.to_thread(self._read)
        self._unsaved = self._file.damaged

    def _read(self) -> dict[str, Entry]:
        """Return what the file holds, equal components as one; on a thread, for there may be thousands."""
        entries = restored(self._file.read() or {})
        for entry in entries.values():
            entry.components = self._shared(entry.components)
        return entries

    async def _save(self) -> None:
        """Write the file where it holds something else."""
        if not self._unsaved:
            return
        self._unsaved = False
        parts: list[bytes] = []
        alike: dict[int, str] = {}
        for n, object_id in enumerate(list(self._entries), 1):
            entry = self._entries[object_id]
            first = alike.setdefault(id(entry.components), object_id)
            kept = as_kept(entry, None if first == object_id else first)
            parts.append(b"%b:%b" % (_encode(object_id), _encode(kept)))
            if n % ENCODED_PER_TURN == 0:
                await asyncio.sleep(0)
        if not await asyncio.to_thread(lambda: self._file.write_now(b"{%b}" % b",".join(parts))):
            self._unsaved = True

    async def _forget_elsewhere(self) -> None:
        """Clear what stands where nothing of ours will be again: another prefix, base, or discovery is off."""
        for n, object_id in enumerate(list(self._entries), 1):
            entry = self._entries[object_id]
            if n % NOTED_PER_TURN == 0:
                await asyncio.sleep(0)
            topic = f"{self._own.prefix}/device/{self._object_id(entry.serial)}/config"
            moved = bool(entry.serial) and entry.root != self._topics.root(entry.serial)
            if not self.enabled or entry.topic != topic or moved:
                await self._forget(object_id, entry)
        await self._save()

    async def _forget(self, object_id: str, entry: Entry) -> None:
        await self._tell(entry.topic, mqtt_payloads.CLEARED)
        del self._entries[object_id]
        self._unsaved = True

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
