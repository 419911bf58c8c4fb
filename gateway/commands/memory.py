"""What was last set: the one memory of setpoints, kept over restarts.

Verification, drift, refreshes, the state that sinks show, and what a battery order is composed of all read it. Who
else can set a device, e.g. the manufacturer's app, does not tell the gateway; so what is here is what *commands* did,
and how far it may still be believed.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from math import inf
from typing import Final

import msgspec

from gateway.commands.lane import PointKey
from gateway.core.clock import Clock, Moment
from gateway.core.model import Alarm, Command, Origin, Quality, Value
from gateway.core.points import LEADERS, NONE, REPLACES, SETPOINTS
from gateway.core.router import Router
from gateway.journal.journal import Journal, StoredSetting

_NOTHING: Final[Mapping[str, "Setting"]] = {}
_REPLACED_BY: Final = {old: new for new, ended in REPLACES.items() for old in ended}


class Setting(msgspec.Struct):
    """One setpoint of one device."""

    requested: Value = None
    """What people last asked for, as far as it is not known to have been refused. Composes orders."""
    value: Value = None
    """What last succeeded."""
    since: Moment | None = None
    """When that was; None while nothing has. Its monotonic part is of this run alone."""
    certain: bool = False
    """Nothing was handed over since then that may have changed it."""
    confirmed: bool = False
    """A source has read it back."""
    seen: datetime | None = None
    """The newest read-back that was compared, or when it succeeded."""
    alarm: Alarm | None = None
    """While it drifts."""
    until: Moment | None = None
    """Of what starts an order: when that ends by itself; None where it does not."""
    before: tuple[bool, bool, Moment | None, Moment | None] | None = None
    """`certain`, `confirmed`, `until` and `handed` as they were before the newest command was handed over."""
    command: str = ""
    """Id of the newest command that was handed over."""
    handed: Moment | None = None
    """When that was; None where it was before a restart."""
    origin: Origin | None = None
    """Who asked for `value`; None where that is known to the journal at most."""


class SetpointMemory:
    """The settings of all devices."""

    def __init__(self, router: Router, journal: Journal, clock: Clock, refresh_within: float) -> None:
        self._router = router
        self._journal = journal
        self._clock = clock
        self._refresh_within = refresh_within
        self._settings: dict[str, dict[str, Setting]] = {}
        router.commanded = self.shown

    async def load(self) -> None:
        """Take up what the journal has."""
        now, boot_id = self._clock.moment(), self._clock.boot_id()
        for kept in await self._journal.settings():
            # Of another boot only the wall clock tells; it makes nothing younger than it can be.
            age = (now.wall - kept.time).total_seconds()
            if boot_id and kept.boot_id == boot_id:
                age = max(age, now.boot - kept.boot)
            since = Moment(now.monotonic - age, now.boot - age, kept.time)
            self._settings.setdefault(kept.serial, {})[kept.setpoint] = Setting(
                requested=kept.requested,
                value=kept.value,
                since=since if kept.succeeded else None,
                certain=kept.certain and age >= 0,
                confirmed=kept.confirmed,
                seen=kept.time,
                command=kept.command,
                until=None if kept.ends is None else since.later((kept.ends - kept.time).total_seconds()),
            )

    def of(self, serial: str) -> Mapping[str, Setting]:
        """Return the settings of a device, by setpoint."""
        return self._settings.get(serial, _NOTHING)

    def get(self, key: PointKey) -> Setting | None:
        """Return what is known of a setpoint; None where it was never set."""
        return self.of(key[0]).get(key[1])

    def __iter__(self) -> Iterator[tuple[str, Mapping[str, Setting]]]:
        return iter(list(self._settings.items()))

    # what happens to commands

    def leaves(self, command: Command, now: Moment) -> None:
        """Take in that a command is about to be handed over: until it succeeds nothing is certain of its setpoint."""
        setting = self._of(command)
        setting.before = setting.certain, setting.confirmed, setting.until, setting.handed
        setting.command, setting.handed = command.id, now
        setting.certain = setting.confirmed = False
        if command.setpoint in REPLACES:
            self._router.refresh(command.serial)

    def unsent(self, command: Command) -> None:
        """Take in that a command which was about to be handed over certainly was not: all is as it was before."""
        setting = self._of(command)
        if setting.command == command.id and setting.before is not None:
            setting.certain, setting.confirmed, setting.until, setting.handed = setting.before
            setting.before = None

    def window(self, command: Command, until: Moment) -> None:
        """Take in until when the order holds that a command starts or changes."""
        leader = LEADERS[SETPOINTS[command.setpoint].group]
        setting = self._settings.setdefault(command.serial, {}).setdefault(leader, Setting())
        setting.until = until

    def succeeded(self, command: Command, *, verified: bool) -> None:
        """Take in that a command has set its value."""
        now = self._clock.moment()
        setting = self._of(command)
        setting.origin = command.origin
        setting.requested = setting.value = command.value
        setting.since, setting.seen = now, now.wall
        setting.certain, setting.confirmed = True, verified
        self._router.refresh(command.serial)

    def kept(self, command: Command) -> None:
        """Take in a value that waits for the next order of its group; the device knows nothing of it."""
        self.succeeded(command, verified=False)
        self._of(command).certain = False

    def perhaps(self, command: Command) -> None:
        """Take in that nobody knows whether a command has set its value."""
        self._of(command).requested = command.value

    def read_back(self, key: PointKey, time: datetime) -> None:
        """Take in that a source reads what was set."""
        setting = self._settings[key[0]][key[1]]
        setting.seen = time
        if not setting.confirmed:
            setting.confirmed = True
            self._journal.keep_setting_soon(self.stored(key))

    def stored(self, key: PointKey) -> StoredSetting:
        """Return what the journal is to keep of a setpoint."""
        setting = self._settings[key[0]][key[1]]
        since = setting.since or self._clock.moment()
        return StoredSetting(
            serial=key[0],
            setpoint=key[1],
            requested=setting.requested,
            value=setting.value,
            time=since.wall,
            boot_id=self._clock.boot_id(),
            boot=since.boot,
            succeeded=setting.since is not None,
            certain=setting.certain,
            confirmed=setting.confirmed,
            command=setting.command,
            ends=None if setting.until is None else setting.until.wall,
        )

    def _of(self, command: Command) -> Setting:
        return self._settings.setdefault(command.serial, {}).setdefault(command.setpoint, Setting())

    # what is asked of it

    def holds(self, command: Command) -> bool:
        """Return whether what a command asks for is in force, so that it need not be sent again.

        True only while all of this holds: the last command handed over for it succeeded, with this value; no source
        has read another value since (beyond the setpoint's tolerance); the device's data are good; and that success,
        or a read-back of the value since, is not older than `control.refresh_within`.
        """
        setting = self.get((command.serial, command.setpoint))
        state = self._router.state(command.serial)
        if setting is None or setting.since is None or not setting.certain or setting.value != command.value:
            return False
        if state is None or state.quality is not Quality.GOOD:
            return False
        now = self._clock.moment()
        if self._is_replaced(command.serial, command.setpoint) or self._stands_still(command):
            return False
        group = SETPOINTS[command.setpoint].group
        if group and command.value != SETPOINTS[command.setpoint].neutral and not self.runs(command.serial, group):
            return False
        age = -setting.since.left(now)
        found = self._router.read_back(command.serial, command.setpoint)
        if found is not None and found[0] > setting.since.wall:
            time, value = found
            if not SETPOINTS[command.setpoint].same(value, command.value):
                return False
            age = min(age, max(timedelta(0), now.wall - time).total_seconds())
        return 0 <= age < self._refresh_within

    def verified(self, command: Command) -> bool:
        """Return whether what a command asks for is set, and was read back."""
        setting = self.get((command.serial, command.setpoint))
        return setting is not None and setting.confirmed and setting.alarm is None and setting.value == command.value

    def order(self, command: Command) -> dict[str, Value]:
        """Return what people have set of the others of the command's group; what they have not is not in it."""
        group, settings = SETPOINTS[command.setpoint].group, self.of(command.serial)
        return {
            setpoint: setting.requested
            for setpoint, setting in settings.items()
            if group and setpoint != command.setpoint and SETPOINTS[setpoint].group == group
            if setting.requested is not None and setting.requested != NONE
        }

    def runs(self, serial: str, group: str) -> bool:
        """Return whether an order of this group is known to run: its leader was set, to something else than neutral."""
        leader = LEADERS[group]
        setting = self.get((serial, leader))
        return (
            setting is not None
            and setting.certain
            and setting.alarm is None
            and setting.value not in (None, SETPOINTS[leader].neutral)
            and not self._is_over(setting)
            and not self._is_replaced(serial, leader)
        )

    def _is_replaced(self, serial: str, setpoint: str) -> bool:
        """Return whether something that ends a setpoint has been handed over since."""
        settings = self.of(serial)
        newer, older = settings.get(_REPLACED_BY.get(setpoint, "")), settings.get(setpoint)
        return newer is not None and older is not None and _told(newer) > _told(older)

    def _in_force(self, serial: str, setpoint: str, setting: Setting) -> Value:
        """Return the value of a setpoint; of one that something newer has ended, that it is none."""
        neutral = SETPOINTS[setpoint].neutral
        return neutral if neutral is not None and self._is_replaced(serial, setpoint) else setting.value

    def _stands_still(self, command: Command) -> bool:
        """Return whether a fleet was stopped, so that nothing comes of a target or an order: it says so itself."""
        running = self.get((command.serial, "running"))
        takes_target = self.get((command.serial, "power_target")) is not None
        return command.setpoint in _REPLACED_BY and takes_target and running is not None and running.value is False

    def _is_over(self, setting: Setting) -> bool:
        """Return whether an order has ended by itself."""
        return setting.until is not None and setting.until.left(self._clock.moment()) <= 0

    def shown(self, serial: str) -> Mapping[str, tuple[datetime, Value]]:
        """Return what has been set and when, for the state of a device, until a source reads it back."""
        settings = self._settings.get(serial)
        if settings is None:
            return {}
        over = {
            leader: (setting.until.wall, SETPOINTS[leader].neutral)
            for leader in LEADERS.values()
            if (setting := settings.get(leader)) is not None and setting.until is not None and self._is_over(setting)
        }
        return {
            setpoint: over.get(setpoint) or (setting.since.wall, self._in_force(serial, setpoint, setting))
            for setpoint, setting in settings.items()
            if setting.since is not None
            and (setpoint in over or setting.seen is None or setting.seen <= setting.since.wall)
        }


def _told(setting: Setting) -> float:
    """Return when a setpoint was handed over last, as far as that is known, on this run's clock."""
    when = setting.handed or setting.since
    return -inf if when is None else when.monotonic
