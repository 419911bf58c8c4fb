"""Tells the server what the device is, how it does, and what is measured at it and at the site.

Posted is the newest good state and nothing else: a stale value would be taken for one of now.
"""

from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from gateway.api.contexts import StatesContext
from gateway.bridges.csip.client import Client, ServerError
from gateway.bridges.csip.identity import made_mrid
from gateway.bridges.csip.resources import ENVELOPE_BITS, SUPPORTED_BITS
from gateway.bridges.csip.settings import CsipSettings
from gateway.bridges.csip.tree import POLL_RATE, Links
from gateway.bridges.csip.xml import PREFIX, Content, Element
from gateway.core.model import Device, DeviceKind, DeviceState, Quality

MIRROR: Final = 0x01
PREMISES: Final = 0x02
DER: Final = 0x08
SUBMETER: Final = 0x40
"""RoleFlagsType."""
AVERAGE: Final = 2
"""DataQualifierType. A state of SEMS stands for the time since the one before."""
FORWARD: Final = 1
"""FlowDirectionType: towards the customer, so > 0 imports and consumes."""
POWER_KIND: Final = 37
ELECTRICITY: Final = 0
IN_USE: Final = 1
INT16: Final = 32_767


class _Quantity(msgspec.Struct, frozen=True):
    """Something that is read at a place."""

    name: str
    points: tuple[str, ...]
    """The first that has a value counts."""
    unit: int
    """UomType."""
    sign: int = 1
    exponent: int = 0
    """The value is posted in units of ten to the power of this."""
    kind: DeviceKind | None = None
    """The only kind of device whose value it is; None for any."""


_SITE: Final = (
    _Quantity("site-W", ("grid_power",), 38),
    _Quantity("site-var", ("ac_reactive_power",), 63, -1, kind=DeviceKind.METER),
    _Quantity("site-V", ("l1_voltage",), 29, 1, -1),
)
_DER: Final = (
    _Quantity("der-W", ("ac_power", "power"), 38, -1),
    _Quantity("der-var", ("ac_reactive_power",), 63, -1),
    _Quantity("der-V", ("l1_voltage",), 29, 1, -1),
)
PLACES: Final = {"site": (MIRROR | PREMISES, _SITE), "der": (MIRROR | DER | SUBMETER, _DER)}
"""Usage point → its role flags and what is read there."""
_TYPES: Final = {
    DeviceKind.INVERTER: 4,
    DeviceKind.STORAGE: 83,
    DeviceKind.BATTERY: 80,
    DeviceKind.EV_CHARGER: 82,
}
"""DERType; 1 is virtual or mixed, for plants and fleets."""
_CHARGING, _DISCHARGING, _HOLDING = 0, 1, 2
"""StorageModeStatusType."""
STANDS_STILL: Final = 50.0
"""W below which a battery neither charges nor discharges."""
_CONNECTED, _AVAILABLE, _OPERATING, _FAULT = 0x01, 0x02, 0x04, 0x10
_STATUS: Final[Mapping[object, tuple[int, int, int]]] = {
    "normal": (_CONNECTED | _AVAILABLE | _OPERATING, 4, 2),
    "waiting": (_CONNECTED | _AVAILABLE, 8, 2),
    "fault": (_CONNECTED | _FAULT, 7, 2),
    "offline": (0, 1, 1),
}
"""`status` → bits of ConnectStatusType, InverterStatusType, OperationalModeStatusType."""


class _Ratings(msgspec.Struct, frozen=True):
    """What a device is rated for."""

    watts: float
    battery: float | None
    """W that its battery takes and gives at most."""
    capacity: float | None
    """Wh."""

    def content(self, prefix: str) -> list[Element]:
        """Return it in the order of the standard, but for what stands before and behind."""
        return [
            (f"{prefix}{name}", _scaled(value))
            for name, value in (
                ("MaxChargeRateW", self.battery),
                ("MaxDischargeRateW", self.battery),
                ("MaxVA", self.watts),
                ("MaxW", self.watts),
                ("MaxWh", self.capacity),
            )
            if value is not None
        ]


class Telemetry:
    """Of one device."""

    def __init__(self, settings: CsipSettings, context: StatesContext, client: Client, lfdi: str) -> None:
        self._settings = settings
        self._context = context
        self._client = client
        self._lfdi = lfdi
        self._told: dict[str, object] = {}
        """Href, or usage point → what was posted there last, or of when it was."""
        self._mirrors: dict[str, str] = {}
        """Usage point → where its readings are posted."""
        self._rates: dict[str, int | None] = {}
        """Usage point → seconds between posts, as the server has them."""
        self._capacity: float | None = None
        """Wh."""
        self._look = float("inf")
        """When the server is asked again how often it wants readings, on the loop's clock."""
        self.post_rate = float(settings.telemetry.post_rate)
        """Seconds until the next post."""
        self.posted = 0
        """Readings that were taken."""

    async def post(
        self, links: Links, device: Device, modes: Sequence[str], rated: float | None, offset: float
    ) -> None:
        """Post what has changed. What the server does not take keeps nothing else back, and comes again the next time.

        Raises the first ServerError.
        """
        rates = [rate for rate in (links.post_rate, *self._rates.values()) if rate]
        self.post_rate = float(min(rates, default=self._settings.telemetry.post_rate))
        trouble: ServerError | None = None
        for step in self._steps(links, device, modes, rated, offset):
            try:
                await step
            except ServerError as error:
                if not error.status:
                    raise  # it is away: it would be for the rest too
                trouble = trouble or error
        if trouble is not None:
            raise trouble

    def _steps(
        self, links: Links, device: Device, modes: Sequence[str], rated: float | None, offset: float
    ) -> Iterator[Awaitable[None]]:
        """Yield what is to be sent, one thing after another."""
        if links.connection_point and self._settings.connection_point:
            said = self._settings.connection_point
            inside: Content = [(f"{PREFIX}:connectionPointId", said)]
            yield self._put(links.connection_point, f"{PREFIX}:ConnectionPoint", inside, said)
        if not self._settings.telemetry.enabled:
            return
        now = round(self._context.clock.now().timestamp() + offset)
        der = self._good(self._settings.telemetry.der or device.serial)
        if rated:
            ratings = self._ratings(device, der, rated)
            key = (ratings, tuple(modes), device.kind)
            yield self._put(links.capability, "DERCapability", _capability(device, modes, ratings), key)
            yield self._put(links.settings, "DERSettings", _settings(modes, ratings, now), key)
        if der is not None:
            at = _seconds(der, offset)
            yield self._put(links.status, "DERStatus", _status(der, at), at)
            if isinstance(room := der.values.get("available_up"), int | float):
                available: Content = [("readingTime", at), ("statWAvail", _scaled(room))]
                yield self._put(links.availability, "DERAvailability", available, at)
        if links.mirrors:
            yield self._ask_rates()
            site = self._good(self._settings.telemetry.site or device.serial)
            for place, state in (("site", site), ("der", der)):
                if state is not None:
                    yield self._read(links.mirrors, place, state, offset)

    def _ratings(self, device: Device, der: DeviceState | None, rated: float) -> _Ratings:
        """Return what it is rated for. What it stores is known once it was measured, and stays so."""
        battery = device.setpoints.get("battery_power_target")
        capacity = der.values.get("battery_capacity") if der is not None else None
        if isinstance(capacity, int | float):
            self._capacity = capacity * 1000
        return _Ratings(rated, battery.high if battery is not None else None, self._capacity)

    async def _ask_rates(self) -> None:
        """Ask the server now and then how often it wants readings: it may think again, or have lost the usage point."""
        now = self._context.clock.monotonic()
        if now < self._look:
            return
        self._look = now + POLL_RATE
        for place, href in [*self._mirrors.items()]:
            try:
                self._rates[place] = (await self._client.get(href)).number("postRate")
            except ServerError as error:
                if error.status != 404:
                    raise
                del self._mirrors[place]

    def _good(self, serial: str) -> DeviceState | None:
        state = self._context.state(serial)
        return state if state is not None and state.quality is Quality.GOOD and state.time is not None else None

    async def _put(self, href: str, root: str, content: Content, key: object) -> None:
        """Put a resource, unless what makes it is what made it last."""
        if href and self._told.get(href) != key:
            await self._client.put(href, root, content)
            self._told[href] = key

    async def _read(self, mirrors: str, place: str, state: DeviceState, offset: float) -> None:
        """Post the readings of a usage point, unless they are those of last time."""
        roles, quantities = PLACES[place]
        readings = {each: value for each in quantities if (value := _value(each, state)) is not None}
        at = _seconds(state, offset)
        if not readings or self._told.get(place) == at:
            return
        rate = round(self.post_rate)
        meters: list[Element] = []
        for each, value in readings.items():
            period: Content = [("duration", rate), ("start", at - rate)]
            meters.append(
                (
                    "MirrorMeterReading",
                    [
                        ("mRID", self._mrid(each.name)),
                        ("description", each.name),
                        ("Reading", [("qualityFlags", "0000"), ("timePeriod", period), ("value", value)]),
                        ("ReadingType", _type(each, rate)),
                    ],
                )
            )
        names = {each.name for each in readings}
        if place not in self._mirrors or not names <= self._known(place):
            await self._mirror(mirrors, place, roles, meters, names)
        else:
            try:
                await self._client.post(self._mirrors[place], "MirrorMeterReadingList", meters)
            except ServerError as error:
                if error.status == 404:  # the server has lost it, or dropped it
                    del self._mirrors[place]
                raise
        self._told[place] = at
        self.posted += len(meters)

    def _known(self, place: str) -> set[str]:
        found = self._told.get(f"{place} names")
        return found if isinstance(found, set) else set()

    async def _mirror(self, mirrors: str, place: str, roles: int, meters: list[Element], names: set[str]) -> None:
        """Make a usage point, or know an older one again: its mRID is the same in every run."""
        content: Content = [
            ("mRID", self._mrid(place)),
            ("description", place),
            ("roleFlags", f"{roles:04X}"),
            ("serviceCategoryKind", ELECTRICITY),
            ("status", IN_USE),
            ("deviceLFDI", self._lfdi),
            *meters,
        ]
        location = await self._client.post(mirrors, "MirrorUsagePoint", content)
        if location:
            self._mirrors[place] = location
            self._told[f"{place} names"] = names
            self._look = self._context.clock.monotonic()
            await self._ask_rates()
            self.post_rate = float(min([rate for rate in self._rates.values() if rate], default=self.post_rate))

    def _mrid(self, what: str) -> str:
        return made_mrid(self._lfdi, what, self._settings.enterprise)


def _value(quantity: _Quantity, state: DeviceState) -> int | None:
    if quantity.kind not in {None, state.device.kind}:
        return None
    for point in quantity.points:
        value = state.values.get(point)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return round(quantity.sign * value * 10.0**-quantity.exponent)
    return None


def _seconds(state: DeviceState, offset: float) -> int:
    """Return the server's time of a state that has one."""
    return round(state.time.timestamp() + offset) if state.time is not None else 0


def _type(quantity: _Quantity, rate: int) -> Content:
    return [
        ("accumulationBehaviour", 12),  # instantaneous
        ("commodity", 1),  # electricity, secondary metered
        ("dataQualifier", AVERAGE),
        ("flowDirection", FORWARD),
        ("intervalLength", rate),
        ("kind", POWER_KIND),
        ("phase", 128 if quantity.unit == 29 else 0),  # L1 to neutral; none
        ("powerOfTenMultiplier", quantity.exponent),
        ("uom", quantity.unit),
    ]


def _scaled(value: float) -> Content:
    """Return a power in the 16 bits that there are for it."""
    exponent = 0
    while abs(round(value / 10**exponent)) > INT16:
        exponent += 1
    return [("multiplier", exponent), ("value", round(value / 10**exponent))]


def _bits(modes: Sequence[str], bits: Mapping[str, int]) -> int:
    return sum(1 << bits[mode] for mode in modes if mode in bits)


def _capability(device: Device, modes: Sequence[str], ratings: _Ratings) -> Content:
    return [
        ("modesSupported", f"{_bits(modes, SUPPORTED_BITS):08X}"),
        *ratings.content("rtg"),
        ("type", _TYPES.get(device.kind, 1)),
        (f"{PREFIX}:doeModesSupported", f"{_bits(modes, ENVELOPE_BITS):02X}"),
    ]


def _settings(modes: Sequence[str], ratings: _Ratings, now: int) -> Content:
    return [
        ("modesEnabled", f"{_bits(modes, SUPPORTED_BITS):08X}"),
        ("setGradW", 0),  # the inverter's own, which SEMS does not tell
        *ratings.content("set"),
        ("updatedTime", now),
        (f"{PREFIX}:doeModesEnabled", f"{_bits(modes, ENVELOPE_BITS):02X}"),
    ]


def _status(state: DeviceState, at: int) -> Content:
    values = state.values
    connected, inverter, mode = _STATUS.get(values.get("status"), (_CONNECTED, 0, 0))
    content: list[Element] = [
        ("genConnectStatus", [("dateTime", at), ("value", f"{connected:02X}")]),
        ("inverterStatus", [("dateTime", at), ("value", inverter)]),
        ("operationalModeStatus", [("dateTime", at), ("value", mode)]),
        ("readingTime", at),
    ]
    charge = values.get("battery_soc", values.get("soc"))
    if isinstance(charge, int | float):
        hundredths = min(10_000, max(0, round(charge * 100)))
        content.append(("stateOfChargeStatus", [("dateTime", at), ("value", hundredths)]))
        if isinstance(power := values.get("battery_power"), int | float):
            mode = _HOLDING if abs(power) < STANDS_STILL else _DISCHARGING if power > 0 else _CHARGING
            content.append(("storageModeStatus", [("dateTime", at), ("value", mode)]))
        content.append(("storConnectStatus", [("dateTime", at), ("value", f"{connected:02X}")]))
    return content
