"""Which devices may be announced because they are pushed: those that are known, and few others, if any.

Whoever has the secret, or has found it in a proxy's log, can make up serial numbers; each would be shown, stored and
kept by everybody who reads the gateway. So a push alone makes no device, unless `announce: true` says that it may, and
then `announce_most` a day. Known is what another bridge has announced, or `devices` names in full, now or in an
earlier run: pushes are not dropped because the cloud has not been asked yet since the start.
"""

import asyncio
from typing import Final

import msgspec

from gateway.api.contexts import StatesContext
from gateway.bridges.push.settings import PushSettings
from gateway.core.findings import FindingCode
from gateway.core.kept_file import KeptFile
from gateway.core.model import day_of
from gateway.sems.pushed import BadPushError, Outcome

SAVE: Final = 10.0
"""Seconds between looks whether there is something to keep."""
KEPT: Final = 20_000
"""Devices that are kept."""
NAMED: Final = 10
"""Devices that a finding names."""
WILD: Final = frozenset("*?[")
"""What makes a pattern of a name."""


class _Kept(msgspec.Struct):
    """What outlives a restart."""

    devices: dict[str, bool] = {}
    """Serial → whether somebody knew it; else it was announced for being pushed."""
    day: int = 0
    new: int = 0
    """Devices that were announced on that day for being pushed."""


class Newcomers:
    """Of one bridge."""

    def __init__(self, settings: PushSettings, context: StatesContext) -> None:
        self._settings = settings
        self._context = context
        self._named = {name for name in settings.devices if not WILD & set(name)}
        self._kept = _Kept()
        self._file = KeptFile(
            context.data_dir / f"{context.name}-pushed.json",
            _Kept,
            context.log,
            unreadable="which devices were pushed can't be read; those that nobody knows are new again",
            unwritable="which devices were pushed can't be kept",
        )
        self._changed = False
        self._strangers: dict[str, str] = {}
        """Serial → why it is not taken; the first few."""
        self._others = False

    def begin(self) -> None:
        """Go by what was kept, and keep what changes. A file that can't be read is logged."""
        self._kept = self._file.read() or self._kept
        self._context.spawn(self._run(), "newcomers")

    async def end(self) -> None:
        """Keep what there is to keep."""
        await self._save()

    def admit(self, serial: str) -> None:
        """Return where a device may be announced. Raises BadPushError."""
        if serial in self._named or self._context.state(serial) is not None or self._kept.devices.get(serial):
            self._keep(serial, known=True)
        elif not self._settings.announce:
            self._refuse(serial, "nobody knows it")
        elif serial not in self._kept.devices:
            self._count(serial)
            self._keep(serial, known=False)
        if self._strangers.pop(serial, None) is not None:
            self._show()

    def _count(self, serial: str) -> None:
        today = day_of(self._context.clock.now())
        if self._kept.day != today:
            self._kept.day, self._kept.new = today, 0
        if self._kept.new >= self._settings.announce_most:
            self._refuse(serial, f"announce_most ({self._settings.announce_most}) are new today already")
        self._kept.new += 1
        self._changed = True

    def _keep(self, serial: str, *, known: bool) -> None:
        kept = self._kept.devices
        if kept.get(serial) is not known and (serial in kept or len(kept) < KEPT):
            kept[serial] = known
            self._changed = True

    def _refuse(self, serial: str, why: str) -> None:
        if serial not in self._strangers:
            if len(self._strangers) < NAMED:
                self._strangers[serial] = why
                self._show()
            elif not self._others:
                self._others = True
                self._show()
        raise BadPushError("unknown device", f"{serial} is not taken: {why}", Outcome.UNKNOWN)

    def _show(self) -> None:
        if not self._strangers:
            self._context.settle(FindingCode.DEVICES_UNKNOWN, "")
            return
        named = ", ".join(f"{serial} ({why})" for serial, why in self._strangers.items())
        self._context.find(
            FindingCode.DEVICES_UNKNOWN,
            "",
            f"devices are pushed that are not taken: {named}{' and others' if self._others else ''}",
            f"where they are yours, name them in bridges.{self._context.name}.devices, or set announce: true",
        )

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(SAVE)
            await self._save()

    async def _save(self) -> None:
        """Write what has changed, in a thread. A disk that does not take it is logged."""
        if not self._changed:
            return
        self._changed = False
        await self._file.write(msgspec.json.encode(self._kept))
