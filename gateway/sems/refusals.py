"""Interfaces that SEMS refuses and has never answered: most likely they are called otherwise than the catalogue has it.

A refusal costs what the interface alone brings, and no more. It is said with the line of configuration that helps.
"""

from typing import Final

from gateway.api.contexts import BaseContext
from gateway.core.findings import FindingCode
from gateway.sems.catalogue import Interface, Use

NAMES: Final = {
    "plant": ("powerStationId", "plantId"),
    "plants": ("plantIds", "powerStationIds"),
    "serial": ("sn", "inverterSn"),
    "serials": ("sns", "serials"),
}
"""Argument → what a request may call it besides, in the style of SEMS."""
STAND_IN: Final = {
    Use.PLANTS: 'plants: ["id of a plant", "id of another"], which stands in for the list',
    Use.DEVICES: "devices: [{sn: SERIAL, type: inverter, plant: PLANT}], which stands in for the list",
}
"""What the configuration may say in place of what is refused."""


class Refusals:
    """Those of one bridge."""

    def __init__(self, context: BaseContext) -> None:
        self._context = context
        self._answered: set[str] = set()
        self._refused: set[str] = set()

    def answers(self, interface: Interface) -> bool:
        """Return whether SEMS has answered it since the start."""
        return interface.name in self._answered

    def refuses(self, interface: Interface) -> bool:
        """Return whether SEMS has refused it, and never answered it."""
        return interface.name in self._refused

    def answered(self, interface: Interface) -> None:
        """Note that SEMS has answered it."""
        self._answered.add(interface.name)
        if interface.name in self._refused:
            self._refused.discard(interface.name)
            self._context.settle(FindingCode.INTERFACE_REFUSED, interface.name)

    def refused(self, interface: Interface, error: Exception) -> None:
        """Note that SEMS has refused it, and say so, unless it has answered it before: then it is the subject's."""
        if interface.name in self._answered:
            return
        self._refused.add(interface.name)
        self._context.find(
            FindingCode.INTERFACE_REFUSED,
            interface.name,
            f"{interface.name} is refused, so what it alone brings is missing: {error}",
            remedy(interface),
        )


def remedy(interface: Interface) -> str:
    """Return what to put into the bridge's configuration, ready to paste."""
    ways = [STAND_IN[interface.use]] if interface.use in STAND_IN else []
    row = next((row for row in interface.request if row.arg in NAMES and "." not in row.field), None)
    if row is not None:
        name = next(name for name in NAMES[row.arg] if name != row.field)
        ways.append(
            f"overrides: {{interfaces: {{{interface.name}: {{request: {{{row.field}: {{field: {name}}}}}}}}}}}, "
            "with the field's name as GoodWe's document has it"
        )
    if interface.use not in STAND_IN:
        ways.append(f"overrides: {{interfaces: {{{interface.name}: null}}}}, where the account has no right to it")
    return "; or ".join(ways)
