"""`/sim/fleet…`: what a fleet really does and which of it fails, for a checker that shares no code with a gateway."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.simulator.cloud import Cloud
from gateway.simulator.controls import Writes
from gateway.simulator.faults import JSON
from gateway.simulator.flows import SOC_MIN
from gateway.simulator.shares import CONTRADICT, LATE, OFFLINE, REFUSE
from gateway.simulator.specs import PlantSpec

ALL: Final = "all"
SLICE: Final = 256
"""Times of one plant that are worked out at a time: calls are answered in between."""
BREATH: Final = 20
"""Plants of which the same is true."""
MOST_TIMES: Final = 100_000
LATELY: Final = 600.0
"""Seconds that are shown where the question says nothing."""


class Series(msgspec.Struct, kw_only=True):
    """The power of devices over time."""

    devices: int
    times: list[float]
    """POSIX seconds of the physics clock."""
    power: list[float]
    """W at the AC terminals, > 0 feeds in."""
    available: list[float]
    """W that their modules could give, were nothing limited; batteries not counted."""


class Question(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Whose power, and when."""

    devices: str | Sequence[str] = ALL
    """Serial numbers, or patterns as of a shell."""
    start: float | datetime | None = msgspec.field(name="from", default=None)
    """By the physics clock: a time, or POSIX seconds."""
    end: float | datetime | None = msgspec.field(name="to", default=None)
    step: float = 10.0
    """Seconds."""


class Truth:
    """The view behind one cloud of its inverters."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self.routes = [
            Route("/sim/fleet", self._fleet),
            Route("/sim/fleet/devices", self._devices),
            Route("/sim/fleet/writes", self._writes),
            Route("/sim/fleet/power", self._power, methods=["GET", "POST"]),
        ]

    async def power(self, serials: Sequence[str], times: Sequence[float]) -> Series:
        """Return the power of inverters together at ascending times, POSIX seconds of the physics clock.

        It is exact at each time, from when commands took effect. Raises KeyError for what is no inverter, and
        LookupError for times before the beginning, too long ago (over a day), or still to come.
        """
        self._cloud.tasks.settle()
        given, available = [0.0] * len(times), [0.0] * len(times)
        for plant, members in self._by_plant(serials):
            for first in range(0, len(times), SLICE):
                part = self._cloud.world.power(plant.id, members, times[first : first + SLICE])
                for n, power in enumerate(part, first):
                    given[n] += power.given
                    available[n] += power.available
                await asyncio.sleep(0)
        return Series(devices=len(serials), times=list(times), power=given, available=available)

    async def _power(self, request: Request) -> Response:
        """Show the power of `devices` at `from`, `from + step` … up to `to`."""
        try:
            asked: dict[str, str] | bytes = dict(request.query_params)
            question = (
                msgspec.json.decode(await request.body(), type=Question)
                if request.method == "POST"
                else msgspec.convert(asked, Question, strict=False)
            )
            if question.step <= 0:
                raise ValueError("step has to be more than 0")
            now = self._cloud.world.physics.now()
            end = _seconds(question.end, now)
            start = _seconds(question.start, max(end - LATELY, self._cloud.world.begun))
            count = int((end - start) / question.step + 1e-9) + 1
            if not 0 < count <= MOST_TIMES:
                raise ValueError(f"from, to and step have to come to 1 to {MOST_TIMES} times")
            times = [start + n * question.step for n in range(count)]
            return _json(await self.power(self._named(question.devices), times))
        except (ValueError, OverflowError, LookupError) as error:  # msgspec's are ValueErrors too
            raise HTTPException(400, str(error)) from None

    async def _fleet(self, _: Request) -> Response:
        """Show which inverters have which fault by a share, and where they lie."""
        cloud = self._cloud
        faults: dict[str, list[str]] = {fault: [] for fault in (OFFLINE, REFUSE, CONTRADICT, LATE)}
        for serial, fault in cloud.faulty.items():
            faults[fault].append(serial)
        regions = Counter(plant.region or plant.name for plant in cloud.world for _ in plant.devices)
        return _json(
            {
                "time": cloud.world.now,
                "begun": datetime.fromtimestamp(cloud.world.begun, UTC),
                "speed": cloud.world.physics.speed,
                "devices": len(cloud.world.inverters),
                "rated_power": sum(device.model.rated_power for plant in cloud.world for device in plant.devices),
                "regions": regions,
                "shares": cloud.shares,
                "faults": faults,
                "device_delay": cloud.tasks.delay,
                "owner_changes": cloud.tasks.owners.per_hour,
                "upload_interval": cloud.world.upload_interval,
            }
        )

    async def _devices(self, request: Request) -> Response:
        """Show inverters as they are now, also those that are offline."""
        serials = self._named(request.query_params.get("devices", ALL))
        return _json({"devices": [shown async for shown in self._shown(serials)]})

    async def _shown(self, serials: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
        cloud = self._cloud
        cloud.tasks.settle()
        for number, (plant, members) in enumerate(self._by_plant(serials)):
            if number % BREATH == 0:
                await asyncio.sleep(0)
            _, reports = cloud.world.true_reports(plant.id)
            now = cloud.world.physics.now()
            for serial in members:
                values, device = reports[serial].values, plant.devices[plant.by_serial[serial]]
                battery = device.model.battery
                yield {
                    "serial": serial,
                    "plant": plant.id,
                    "region": plant.region,
                    "kind": device.model.kind,
                    "rated_power": device.model.rated_power,
                    "power": values["ac_power"],
                    "available": cloud.world.power(plant.id, [serial], [now])[0].available,
                    "soc": values.get("battery_soc"),
                    "capacity": battery.capacity * (100 - SOC_MIN) / 100 if battery else None,
                    "setpoints": cloud.world.setpoints(serial),
                    "fault": cloud.faulty.get(serial),
                    "uploaded": datetime.fromtimestamp(cloud.world.uploaded(plant, now), UTC),
                }

    async def _writes(self, request: Request) -> Response:
        """Show how often each setpoint of each inverter was written; those that never were are left out."""
        cloud = self._cloud
        cloud.tasks.settle()
        written: dict[str, Mapping[str, Mapping[str, int]]] = {}
        for serial in self._named(request.query_params.get("devices", ALL)):
            plant, counters = cloud.world.home(serial), cloud.tasks.writes.get(serial)
            if counters and plant:
                today = cloud.world.now.astimezone(plant.zone).date()
                written[serial] = {name: _shown(writes, today=writes.day == today) for name, writes in counters.items()}
        each = [sum(count["today"] for count in counts.values()) for counts in written.values()]
        total = sum(count["total"] for counts in written.values() for count in counts.values())
        return _json({"writes": written, "total": total, "today": sum(each), "most_today": max(each, default=0)})

    def _named(self, devices: str | Sequence[str]) -> list[str]:
        """Return the inverters that are named; ValueError for a name of none."""
        inverters = self._cloud.world.inverters
        names = devices.split(",") if isinstance(devices, str) else devices
        if list(names) == [ALL]:
            return list(inverters)
        known, wanted = set(inverters), dict[str, None]()
        for name in names:
            found = [name] if name in known else [serial for serial in inverters if fnmatchcase(serial, name)]
            if not found:
                raise HTTPException(404, f"there is no inverter {name}")
            wanted.update(dict.fromkeys(found))
        return list(wanted)

    def _by_plant(self, serials: Sequence[str]) -> Iterator[tuple[PlantSpec, list[str]]]:
        plants: dict[str, list[str]] = {}
        for serial in serials:
            home = self._cloud.world.home(serial)
            if home is None or serial not in home.by_serial:
                raise KeyError(serial)
            plants.setdefault(home.id, []).append(serial)
        for plant_id, members in plants.items():
            yield self._cloud.world.fleet[plant_id], members


def _shown(writes: Writes, *, today: bool) -> dict[str, int]:
    return {"total": writes.total, "today": writes.today if today else 0}


def _seconds(moment: float | datetime | None, otherwise: float) -> float:
    if isinstance(moment, datetime):
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    return otherwise if moment is None else moment


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type=JSON)
