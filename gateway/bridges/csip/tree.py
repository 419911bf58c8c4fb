"""Walks a server's resources from its DeviceCapability, and reads each as often as the server says."""

from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from gateway.bridges.csip import xml
from gateway.bridges.csip.client import Client, ServerError
from gateway.bridges.csip.identity import sfdi_of
from gateway.bridges.csip.resources import Program, control_of, modes_of, mrid_of, time_of
from gateway.bridges.csip.settings import CsipSettings
from gateway.core.clock import Clock
from gateway.core.errors import GatewayError

POLL_RATE: Final = 900.0
"""Seconds between two reads of a resource, where the server says nothing: 2030.5's own default."""
LONGEST: Final = 86_400.0
MAX_PROGRAMS: Final = 100


class NotOursError(GatewayError):
    """The server works, and does not know this device as ours. The text says what to do."""


class Links(msgspec.Struct, frozen=True, kw_only=True):
    """Where things are to be put or posted; "" where the server has no such thing."""

    capability: str = ""
    settings: str = ""
    status: str = ""
    availability: str = ""
    mirrors: str = ""
    connection_point: str = ""
    post_rate: int | None = None
    """Seconds, as the EndDevice has it."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a walk has found."""

    programs: tuple[Program, ...]
    links: Links
    offset: float
    """Seconds by which the server's clock is ahead of ours."""


class _Read(msgspec.Struct):
    """A resource that was read."""

    node: xml.Node
    due: float
    """When it is to be read again, on the loop's clock."""


class Tree:
    """One server's resources, as far as they concern one EndDevice."""

    def __init__(
        self, settings: CsipSettings, client: Client, lfdi: str, clock: Clock, passed_over: Callable[[str, str], None]
    ) -> None:
        """`passed_over` is told the href and why, of what can't be used and keeps nothing else from being used."""
        self._settings = settings
        self._client = client
        self._lfdi = lfdi
        self._clock = clock
        self._passed_over = passed_over
        self._read: dict[str, _Read] = {}
        self._used: set[str] = set()
        self._offset = 0.0

    async def walk(self) -> Found:
        """Read what is due. Raises ServerError, or NotOursError."""
        self._used.clear()
        try:
            root = await self._get(self._settings.url)
            await self._time(root.href("TimeLink"))
            device = await self._end_device(root)
            await self._check_pin(device)
            programs = [program async for program in self._programs(root, device)]
            links = await self._links(root, device)
        except xml.BadXmlError as error:
            raise ServerError(f"what the server says can't be used: {error}") from None
        self._read = {href: read for href, read in self._read.items() if href in self._used}
        return Found(programs=tuple(programs), links=links, offset=self._offset)

    def forget(self) -> None:
        """Read everything anew at the next walk."""
        self._read.clear()

    @property
    def due_in(self) -> float:
        """Seconds until something is to be read again."""
        now = self._clock.monotonic()
        return max(0.0, min((read.due - now for read in self._read.values()), default=0.0))

    async def _get(
        self, href: str, *, is_list: bool = False, rate: float = POLL_RATE, may_be_missing: bool = False
    ) -> xml.Node:
        """Return a resource, as it was read last where it is not due. `rate` is where it has no pollRate of its own.

        One that may be missing is empty where the server answers 404.
        """
        self._used.add(href)
        known = self._read.get(href)
        if known is not None and self._clock.monotonic() < known.due:
            return known.node
        try:
            node = await (self._client.get_list(href) if is_list else self._client.get(href))
        except ServerError as error:
            if not may_be_missing or error.status != 404:
                raise
            node = xml.Node("", {})
        said = node.attributes.get("pollRate", "")
        seconds = float(xml.whole(said, "pollRate")) if said else rate
        seconds = min(LONGEST, max(self._settings.poll_least, seconds))
        self._read[href] = _Read(node, self._clock.monotonic() + seconds)
        return node

    def _rate(self, href: str) -> float:
        """Return how often a list is read, for what hangs on it and has no pollRate of its own."""
        return max(self._settings.poll_least, self._read[href].due - self._clock.monotonic())

    async def _time(self, href: str) -> None:
        if not href:
            self._offset = 0.0
            return
        before, begun = self._clock.now().timestamp(), self._read.get(href)
        node = await self._get(href)
        if begun is not None and self._read[href] is begun:
            return
        after = self._clock.now().timestamp()
        self._offset = time_of(node.needed("currentTime")) - (before + after) / 2

    async def _end_device(self, root: xml.Node) -> xml.Node:
        href = root.href("EndDeviceListLink")
        if not href:
            raise NotOursError(
                "the server's DeviceCapability has no EndDeviceListLink: it does not know our certificate"
            )
        listed = await self._get(href, is_list=True)
        if (device := self._ours(listed)) is None and self._settings.register_device:
            await self._register(href)
            self._read.pop(href, None)
            device = self._ours(await self._get(href, is_list=True))
        if device is None:
            raise NotOursError(
                f"the server has no EndDevice with the LFDI {self._lfdi} (SFDI {sfdi_of(self._lfdi)}); "
                "give the utility these, or set register_device: true where it takes registrations"
            )
        return device

    def _ours(self, listed: xml.Node) -> xml.Node | None:
        return next((each for each in listed.all("EndDevice") if each.string("lFDI").upper() == self._lfdi), None)

    async def _register(self, href: str) -> None:
        """Make our EndDevice."""
        content: xml.Content = [
            ("lFDI", self._lfdi),
            ("sFDI", sfdi_of(self._lfdi)),
            ("changedTime", round(self._clock.now().timestamp() + self._offset)),
        ]
        await self._client.post(href, "EndDevice", content)

    async def _check_pin(self, device: xml.Node) -> None:
        pin, href = self._settings.pin, device.href("RegistrationLink")
        if pin is None:
            return
        said = (await self._get(href)).number("pIN") if href else None
        if said != pin:
            # The PIN tells the right server from another. Theirs is not shown: logs are read by many.
            raise NotOursError(
                "the server's registration has another PIN than pin, or none: it may be the wrong server, or the "
                "wrong EndDevice; nothing is taken from it"
            )

    async def _programs(self, root: xml.Node, device: xml.Node) -> AsyncIterator[Program]:
        """Yield the programs of all assignments, each once."""
        href = device.href("FunctionSetAssignmentsListLink")
        if href:
            assignments = await self._get(href, is_list=True)
            lists = [each.href("DERProgramListLink") for each in assignments.all("FunctionSetAssignments")]
        else:
            lists = [root.href("DERProgramListLink")]
        seen: set[str] = set()
        for each in filter(None, dict.fromkeys(lists)):
            listed = await self._get(each, is_list=True)
            for node in listed.all("DERProgram"):
                mrid = mrid_of(node)
                if mrid in seen:
                    continue
                seen.add(mrid)
                if len(seen) > MAX_PROGRAMS:
                    raise ServerError(f"there are more than {MAX_PROGRAMS} programs")
                yield await self._program(node, mrid, self._rate(each))

    async def _program(self, node: xml.Node, mrid: str, rate: float) -> Program:
        href = node.href("DefaultDERControlLink")
        default = await self._get(href, rate=rate, may_be_missing=True) if href else None
        href = node.href("DERControlListLink")
        listed = await self._get(href, is_list=True, rate=rate) if href else None
        try:
            modes = modes_of(default.one("DERControlBase")) if default is not None else {}
        except xml.BadXmlError as error:
            modes = {}
            self._passed_over(mrid, f"its DefaultDERControl can't be used: {error}")
        controls = []
        for each in listed.all("DERControl") if listed is not None else ():
            try:
                controls.append(control_of(each))
            except xml.BadXmlError as error:
                self._passed_over(mrid, f"an event can't be used: {error}")
        return Program(mrid=mrid, primacy=node.number("primacy") or 0, default=modes, controls=tuple(controls))

    async def _links(self, root: xml.Node, device: xml.Node) -> Links:
        href, der = device.href("DERListLink"), None
        try:
            der = (await self._get(href, is_list=True)).one("DER") if href else None
        except ServerError as error:
            if not error.status:
                raise
            self._passed_over(href, f"what the device is can't be told: {error}")  # events are followed all the same
        found = {
            "mirrors": root.href("MirrorUsagePointListLink"),
            "connection_point": device.href("ConnectionPointLink"),
        }
        if der is not None:
            for name in ("Capability", "Settings", "Status", "Availability"):
                found[name.lower()] = der.href(f"DER{name}Link")
        return Links(post_rate=device.number("postRate"), **found)
