"""What fleets and limits may say and hardly mean: whom nobody may command, who may command nobody, who has two masters.

`check` tells it, and each start.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import msgspec

from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.config.document import Document, Problem, dotted, nearest
from gateway.core import good_once
from gateway.core.model import Device, DeviceKind, Origin
from gateway.steering.fleet.settings import KINDS, PREFIX, FleetSettings
from gateway.steering.limits import settings as limits
from gateway.steering.limits.settings import CHARGING, IMPORT, LIMIT, MODE, PERCENT, POWER, LimitSettings

_WILD: Final = frozenset("*?[")
_BATTERY: Final = (MODE, POWER)
_TARGET: Final = "power_target"
OF_FLEETS: Final = (_TARGET, PERCENT, "reactive_power", "running", *_BATTERY)
"""What a fleet can take."""
NAMED: Final = 3
"""So many serial numbers are named; of more is said how many there are."""


class Steering(msgspec.Struct, frozen=True):
    """Fleets and limits of a configuration, by name, and the rules they are under."""

    fleets: Mapping[str, FleetSettings]
    limits: Mapping[str, LimitSettings]
    control: ControlSettings

    def wrong(self, document: Document, named: Sequence[str]) -> Iterator[Problem]:
        """Find limits on what there is not. `named`: all fleets, also those whose own settings are wrong."""
        for name, settings in self.limits.items():
            path, device = ("limits", name, "device"), settings.device
            if device.startswith(limits.PREFIX):
                yield _at(document, path, f"{device!r} is a limit itself; name the inverter, or the fleet")
            fleet = device.removeprefix(PREFIX)
            if fleet != device and fleet not in named:
                hint = nearest(fleet, named) if named else "there are none under fleets:"
                yield _at(document, path, f"there is no fleet {fleet!r}; {hint}")

    def doubts(self, document: Document, seen: set[str]) -> Iterator[Problem]:
        """Find what is hardly meant. `seen`: serial numbers that have given a value; none where that is not known."""
        yield from self._twice(document)
        yield from self._unknown(document, seen)
        if self.control.enabled and self.control.allow:  # else it is said once, for all
            for name, fleet in self.fleets.items():
                yield from self._fleet(document, name, fleet)
            for name, one in self.limits.items():
                yield from self._limit(document, name, one)

    def _twice(self, document: Document) -> Iterator[Problem]:
        """Find members that two fleets write out, and devices that have two limits."""
        first: dict[str, str] = {}
        for name, fleet in self.fleets.items():
            for n, serial in enumerate(fleet.members.devices or ()):
                if not _WILD & set(serial) and first.setdefault(serial, name) != name:
                    path = ("fleets", name, "members", "devices", n)
                    text = (
                        f"{serial} is a member of fleet {first[serial]} already, and of one at most; take it out of one"
                    )
                    yield _at(document, path, text)
        limited: dict[str, str] = {}
        for name, one in self.limits.items():
            if limited.setdefault(one.device, name) != name:
                text = (
                    f"limit {limited[one.device]} is of {one.device} already, and each writes over the other; keep one"
                )
                yield _at(document, ("limits", name, "device"), text)
            for n, charger in enumerate(one.chargers):
                if limited.setdefault(charger, name) != name:
                    text = f"{charger} is of limit {limited[charger]} already, and each writes over the other; keep one"
                    yield _at(document, ("limits", name, "chargers", n), text)
            for other in self._with_member(name, one):
                text = (
                    f"{one.device} is a member of fleet {other} too, and each writes over the other; take it out of one"
                )
                yield _at(document, ("limits", name, "device"), text)

    def _with_member(self, name: str, one: LimitSettings) -> Iterator[str]:
        """Yield the fleets that certainly write to what a limit writes to: plants have devices not known here."""
        who = Origin.of("limit", name).who
        rules = [rule for rule in self.control.allow if rule.speaks_of(who) and _may_be_of(rule, one.device)]
        of_battery = IMPORT in one.failsafes and _allow(rules, MODE)
        by_power = LIMIT in one.failsafes and _allow(rules, PERCENT) and not _allow(rules, LIMIT)
        if one.device.startswith(PREFIX) or not (of_battery or by_power):
            return
        for fleet, settings in self.fleets.items():
            members = settings.members
            kinds = members.kinds or KINDS
            is_named = members.devices is None or any(fnmatchcase(one.device, each) for each in members.devices)
            if members.plants is None and is_named and ("storage" in kinds if of_battery else set(KINDS) <= {*kinds}):
                yield fleet

    def _unknown(self, document: Document, seen: set[str]) -> Iterator[Problem]:
        """Find devices that are written out, and that nobody has seen."""
        for name, fleet in self.fleets.items():
            for text in fleet.unknown(seen):
                yield _at(document, ("fleets", name, "members"), text)
        for name, one in self.limits.items():
            for key, serials in (("device", [one.device]), ("meter", [one.meter]), ("chargers", one.chargers)):
                for serial in filter(None, serials):
                    if seen and serial not in seen and not serial.startswith((PREFIX, limits.PREFIX)):
                        text = f"no device {serial!r} has been seen; {nearest(serial, sorted(seen))}"
                        yield _at(document, ("limits", name, key), text)

    def _fleet(self, document: Document, name: str, fleet: FleetSettings) -> Iterator[Problem]:
        path, serial = ("fleets", name), f"{PREFIX}{name}"
        own = Origin.of("fleet", name)
        itself = Device(serial=serial, kind=DeviceKind.FLEET)
        rules = [rule for rule in self.control.allow if rule.names(itself, "")]
        if not any(_writes(rule, OF_FLEETS) and _asked_by_others(rule, "fleet") for rule in rules):
            yield _at(document, path, f"no rule of control.allow lets anybody command it; {_add(serial, (_TARGET,))}")
        if fleet.fallback is not None and not any(_writes(r, (_TARGET,)) and r.speaks_of(own.who) for r in rules):
            text = f"no rule of control.allow lets the fleet fall back by itself; {_add(serial, (_TARGET,), own)}"
            yield _at(document, (*path, "fallback"), text)
        theirs = [rule for rule in self.control.allow if rule.speaks_of(own.who) and _may_name(rule, fleet)]
        if not _steers(theirs):
            text = f"no rule of control.allow lets it command its members; {_add('*', (PERCENT, *_BATTERY), own)}"
            yield _at(document, path, text)
            return
        written = [each for each in fleet.members.devices or () if not _WILD & set(each)]
        left = [each for each in written if not _steers([rule for rule in theirs if _may_be_of(rule, each)])]
        if left:
            text = f"no rule of control.allow lets it command {_some(left)}; {_add(left[0], (PERCENT,), own)}"
            yield _at(document, (*path, "members", "devices"), text)

    def _limit(self, document: Document, name: str, one: LimitSettings) -> Iterator[Problem]:
        path, serial, own = ("limits", name), f"{limits.PREFIX}{name}", Origin.of("limit", name)
        itself = Device(serial=serial, kind=DeviceKind.LIMIT)
        rules = [rule for rule in self.control.allow if rule.names(itself, "")]
        for setpoint in one.failsafes:
            if not any(_writes(rule, (setpoint,)) and _asked_by_others(rule, "limit", "fleet") for rule in rules):
                text = f"no rule of control.allow lets anybody set it; {_add(serial, (setpoint,))}"
                yield _at(document, path, text)
        for device, setpoints, wanted in _written_by(one):
            of_fleet = device.startswith(PREFIX)
            if not any(
                _writes(rule, setpoints) and rule.speaks_of(own.who) and _may_be_of(rule, device, fleet=of_fleet)
                for rule in self.control.allow
            ):
                text = f"no rule of control.allow lets it command {device}; {_add(device, wanted, own)}"
                yield _at(document, path, text)


def _written_by(one: LimitSettings) -> Iterator[tuple[str, Sequence[str], Sequence[str]]]:
    """Yield each device that a limit writes to, the setpoints of which one will do, and those of the rule to add."""
    if LIMIT in one.failsafes:
        setpoints = (PERCENT,) if one.device.startswith(PREFIX) else (LIMIT, PERCENT)
        yield one.device, setpoints, setpoints[:1]
    if IMPORT in one.failsafes:
        yield from ((charger, (CHARGING,), (CHARGING,)) for charger in one.chargers)
        if not one.chargers:
            yield one.device, (MODE,), (MODE, POWER)


def seen_in(data_dir: Path) -> set[str]:
    """Return the serial numbers of all devices that ever gave a value here; none where that can't be read."""
    try:
        return set(good_once.read(data_dir))
    except (OSError, msgspec.MsgspecError):
        return set()


def _at(document: Document, path: tuple[str | int, ...], text: str) -> Problem:
    return Problem(document.line(path), dotted(path), text)


def _writes(rule: Rule, setpoints: Iterable[str]) -> bool:
    return any(fnmatchcase(setpoint, pattern) for setpoint in setpoints for pattern in rule.setpoints)


def _asked_by_others(rule: Rule, *steering: str) -> bool:
    """Return whether a rule speaks of anybody but these, which ask by themselves."""
    return any(pattern.partition("/")[0] not in steering for pattern in rule.origins)


def _may_name(rule: Rule, fleet: FleetSettings) -> bool:
    """Return whether a rule may speak of members. Which plants and patterns have which devices is not known here."""
    kinds = fleet.members.kinds or KINDS
    return rule.kinds is None or any(fnmatchcase(kind, pattern) for kind in kinds for pattern in rule.kinds)


def _may_be_of(rule: Rule, serial: str, *, fleet: bool = False) -> bool:
    """Return whether a rule may speak of this device, whatever plant and kind it is of."""
    if fleet:
        return rule.names(Device(serial=serial, kind=DeviceKind.FLEET), "")
    return rule.devices is None or any(fnmatchcase(serial, pattern) for pattern in rule.devices)


def _steers(rules: Sequence[Rule]) -> bool:
    """Return whether a member can be steered by what these rules let pass: by its limit, or by its battery."""
    return _allow(rules, PERCENT) or all(_allow(rules, setpoint) for setpoint in _BATTERY)


def _allow(rules: Iterable[Rule], setpoint: str) -> bool:
    return any(_writes(rule, (setpoint,)) for rule in rules)


def _add(serial: str, setpoints: Sequence[str], origin: str = "") -> str:
    origins = f", origins: [{origin}]" if origin else ""
    return f'add {{devices: ["{serial}"], setpoints: [{", ".join(setpoints)}]{origins}}}'


def _some(serials: Sequence[str]) -> str:
    more = len(serials) - NAMED
    return ", ".join(serials[:NAMED]) + (f" and {more} more" if more > 0 else "")
