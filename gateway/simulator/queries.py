"""What the interfaces do, by their use. None has a function of its own: type of device and arguments say the rest."""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from gateway.core.model import Alarm, Value
from gateway.sems.catalogue import ORDERED, Catalogue, Interface, Json, Use
from gateway.simulator.answers import Attributes, Encoder, Record
from gateway.simulator.controls import RELEASED, Order, Task, Tasks, Window
from gateway.simulator.requests import Args, Refusal, RefusedError, arguments, check_device, serial_in
from gateway.simulator.specs import AccessorySpec, DeviceSpec, PlantSpec
from gateway.simulator.world import Report, World

MAX_PAGE: Final = 100
MAX_DAYS: Final = {"day": 1, "month": 32, "year": 366}
"""Span of a series → days that one call may ask for, where it names both ends."""
PLANT: Final = "plant"


class Thing(NamedTuple):
    """What a call is about: a device, or a plant."""

    serial: str
    type: str
    home: PlantSpec
    device: DeviceSpec | AccessorySpec | None
    """None for a plant."""


class Queries:
    """Answers the calls of one API."""

    def __init__(self, world: World, tasks: Tasks, catalogue: Catalogue) -> None:
        self._world = world
        self._tasks = tasks
        self._catalogue = catalogue
        self._plants = list(world)
        self._encoders = {interface.name: Encoder(interface) for interface in catalogue.interfaces}
        self._uses: Final[Mapping[Use, Callable[[Interface, Args], Json]]] = {
            Use.PLANTS: self._plant_list,
            Use.DETAIL: self._detail,
            Use.DEVICES: self._devices,
            Use.LIVE: self._live,
            Use.ALARMS: self._alarms,
            Use.SERIES: self._series,
            Use.CONTROL: self._control,
            Use.DISPATCH: self._control,
            Use.PARAMETERS_TASK: self._control,
            Use.PARAMETERS: self._parameters,
            Use.RESULT: self._result,
        }

    def answer(self, interface: Interface, args: Args) -> Json:
        """Return `data` of the answer to a call. Raises RefusedError."""
        self._tasks.settle()
        return self._uses[interface.use](interface, args)

    def answer_each(self, interface: Interface, each: Sequence[Mapping[str, Json]]) -> Json:
        """Take orders for several devices by one call; return `data` of its answer.

        What is refused of one of them is its result. Raises RefusedError where all are.
        """
        self._tasks.settle()
        orders: list[tuple[Order, str]] = []
        errors = []
        for fields in each:
            try:
                orders.append((self.order(interface, arguments(interface, fields)), ""))
            except RefusedError as error:
                errors.append(error)
                orders.append((Order(serial=serial_in(interface, fields), api=self._catalogue.api), error.text))
        if len(errors) == len(orders):
            raise errors[0]
        receipt = uuid.uuid4().hex
        tasks = [self._tasks.accept(order, receipt, refused) for order, refused in orders]
        return self._encoders[interface.name].answer([self._result_of(tasks[0])])

    # Reading

    def _plant_list(self, interface: Interface, args: Args) -> Json:
        shown = self._plants[page_of(args)]
        return self._encoders[interface.name].answer([record_of(_plant(plant)) for plant in shown])

    def _detail(self, interface: Interface, args: Args) -> Json:
        return self._encoders[interface.name].answer([self._reported(thing) for thing in self._things(interface, args)])

    def _devices(self, interface: Interface, args: Args) -> Json:
        named = list(self._things(interface, args))
        plants = [thing for thing in named if thing.device is None]
        things = [thing for thing in named if thing.device is not None]
        members = (_device(plant.home, device) for plant in plants for device in plant.home.everything)
        things += [member for member in members if member.type in interface.of]
        live = interface.covers or (interface.of if interface.points else ())
        records = [self._reported(thing) if thing.type in live else record_of(thing) for thing in things]
        return self._encoders[interface.name].answer(records, plants=[record_of(plant) for plant in plants])

    def _live(self, interface: Interface, args: Args) -> Json:
        things = list(self._things(interface, args))
        if interface.covers:
            things += [below for thing in things for below in _below(thing) if below.type in interface.covers]
        return self._encoders[interface.name].answer([self._reported(thing) for thing in things])

    def _alarms(self, interface: Interface, args: Args) -> Json:
        records = [
            alarm_record(alarm, thing.home.zone)
            for thing in self._things(interface, args)
            for alarm in self._world.alarms(thing.serial)
        ]
        return self._encoders[interface.name].answer(records)

    def _series(self, interface: Interface, args: Args) -> Json:
        [thing] = self._things(interface, args)
        start, end = _span(interface, args, thing.home.zone)
        samples = self._world.series(thing.serial, start, end, interface.step or "minutes")
        records = [
            Record(thing.serial, thing.home.zone, {"serial": thing.serial, "time": sample.time}, sample.values)
            for sample in samples
        ]
        return self._encoders[interface.name].answer(records, thing.serial)

    # Control

    def _control(self, interface: Interface, args: Args) -> Json:
        return self._encoders[interface.name].answer([self._result_of(self._tasks.accept(self.order(interface, args)))])

    def order(self, interface: Interface, args: Args) -> Order:
        """Return what a call for control orders. Raises RefusedError."""
        [thing] = self._things(interface, args)
        setpoints = {name: _value(args[name]) for name in interface.setpoints if name in args}
        if args.get(ORDERED) == "false":
            setpoints = dict(RELEASED)
        check_device(interface, self._world.device(thing.serial), args)
        dispatches = any(name.startswith("battery_") for name in setpoints)
        return Order(
            serial=thing.serial,
            api=self._catalogue.api,
            use=interface.use,
            setpoints=setpoints,
            window=_window(args),
            needs_dispatch=dispatches and any(self._catalogue.using(Use.DISPATCH)),
        )

    def _result(self, interface: Interface, args: Args) -> Json:
        return self._encoders[interface.name].answer([self._result_of(task) for task in self._found(args)])

    def _parameters(self, interface: Interface, args: Args) -> Json:
        if "receipt" in args:
            task = self._found(args)[0]
            if task.order.use is not Use.PARAMETERS_TASK:
                raise RefusedError(Refusal.NOT_FOUND, "there is no such task")
            record = self._result_of(task)
            values = self._settable(task.order.serial, task.found) if task.found else {}
            return self._encoders[interface.name].answer([record._replace(values=values)])
        [thing] = self._things(interface, args)
        values = self._settable(thing.serial, self._world.setpoints(thing.serial).said())
        return self._encoders[interface.name].answer([record_of(thing)._replace(values=values)])

    def _settable(self, serial: str, setpoints: Mapping[str, Value]) -> dict[str, Value]:
        """Return those of the setpoints that such a device takes."""
        type_ = self._world.type_of(serial)
        taken = {name for control in self._catalogue.using(Use.CONTROL, type_) for name in control.setpoints}
        return {name: value for name, value in setpoints.items() if name in taken}

    def _result_of(self, task: Task) -> Record:
        home = self._world.home(task.order.serial)
        serial, state = task.order.serial, task.state.value
        said: Attributes = {"serial": serial, "receipt": task.receipt, "state": state, "detail": task.detail}
        return Record(serial, home.zone if home else ZoneInfo("UTC"), said)

    def _found(self, args: Args) -> list[Task]:
        tasks = self._tasks.find(str(args["receipt"]))
        if not tasks:
            raise RefusedError(Refusal.NOT_FOUND, "there is no such task")
        return tasks

    # What a call is about

    def _things(self, interface: Interface, args: Args) -> Iterator[Thing]:
        """Yield what the arguments name. Raises RefusedError for a single one that is not there or not for this.

        Of several, those are left out.
        """
        if PLANT in args:
            plant = self._world.fleet.get(str(args[PLANT]))
            if plant is None:
                raise RefusedError(Refusal.NOT_FOUND, "there is no such plant in this account")
            yield _plant(plant)
        elif "serial" in args:
            yield self._find(interface, args["serial"])
        elif "plants" in args:
            fleet = self._world.fleet
            yield from (_plant(fleet[plant_id]) for plant_id in texts_of(args["plants"]) if plant_id in fleet)
        elif "serials" in args:
            wanted = (str(args["type"]),) if "type" in args else interface.of
            named = (self._thing(serial) for serial in texts_of(args["serials"]))
            yield from (thing for thing in named if thing is not None and thing.type in wanted)

    def _find(self, interface: Interface, serial: object) -> Thing:
        thing = self._thing(str(serial))
        if thing is None:
            raise RefusedError(Refusal.NOT_FOUND, "there is no such device in this account")
        if thing.type not in interface.of:
            types = " or ".join(interface.of)
            raise RefusedError(Refusal.NOT_SUPPORTED, f"{interface.name} is for {types}, not {thing.type}")
        return thing

    def _thing(self, serial: str) -> Thing | None:
        home = self._world.home(serial)
        device = self._world.device(serial) or self._world.accessory(serial)
        return _device(home, device) if home and device else None

    def _reported(self, thing: Thing) -> Record:
        return record_of(thing, self._world.report(thing.serial))


def _plant(plant: PlantSpec) -> Thing:
    return Thing(plant.id, PLANT, plant, None)


def _device(home: PlantSpec, device: DeviceSpec | AccessorySpec) -> Thing:
    type_ = device.type if isinstance(device, AccessorySpec) else device.model.kind.value
    return Thing(device.serial, type_, home, device)


def _below(thing: Thing) -> Iterator[Thing]:
    """Yield what a data logger reads."""
    return (_device(thing.home, accessory) for accessory in thing.home.accessories if accessory.at == thing.serial)


def record_of(thing: Thing, report: Report | None = None) -> Record:
    """Return what is to be said of a thing; with a report, what it measures too."""
    attributes = dict(_attributes(thing))
    values: Mapping[str, Value] = {}
    if report is not None:
        attributes["time"] = report.time
        values = report.values
    return Record(thing.serial, thing.home.zone, attributes, values)


def _attributes(thing: Thing) -> Attributes:
    device = thing.device
    common: Attributes = {"serial": thing.serial, "type": thing.type, "plant": thing.home.id}
    if device is None:
        return {**common, "name": thing.home.name, "time_zone": thing.home.site.zone}
    if isinstance(device, AccessorySpec):
        return {**common, "name": device.name, "model": device.model, "rated_power": device.rated_power}
    model = device.model
    return {
        **common,
        "name": device.name,
        "model": model.name,
        "rated_power": model.rated_power,
        "battery_power_max": model.battery.max_power if model.battery else None,
    }


def alarm_record(alarm: Alarm, zone: ZoneInfo) -> Record:
    """Return what is to be said of an alarm."""
    attributes: Attributes = {
        "serial": alarm.serial,
        "alarm": alarm.id,
        "code": alarm.code,
        "text": alarm.text,
        "severity": alarm.severity.value,
        "raised": alarm.raised,
        "cleared": alarm.cleared,
    }
    return Record(alarm.serial, zone, attributes)


def _span(interface: Interface, args: Args, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the time a series call is about: that around `day`, or from `start` to `end`, both days included."""
    if "day" in args:
        first = _midnight(args["day"])
        if interface.span != "day":
            first = first.replace(day=1, month=first.month if interface.span == "month" else 1)
        length = {"day": 1, "month": 31, "year": 366}[interface.span]
        last = first + timedelta(days=length)
        last = last if interface.span == "day" else last.replace(day=1)
    else:
        first, last = _midnight(args["start"]), _midnight(args["end"]) + timedelta(days=1)
    if not timedelta() < last - first <= timedelta(days=MAX_DAYS[interface.span]):
        raise RefusedError(Refusal.BAD_PARAMETER, f"one call takes a {interface.span} at most, from start to end")
    return first.replace(tzinfo=zone).astimezone(UTC), last.replace(tzinfo=zone).astimezone(UTC)


def _midnight(moment: object) -> datetime:
    if not isinstance(moment, datetime) or not MINYEAR < moment.year < MAXYEAR:
        raise RefusedError(Refusal.BAD_PARAMETER, "that is no day this cloud knows of")
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _window(args: Args) -> Window | None:
    if "begins" not in args:
        return None
    window = Window(_whole(args["begins"]), _whole(args["ends"]))
    if window.ends <= window.begins:
        raise RefusedError(Refusal.BAD_PARAMETER, "the end is not after the start")
    return window


def _value(argument: object) -> Value:
    if argument is None or isinstance(argument, (bool, int, float, str)):
        return argument
    raise TypeError(argument)


def page_of(args: Args) -> slice:
    """Return which entries a page has. Raises RefusedError."""
    page, size = _whole(args["page"]), _whole(args["page_size"])
    if page < 1 or not 1 <= size <= MAX_PAGE:
        raise RefusedError(Refusal.BAD_PARAMETER, f"pages count from 1 and hold 1 to {MAX_PAGE} entries")
    return slice((page - 1) * size, page * size)


def _whole(argument: object) -> int:
    return argument if isinstance(argument, int) else 0


def texts_of(argument: object) -> tuple[str, ...]:
    """Return an argument that is a list of texts."""
    return argument if isinstance(argument, tuple) else ()
