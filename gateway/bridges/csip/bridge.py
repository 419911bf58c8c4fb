"""The bridge: one EndDevice of a 2030.5 server, and the device of ours that stands behind it."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import ClassVar, Final
from urllib.parse import urlsplit

from gateway.api.bridge import BridgeSettings, Context
from gateway.bridges.csip import events
from gateway.bridges.csip.client import Client, ServerError
from gateway.bridges.csip.identity import draws_of, lfdi_of, out_of_date, sfdi_of
from gateway.bridges.csip.mapping import setpoints_for, wishes
from gateway.bridges.csip.memory import Memory, MemoryFile
from gateway.bridges.csip.settings import CsipSettings
from gateway.bridges.csip.steering import Steering
from gateway.bridges.csip.telemetry import Telemetry
from gateway.bridges.csip.tree import Links, NotOursError, Tree
from gateway.bridges.csip.xml import Element
from gateway.core.clock import set_within
from gateway.core.mailbox import Updates
from gateway.core.model import Device, Origin
from gateway.core.probe import Mark, Probe
from gateway.core.rare_log import RareLog

LOOK: Final = 1.0
"""Seconds between looks at what is in force."""
SAVE: Final = 5.0
"""Seconds between looks whether there is something to keep."""
AGAIN: Final = 5.0
"""Seconds until a server that failed is asked again; doubled each time, and drawn from the upper half."""
AGAIN_MOST: Final = 300.0
ONE_GO: Final = 0.2
"""Seconds between two walks at least."""


class CsipBridge:
    """Origin of what a utility asks for, and sink of what it wants to know."""

    Settings: ClassVar[type[BridgeSettings]] = CsipSettings

    def __init__(self, settings: CsipSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        host = urlsplit(settings.url).hostname or ""
        self._origin = Origin.of(context.name, detail=host)
        self._file = MemoryFile(context)
        self._memory = Memory()
        self._steering = Steering(settings, context, self._origin, self._carried)
        self._log = RareLog(context.log)
        self._client: Client | None = None
        self._links: Links | None = None
        self._lfdi = ""
        self._modes: list[str] = []
        """Modes that can be carried out here."""
        self._silent_since: float | None = None
        """Since when the server brings nothing that can be used, on the loop's clock; None while it does."""
        self._heard = asyncio.Event()
        self._to_reply = asyncio.Event()

    @property
    def where(self) -> str:
        """For the line at start."""
        return self._settings.url

    async def probe(self) -> AsyncIterator[Probe]:
        """See `Probing`."""
        url = self._settings.url
        try:
            context = await asyncio.to_thread(self._settings.tls.context)
            lfdi = self._settings.lfdi or await asyncio.to_thread(lfdi_of, self._settings.tls.certificate)
        except (OSError, ValueError) as error:
            yield Probe(Mark.WRONG, "tls", f"the certificate of {url} can't be used: {error}", "see tls of the bridge")
            return
        if wrong := await self._out_of_date():
            yield Probe(Mark.WRONG, "tls", wrong)
        yield Probe(Mark.WELL, "tls", f"the certificate has the LFDI {lfdi.upper()}, SFDI {sfdi_of(lfdi)}")
        client = Client(self._settings, context, self._context.clock)
        try:
            root = await client.get(url)
            yield Probe(Mark.WELL, "server", f"{url} answers with a {root.name}")
        except ServerError as error:
            yield Probe(Mark.WRONG, "server", str(error))
        finally:
            await client.close()

    async def start(self) -> None:
        """Begin in the background: the server may be away."""
        self._memory = await asyncio.to_thread(self._file.read)
        self._steering.restore(self._memory.held)
        self._silent_since = self._context.clock.monotonic()
        self._context.report(up=None, detail=f"connecting to {self._settings.url}")
        self._context.spawn(self._begin(), "begin")

    async def stop(self) -> None:
        """Keep what is known, and close the connections."""
        if self._client is not None:
            await self._file.save(self._memory)
            await self._client.close()
            self._client = None

    async def deliver(self, updates: Updates) -> None:
        """Take in what became of our commands."""
        for event in updates.events:
            self._steering.took(event)

    async def _begin(self) -> None:
        """Read the certificate, and go on once it can be used."""
        while True:
            try:
                context = await asyncio.to_thread(self._settings.tls.context)
                own = await asyncio.to_thread(lfdi_of, self._settings.tls.certificate)
                break
            except (OSError, ValueError) as error:
                self._context.report(up=False, detail=f"the certificate can't be used: {error}; looked at again soon")
                await asyncio.sleep(AGAIN_MOST)
        self._lfdi = self._settings.lfdi.upper() or own
        self._client = client = Client(self._settings, context, self._context.clock)
        tree = Tree(self._settings, client, self._lfdi, self._context.clock, self._passed_over)
        telemetry = Telemetry(self._settings, self._context, client, self._lfdi)
        self._context.spawn(self._poll(tree), "polling")
        self._context.spawn(self._steer(), "steering")
        self._context.spawn(self._answer(client), "answering")
        self._context.spawn(self._post(telemetry), "posting")
        self._context.spawn(self._keep(), "keeping")

    # what the server says

    async def _poll(self, tree: Tree) -> None:
        failures = 0
        while True:
            try:
                found = await tree.walk()
            except (ServerError, NotOursError) as error:
                tree.forget()  # what was read may be the reason
                if self._silent_since is None:
                    self._silent_since = self._context.clock.monotonic()
                dated = await self._out_of_date()
                why = "; ".join(filter(None, (dated, str(error))))
                self._context.report(up=False, detail=f"{why}; what is known of events goes on")
                most = min(AGAIN_MOST, AGAIN * 2**failures)
                failures = min(failures + 1, 10)
                await asyncio.sleep(random.uniform(most / 2, most))  # noqa: S311 - to spread calls, no secret
                continue
            failures = 0
            self._silent_since = None
            now = self._context.clock.now().timestamp() + found.offset
            programs = events.with_tails(self._memory.programs or (), found.programs, now)
            self._memory.programs, self._memory.offset = programs, found.offset
            self._links = found.links
            self._heard.set()
            self._context.report(up=True)
            await asyncio.sleep(max(ONE_GO, tree.due_in))

    async def _out_of_date(self) -> str:
        """Return in words that our certificate is not valid now: servers say little of why they refuse one."""
        with suppress(OSError, ValueError):
            return await asyncio.to_thread(out_of_date, self._settings.tls.certificate, self._context.clock.now())
        return ""

    def _passed_over(self, href: str, why: str) -> None:
        self._log.warning(f"{href} {why}", "something of the server is passed over", at=href, why=why)

    # what is done

    async def _steer(self) -> None:
        while True:
            if (device := self._device()) is not None:
                await self._look(device)
            await set_within(self._heard, LOOK)
            self._heard.clear()

    async def _look(self, device: Device) -> None:
        fallback = self._settings.fallback.limits if self._is_silent else None
        if self._memory.programs is None and fallback is None:
            return  # nothing is known yet
        now = self._context.clock.now().timestamp() + self._memory.offset
        rated = self._settings.rated_power or device.rated_power
        setpoints = setpoints_for(device, self._settings.limits, rated)
        self._modes = sorted(setpoints)
        plan = events.plan(
            self._memory.programs or (), self._memory.records, now, self._draws, setpoints.keys(), fallback
        )
        if dropped := self._memory.take(plan.records, list(plan.replies), now):
            self._log.warning("dropped", "responses wait for too long; the oldest are dropped", dropped=dropped)
        if self._memory.replies:
            self._to_reply.set()
        ranges = {**device.setpoints, **self._context.permitted(device, self._origin)}
        wanted = wishes(plan.in_force, setpoints, ranges, rated)
        baseline = {mode: events.Held(value) for mode, value in plan.baseline.items()}
        await self._steering.steer(device, wanted, wishes(baseline, setpoints, ranges, rated), now)
        self._memory.held = self._steering.held

    def _draws(self, mrid: str) -> tuple[float, float]:
        return draws_of(self._lfdi, mrid)

    @property
    def _is_silent(self) -> bool:
        since = self._silent_since
        return since is not None and self._context.clock.monotonic() - since > self._settings.fallback.after

    def _device(self) -> Device | None:
        """Return what is steered, once some bridge has announced it."""
        serial = self._settings.device
        state = self._context.state(serial)
        if state is not None:
            return state.device
        return next((each.device for each in self._context.announced() if each.device.serial == serial), None)

    def _carried(self, mrid: str, is_good: bool) -> None:
        self._memory.note(mrid, is_good=is_good)

    # what is told

    async def _answer(self, client: Client) -> None:
        """Post responses, oldest first.

        What was told is kept before the next is told: after a crash one is told twice, at most.
        """
        while True:
            await self._to_reply.wait()
            self._to_reply.clear()
            while self._memory.replies:
                await self._file.save(self._memory)
                reply = self._memory.replies[0]
                at = round(self._context.clock.now().timestamp() + self._memory.offset)
                content: list[Element] = [
                    ("createdDateTime", at),
                    ("endDeviceLFDI", self._lfdi),
                    ("status", int(reply.status)),
                    ("subject", reply.mrid),
                ]
                try:
                    await client.post(reply.reply_to, "DERControlResponse", content)
                except ServerError as error:
                    why = str(error)
                    if not error.is_final:
                        self._log.warning("response", "a response is not taken; tried again", why=why)
                        await asyncio.sleep(AGAIN_MOST if error.status else AGAIN)
                        continue
                    self._log.warning(reply.mrid, "a response is refused", why=why, mrid=reply.mrid)
                if self._memory.replies and self._memory.replies[0] is reply:
                    del self._memory.replies[0]
            await self._file.save(self._memory)

    async def _post(self, telemetry: Telemetry) -> None:
        while True:
            device = self._device()
            if self._links is None or device is None:
                await asyncio.sleep(LOOK)
                continue
            rated = self._settings.rated_power or device.rated_power
            try:
                await telemetry.post(self._links, device, self._modes, rated, self._memory.offset)
            except ServerError as error:
                self._log.warning("telemetry", "telemetry is not taken; tried again", why=str(error))
            await asyncio.sleep(max(self._settings.poll_least, telemetry.post_rate))

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(SAVE)
            await self._file.save(self._memory)
