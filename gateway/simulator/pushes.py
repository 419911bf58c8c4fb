"""What GoodWe sends by itself, to the client's address or into a topic: a query's answer, with the query's name.

Each push is one POST, or one message, of `{"interface", "sn" or "plant_id", "data"}`. Answered 2xx it is done,
otherwise it is tried again for as long as the order says. [assumed, but for who calls whom: SEMS.md]
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final

import msgspec

from gateway.core.model import DeviceKind
from gateway.sems.catalogue import Catalogue, Interface, Json, Use, load
from gateway.simulator.controls import Tasks
from gateway.simulator.frozen_clock import FrozenClock
from gateway.simulator.noise import derive, unit
from gateway.simulator.queries import Queries
from gateway.simulator.requests import Args
from gateway.simulator.transports import Send, transports
from gateway.simulator.world import World

APIS: Final = ("open_api", "developer")
SECRET_HEADER: Final = "X-Push-Secret"  # noqa: S105 - the name of a header
USES: Final = frozenset({Use.LIVE, Use.DETAIL, Use.ALARMS})
"""What is pushed; the rest is only answered when asked for."""
_ARGS: Final = frozenset({"serial", "plant", "serials", "plants", "type"})
_LOOK: Final = 1.0
"""Seconds between looks at whose upload has come."""
_BREATH: Final = 50
"""Pushes that are put together at a time, so that calls are answered in between."""

Pair = tuple[Interface, str]
"""What is pushed: a query, and the serial number or plant id that it is about."""
Chance = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]


class PushOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be pushed where, and what mischief goes with it."""

    url: Annotated[str, msgspec.Meta(pattern=r"^(https?://.+|kafka://[^/]+/[A-Za-z0-9._-]+)$")]
    """A secret that belongs in the path stands at its end; `kafka://host:port/topic` is a topic."""
    secret: str = ""
    """Sent in a header, where there is one."""
    header: str = SECRET_HEADER
    api: str = APIS[0]
    interfaces: tuple[str, ...] = ()
    """Names in the API's catalogue; empty for all that tell what is measured now."""
    devices: tuple[str, ...] = ()
    """Serial numbers and plant ids; empty for all that an interface is for."""
    rounds: Annotated[int, msgspec.Meta(ge=1)] | None = 1
    """How often all of it is measured and pushed; None: until stopped, and where the world has an upload interval, each
    plant's as soon as the cloud hears of it."""
    interval: Seconds = 300.0
    """Seconds between the beginnings of two rounds; not used where uploads say when."""
    connections: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 8
    """How many pushes are under way at a time."""
    timeout: Annotated[float, msgspec.Meta(gt=0, le=600)] = 10.0
    """Seconds to wait for an answer."""
    retries: Annotated[int, msgspec.Meta(ge=0)] = 3
    """How often a push that was not answered 2xx is sent again."""
    pause: Seconds = 5.0
    """Seconds before it is sent again."""
    duplicates: Chance = 0.0
    """Part of the pushes that come twice in a row."""
    disorder: Chance = 0.0
    """Part of the pushes that come only after the next round's, or the last after all others."""
    echoes: Chance = 0.0
    """Part of the pushes of which a copy comes again with a later round."""
    seed: int = 1
    """Of the mischief."""


class Push(msgspec.Struct, kw_only=True):
    """A push, and what became of it."""

    order: int
    number: int
    """Within the order, as measured; copies have the number of their original."""
    round: int
    copy: bool
    interface: str
    serial: str
    """Of the device; a plant's id."""
    measured: datetime
    """Wall clock, UTC."""
    sent: datetime | None = None
    """When it was sent last."""
    attempts: int = 0
    acknowledged: datetime | None = None
    answer: str = ""
    """HTTP status of the last attempt, or what went wrong."""
    data: Json = None


class PushReport(msgspec.Struct, kw_only=True):
    """How an order does."""

    order: int
    url: str
    pushes: int = 0
    """Made so far, copies included."""
    attempts: int = 0
    acknowledged: int = 0
    given_up: int = 0
    under_way: bool = True


class Pusher:
    """Pushes what it is ordered to, and remembers it for who wants to compare."""

    def __init__(self, world: World, tasks: Tasks, clock: FrozenClock, remembered: int) -> None:
        self._world = world
        self._clock = clock
        self._catalogues: Mapping[str, Catalogue] = {api: load(api) for api in APIS}
        self._queries = {api: Queries(world, tasks, catalogue) for api, catalogue in self._catalogues.items()}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.reports: list[PushReport] = []
        """Of every order, the oldest first."""
        self.pushes: deque[Push] = deque(maxlen=remembered)
        """In the order in which they were first sent, newest last."""

    def begin(self, order: PushOrder) -> PushReport:
        """Begin to push. Raises ValueError for an order that can't be followed."""
        interfaces = self._interfaces(order)
        if not any(True for interface in interfaces for _ in self._subjects(order, interface)):
            raise ValueError("these interfaces are for none of these devices")
        report = PushReport(order=len(self.reports) + 1, url=order.url)
        self.reports.append(report)
        work = self._follow(order, report, interfaces)
        self._tasks[report.order] = asyncio.create_task(work, name=f"pushes {report.order}")
        return report

    async def done(self, number: int) -> PushReport:
        """Wait until an order is carried out."""
        await self._tasks[number]
        return self.reports[number - 1]

    async def stop(self) -> None:
        """Push no more."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _interfaces(self, order: PushOrder) -> list[Interface]:
        catalogue = self._catalogues.get(order.api)
        if catalogue is None:
            raise ValueError(f"api is one of {', '.join(APIS)}, not {order.api}")
        known = {i.name: i for i in catalogue.interfaces if i.use in USES and i.args <= _ARGS}
        for name in order.interfaces:
            if name not in known:
                raise ValueError(f"{name} is not pushed; of {order.api} these are: {', '.join(known)}")
        return [known[name] for name in order.interfaces] or [i for i in known.values() if i.use is Use.LIVE]

    def _subjects(self, order: PushOrder, interface: Interface) -> Iterator[str]:
        for plant in self._world:
            for serial in (plant.id, *(device.serial for device in plant.everything)):
                wanted = not order.devices or serial in order.devices
                if wanted and self._world.type_of(serial) in interface.of:
                    yield serial

    async def _follow(self, order: PushOrder, report: PushReport, interfaces: Sequence[Interface]) -> None:
        loop, begun = asyncio.get_running_loop(), 0
        late: list[Push] = []
        try:
            headers = {order.header: order.secret} if order.secret else {}
            async with transports(order.url, order.connections, order.timeout, headers) as senders:
                if order.rounds is None and self._world.upload_interval:
                    await self._as_uploaded(order, report, interfaces, senders)
                start = loop.time()
                while order.rounds is None or begun < order.rounds:
                    await asyncio.sleep(start + begun * order.interval - loop.time())
                    begun += 1
                    subjects = self._pairs(order, interfaces)
                    now, later = self._mix(order, await self._measure(order, report, subjects, begun))
                    await self._send(senders, order, report, now)
                    await self._send(senders, order, report, late)
                    late = later
                await self._send(senders, order, report, late)
        finally:
            report.under_way = False

    async def _as_uploaded(
        self, order: PushOrder, report: PushReport, interfaces: Sequence[Interface], senders: Sequence[Send]
    ) -> None:
        """Push all there is, and from then on each plant's as soon as the cloud has heard of it; until stopped."""
        plants: dict[str, list[Pair]] = {}
        for interface, serial in self._pairs(order, interfaces):
            spec = self._world.fleet.get(serial) or self._world.home(serial)
            if spec is not None:
                plants.setdefault(spec.id, []).append((interface, serial))
        now = self._world.physics.now()
        agenda = [(self._world.upload_after(self._world.fleet[plant], now), plant) for plant in plants]
        heapq.heapify(agenda)
        due, late, number = list(plants), list[Push](), 0
        while True:
            number += 1
            pairs = (pair for plant in due for pair in plants[plant])
            pushes, later = self._mix(order, await self._measure(order, report, pairs, number))
            await self._send(senders, order, report, pushes)
            await self._send(senders, order, report, late)
            late = later
            await asyncio.sleep(min(_LOOK, self._world.upload_interval / 10))
            now, due = self._world.physics.now(), []
            while agenda[0][0] <= now:
                plant = agenda[0][1]
                due.append(plant)
                heapq.heapreplace(agenda, (self._world.upload_after(self._world.fleet[plant], now), plant))

    def _pairs(self, order: PushOrder, interfaces: Sequence[Interface]) -> Iterator[Pair]:
        return ((interface, serial) for interface in interfaces for serial in self._subjects(order, interface))

    async def _measure(self, order: PushOrder, report: PushReport, pairs: Iterable[Pair], number: int) -> list[Push]:
        queries, first = self._queries[order.api], report.pushes
        pushes: list[Push] = []
        for interface, serial in pairs:
            if len(pushes) % _BREATH == 0:
                await asyncio.sleep(0)
            with self._clock.held():
                pushes.append(
                    Push(
                        order=report.order,
                        number=first + len(pushes) + 1,
                        round=number,
                        copy=False,
                        interface=interface.name,
                        serial=serial,
                        measured=self._clock.now(),
                        data=queries.answer(interface, self._args(serial)),
                    )
                )
        return pushes

    def _args(self, serial: str) -> Args:
        kind = "plant" if self._world.type_of(serial) == DeviceKind.PLANT else "serial"
        return {kind: serial, f"{kind}s": (serial,), "type": self._world.type_of(serial)}

    def _mix(self, order: PushOrder, pushes: list[Push]) -> tuple[list[Push], list[Push]]:
        """Return what is pushed now, and what comes after the next round."""
        now: list[tuple[float, Push]] = []
        late: list[tuple[float, Push]] = []
        for push in pushes:
            dice = derive(order.seed, push.interface, push.serial, str(push.round))
            place = unit(dice, 0)
            (late if unit(dice, 1) < order.disorder else now).append((place, push))
            if unit(dice, 2) < order.duplicates:
                now.append((place, _copy(push)))
            if unit(dice, 3) < order.echoes:
                late.append((unit(dice, 4), _copy(push)))
        return _placed(now), _placed(late)

    async def _send(
        self, senders: Sequence[Send], order: PushOrder, report: PushReport, pushes: Sequence[Push]
    ) -> None:
        report.pushes += len(pushes)
        waiting = iter(pushes)
        # Each takes the next one as soon as it has done with one, so that no slow answer holds up all.
        await asyncio.gather(*(self._sender(send, order, report, waiting) for send in senders[: len(pushes)]))

    async def _sender(self, send: Send, order: PushOrder, report: PushReport, waiting: Iterator[Push]) -> None:
        for push in waiting:
            self.pushes.append(push)
            body = self._body(push)
            for attempt in range(order.retries + 1):
                if attempt:
                    await asyncio.sleep(order.pause)
                push.attempts, push.sent = attempt + 1, self._clock.now()
                report.attempts += 1
                push.answer = await send(push.serial, body)
                if push.answer.startswith("2"):
                    push.acknowledged = self._clock.now()
                    report.acknowledged += 1
                    break
            else:
                report.given_up += 1

    def _body(self, push: Push) -> bytes:
        named = "plant_id" if push.serial in self._world.fleet else "sn"
        return msgspec.json.encode({"interface": push.interface, named: push.serial, "data": push.data})


def _copy(push: Push) -> Push:
    return msgspec.structs.replace(push, copy=True)


def _placed(pushes: list[tuple[float, Push]]) -> list[Push]:
    return [push for _, push in sorted(pushes, key=lambda placed: placed[0])]
