"""What GoodWe does not have: `/sim/…`, for demos and tests that look behind the cloud or break it."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.core.model import Value, iso
from gateway.simulator.cloud import Cloud
from gateway.simulator.controls import Obedience
from gateway.simulator.faults import JSON, FaultOrder
from gateway.simulator.pushes import Pusher, PushOrder
from gateway.simulator.specs import PlantSpec
from gateway.simulator.truth import Truth

SHOWN: Final = 100
"""Calls and controls shown where the question says nothing."""


class Admin:
    """The view behind one cloud. `app` serves the cloud's APIs too."""

    def __init__(self, cloud: Cloud, pusher: Pusher) -> None:
        self._cloud = cloud
        self._pusher = pusher
        self.truth = Truth(cloud)
        """What its inverters really do."""
        self._views = Starlette(
            routes=[
                Route("/sim/state", self._state),
                Route("/sim/calls", self._calls),
                Route("/sim/controls", self._controls),
                Route("/sim/faults", self._faults),
                Route("/sim/faults", self._spoil, methods=["POST"]),
                Route("/sim/pushes", self._pushes),
                Route("/sim/pushes", self._push, methods=["POST"]),
                *self.truth.routes,
            ],
            exception_handlers={HTTPException: _error},
        )

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as an ASGI application."""
        takers = (platform.serve for platform in self._cloud.platforms if platform.takes(scope["path"]))
        await next(takers, self._views)(scope, receive, send)

    async def _state(self, request: Request) -> Response:
        """Show everything as it is, also what is offline; `?plant=` shows one plant."""
        world, wanted = self._cloud.world, request.query_params.get("plant")
        if wanted is not None and wanted not in world.fleet:
            raise HTTPException(404, f"there is no plant {wanted}")
        plants = []
        for plant in world if wanted is None else [world.fleet[wanted]]:
            plants.append(self._plant(plant))
            await asyncio.sleep(0)  # A large fleet must not hold up calls.
        return _json({"time": iso(world.now), "speed": world.physics.speed, "plants": plants})

    def _plant(self, plant: PlantSpec) -> dict[str, Any]:
        self._cloud.tasks.settle()
        report, devices = self._cloud.world.true_reports(plant.id)
        return {
            "id": plant.id,
            "name": plant.name,
            "time_zone": plant.site.zone,
            "values": report.values,
            "devices": [
                {
                    "serial": device.serial,
                    "name": device.name,
                    "model": device.model.name,
                    "kind": device.model.kind,
                    "rated_power": device.model.rated_power,
                    **self._device(devices[device.serial].values, device.serial),
                }
                for device in plant.devices
            ],
            "accessories": [
                {
                    "serial": accessory.serial,
                    "name": accessory.name,
                    "model": accessory.model,
                    "type": accessory.type,
                    **self._device(devices[accessory.serial].values, accessory.serial),
                }
                for accessory in plant.accessories
            ],
            "alarms": self._cloud.world.alarms(plant.id),
        }

    def _device(self, values: Mapping[str, Value], serial: str) -> dict[str, Any]:
        return {
            "values": values,
            "setpoints": self._cloud.world.setpoints(serial),
            "dispatched": serial in self._cloud.tasks.dispatched,
            "faults": self._device_faults(serial),
        }

    def _device_faults(self, serial: str) -> dict[str, Any]:
        return {
            "offline": self._cloud.world.offline(serial),
            "tripped": self._cloud.world.tripped(serial),
            "obedience": self._cloud.tasks.obedience.get(serial, Obedience.OBEYS),
        }

    async def _calls(self, request: Request) -> Response:
        """Show the newest calls, oldest of them first: `?interface=` and `?api=` those of one, `?limit=` that many."""
        interface, api = request.query_params.get("interface"), request.query_params.get("api")
        calls = [call for call in self._cloud.calls if interface in {None, call.interface} and api in {None, call.api}]
        return _json({"calls": _newest(calls, request)})

    async def _controls(self, request: Request) -> Response:
        return _json({"controls": _newest(self._cloud.controls, request)})

    async def _faults(self, _: Request) -> Response:
        """Show what is wrong now, in the words of an order."""
        cloud = self._cloud
        ailing = sorted({*cloud.world.ailing, *cloud.tasks.obedience})
        return _json(
            {
                "devices": {serial: self._device_faults(serial) for serial in ailing},
                "answers": cloud.answer_faults.listed,
                "results": cloud.result_faults.listed,
                "answer_delay": cloud.answer_faults.delay,
                "device_delay": cloud.tasks.delay,
                "shares": cloud.shares,
                "owner_changes": cloud.tasks.owners.per_hour,
                "licence": cloud.grants.licensed,
                "unauthorised": sorted(cloud.grants.refused),
                "refuse_logins": all(platform.account.refuse_logins for platform in cloud.platforms),
            }
        )

    async def _spoil(self, request: Request) -> Response:
        try:
            order = msgspec.json.decode(await request.body(), type=FaultOrder)
            self._cloud.spoil(order)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise HTTPException(400, str(error)) from None
        except KeyError as error:
            raise HTTPException(404, f"there is no device {error.args[0]}") from None
        return await self._faults(request)

    async def _pushes(self, request: Request) -> Response:
        """Show how the orders do, and the newest pushes: `?order=` those of one, `?limit=` that many."""
        order, pusher = request.query_params.get("order"), self._pusher
        pushes = [push for push in pusher.pushes if order in {None, str(push.order)}]
        return _json({"orders": pusher.reports, "pushes": _newest(pushes, request)})

    async def _push(self, request: Request) -> Response:
        """Begin to push, as `PushOrder` has it."""
        try:
            report = self._pusher.begin(msgspec.json.decode(await request.body(), type=PushOrder))
        except ValueError as error:  # msgspec's are ValueErrors too
            raise HTTPException(400, str(error)) from None
        return _json({"order": report.order})


def _newest(entries: list[Any], request: Request) -> list[Any]:
    limit = request.query_params.get("limit", str(SHOWN))
    if not limit.isdecimal():
        raise HTTPException(400, "limit takes a whole number")
    return entries[-int(limit) :] if int(limit) else []


def _json(content: Mapping[str, Any], status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type=JSON)


async def _error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return _json({"error": error.detail}, error.status_code)
