"""The SEMS cloud over HTTP: interfaces, fields and codes as the catalogue has them."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.core.clock import Clock
from gateway.core.model import Value
from gateway.sems.catalogue import Catalogue, Interface, Json, load
from gateway.simulator.accounts import Accounts
from gateway.simulator.answers import Record, encode
from gateway.simulator.controls import Control, Obedience, Tasks
from gateway.simulator.faults import JSON, SPOILT, AnswerFault, DeviceFault, FaultOrder
from gateway.simulator.requests import Refusal, RefusedError, arguments, check_device, parse_body, refuse
from gateway.simulator.settings import SimulatorSettings
from gateway.simulator.specs import DeviceSpec, PlantSpec
from gateway.simulator.world import World

MAX_BODY: Final = 64 * 1024
MAX_DISCARDED: Final = 1024 * 1024
"""Bytes of a body too large that are read away, so that the client hears why."""
MAX_PAGE: Final = 100
MAX_REMEMBERED: Final = 4096
"""Bytes of a body whose fields are kept as evidence; there may be many."""

Args = Mapping[str, Value]
Data = dict[str, Json]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call that was made."""

    time: datetime
    """Wall clock, UTC."""
    account: str
    """Whose; empty for a call with no valid token."""
    interface: str
    """Its name in the catalogue; the path where there is none."""
    method: str
    params: Mapping[str, Json]
    """As sent, without passwords; empty for a body over 4 KiB."""
    code: str
    """What the envelope said, or the name of the fault that spoilt the answer."""


class Cloud:
    """One SEMS cloud over one world."""

    def __init__(
        self, world: World, settings: SimulatorSettings, clock: Clock, catalogue: Catalogue | None = None
    ) -> None:
        self.world = world
        self.catalogue = catalogue or load("open_api")
        self.calls: deque[Call] = deque(maxlen=settings.calls_remembered)
        """Newest last."""
        self.tasks = Tasks(world, clock, settings.device_delay, settings.calls_remembered)
        self.accounts = Accounts(settings, self.catalogue, clock)
        self.answer_faults: tuple[AnswerFault, ...] = ()
        self.answer_delay = 0.0
        self._settings = settings
        self._clock = clock
        self._plants = list(world)
        self._closing = asyncio.Event()
        self._queries: Mapping[str, Callable[[Interface, Args], Data]] = {
            "GetToken": self._token,
            "GetUserPlantList": self._plant_list,
            "GetPlantDetail": self._plant_detail,
            "GetInverterList": self._inverter_list,
            "GetInverterBySN": self._inverter,
            "GetControlResult": self._control_result,
        }

    @property
    def controls(self) -> list[Control]:
        """What devices have carried out, oldest first."""
        return self.tasks.controls

    def open(self) -> None:
        """Answer calls; delayed answers are delayed."""
        self._closing.clear()

    def close(self) -> None:
        """Let delayed answers go at once."""
        self._closing.set()

    def spoil(self, order: FaultOrder) -> None:
        """Make things go wrong, or well again. Raises KeyError for an unknown device, before anything is done."""
        for serial in order.devices:
            if self.world.device(serial) is None:
                raise KeyError(serial)
        self.tasks.settle()
        if order.clear:
            self._mend()
        for serial, fault in order.devices.items():
            self._spoil_device(serial, fault)
        if order.answers is not None:
            self.answer_faults = order.answers
        if order.answer_delay is not None:
            self.answer_delay = order.answer_delay
        if order.device_delay is not None:
            self.tasks.delay = order.device_delay
        if order.refuse_logins is not None:
            self.accounts.refuse_logins = order.refuse_logins
        if order.revoke_tokens:
            self.accounts.revoke()

    def _mend(self) -> None:
        self.answer_faults, self.answer_delay = (), 0.0
        self.tasks.delay = self._settings.device_delay
        self.accounts.refuse_logins = False
        for serial in self.world.ailing:
            self._spoil_device(serial, DeviceFault(offline=False, tripped=False))
        self.tasks.obedience.clear()

    def _spoil_device(self, serial: str, fault: DeviceFault) -> None:
        if fault.tripped is not None:
            self.world.trip(serial, tripped=fault.tripped)
        if fault.offline is not None:
            self.world.silence(serial, offline=fault.offline)
        if fault.obedience is Obedience.OBEYS:
            self.tasks.obedience.pop(serial, None)
        elif fault.obedience is not None:
            self.tasks.obedience[serial] = fault.obedience

    # The way of a call

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call, as an ASGI application that is mounted at the catalogue's base."""
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = request.url.path.removeprefix(self.catalogue.base)
        takers = [interface for interface in self.catalogue.interfaces if interface.path == path]
        interface = next((taker for taker in takers if taker.method == request.method), None)
        name = interface.name if interface else path
        fault = next((fault for fault in self.answer_faults if fault.concerns(name)), None)
        code = self._styled(interface, self.catalogue.success[0])
        token = request.headers.get("token", "")
        account = self.accounts.owner(token)
        body, params, data = b"", dict[str, Json](), Data()
        try:
            body = await _body(request)
            if interface is None:
                raise _no_interface(path, request.method, known=bool(takers))
            params = dict(request.query_params) if interface.method == "GET" else parse_body(body)
            if fault is None or fault.executed:
                data = self._execute(interface, params, token)
            response = _envelope(code, "success", data)
        except RefusedError as error:
            code = self._styled(interface, error.code)
            response = _envelope(code, error.text, None, error.status, error.headers)
        self.calls.append(
            Call(
                time=self._clock.now(),
                account=account or self.accounts.owner(str(data.get("token"))),
                interface=name,
                method=request.method,
                params=_shown(interface, params) if len(body) <= MAX_REMEMBERED else {},
                code=fault.answer if fault else str(code),
            )
        )
        await self._delay()
        return SPOILT[fault.answer](bytes(response.body), self.catalogue) if fault else response

    def _execute(self, interface: Interface, params: Mapping[str, Json], token: str) -> Data:
        if interface.form != "session":
            self.accounts.enter(token)
        args = arguments(interface, params)
        self.tasks.settle()
        if interface.setpoints:
            return self._control(interface, args)
        query = self._queries.get(interface.name)
        if query is None:
            raise refuse(Refusal.NOT_SUPPORTED, f"the simulator has no {interface.name}")
        return query(interface, args)

    def _styled(self, interface: Interface | None, code: str) -> str | int:
        """Every third interface gives its code as text, as some of the real ones do."""
        number = self.catalogue.interfaces.index(interface) if interface else 0
        return code if number % 3 == 2 or not code.isdigit() else int(code)

    async def _delay(self) -> None:
        if not self.answer_delay:
            return
        try:
            async with asyncio.timeout(self.answer_delay):
                await self._closing.wait()
        except TimeoutError:
            pass

    # The interfaces

    def _token(self, interface: Interface, args: Args) -> Data:
        token = self.accounts.log_in(args["account"], args["password_md5"])
        return {row.field: token for row in interface.response}

    def _plant_list(self, interface: Interface, args: Args) -> Data:
        page, size = int(args["page"] or 0), int(args["page_size"] or 0)
        if page < 1 or not 1 <= size <= MAX_PAGE:
            raise refuse(Refusal.BAD_PARAMETER, f"pages count from 1 and hold 1 to {MAX_PAGE} plants")
        shown = self._plants[(page - 1) * size : page * size]
        return _listed(interface, [_plant_record(plant) for plant in shown])

    def _plant_detail(self, interface: Interface, args: Args) -> Data:
        plant = self._find_plant(args["plant"])
        report = self.world.plant_report(plant.id)
        return encode(interface, _plant_record(plant, report.time, report.values))

    def _inverter_list(self, interface: Interface, args: Args) -> Data:
        plant = self._find_plant(args["plant"])
        return _listed(interface, [_device_record(plant, device) for device in plant.devices])

    def _inverter(self, interface: Interface, args: Args) -> Data:
        plant, device = self._find_device(args["serial"])
        report = self.world.device_report(device.serial)
        return encode(interface, _device_record(plant, device, report.time, report.values))

    def _control(self, interface: Interface, args: Args) -> Data:
        plant, device = self._find_device(args["serial"])
        check_device(interface, device, args)
        task = self.tasks.accept(device.serial, {setpoint: args[setpoint] for setpoint in interface.setpoints})
        return encode(interface, Record(device.serial, plant.zone, {"receipt": task.receipt}))

    def _control_result(self, interface: Interface, args: Args) -> Data:
        task = self.tasks.find(str(args["receipt"]))
        if task is None:
            raise refuse(Refusal.NOT_FOUND, "there is no such task")
        plant, device = self._find_device(task.serial)
        said: dict[str, Value | datetime] = {"receipt": task.receipt, "state": task.state, "detail": task.detail}
        return encode(interface, Record(device.serial, plant.zone, said))

    def _find_plant(self, plant_id: Value) -> PlantSpec:
        plant = self.world.fleet.get(str(plant_id))
        if plant is None:
            raise refuse(Refusal.NOT_FOUND, "there is no such plant in this account")
        return plant

    def _find_device(self, serial: Value) -> tuple[PlantSpec, DeviceSpec]:
        plant, device = self.world.home(str(serial)), self.world.device(str(serial))
        if plant is None or device is None:
            raise refuse(Refusal.NOT_FOUND, "there is no such device in this account")
        return plant, device


def _plant_record(plant: PlantSpec, time: datetime | None = None, values: Args | None = None) -> Record:
    attributes: dict[str, Value | datetime] = {
        "serial": plant.id,
        "name": plant.name,
        "time_zone": plant.site.zone,
        "time": time,
    }
    return Record(plant.id, plant.zone, attributes, values or {})


def _device_record(
    plant: PlantSpec, device: DeviceSpec, time: datetime | None = None, values: Args | None = None
) -> Record:
    model = device.model
    attributes: dict[str, Value | datetime] = {
        "serial": device.serial,
        "name": device.name,
        "model": model.name,
        "kind": model.kind,
        "rated_power": model.rated_power,
        "battery_power_max": model.battery.max_power if model.battery else None,
        "time": time,
    }
    return Record(device.serial, plant.zone, attributes, values or {})


def _envelope(
    code: str | int, text: str, data: Json, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(msgspec.json.encode({"code": code, "msg": text, "data": data}), status, headers, JSON)


def _shown(interface: Interface | None, params: Mapping[str, Json]) -> Data:
    secret = {row.field for row in interface.request if row.arg == "password_md5"} if interface else set()
    return {field: value for field, value in params.items() if field not in secret}


def _listed(interface: Interface, records: list[Record]) -> Data:
    return {interface.list: [encode(interface, record) for record in records]}


def _no_interface(path: str, method: str, *, known: bool) -> RefusedError:
    if known:
        return refuse(Refusal.WRONG_METHOD, f"{path} does not take {method}")
    return refuse(Refusal.NO_INTERFACE, "there is no such interface", 404)


async def _body(request: Request) -> bytes:
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MAX_BODY:
            body += chunk
        elif size > MAX_DISCARDED:
            break
    if size > MAX_BODY:
        refusal = refuse(Refusal.BODY_TOO_LARGE, f"the body has more than {MAX_BODY} bytes")
        refusal.headers = {"Connection": "close"}  # or the server would read on
        raise refusal
    return bytes(body)
