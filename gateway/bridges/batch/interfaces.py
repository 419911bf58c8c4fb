"""The interfaces of the API: which one sets what, and by which topics."""

from collections.abc import Iterator
from functools import cached_property

import msgspec

from gateway.sems.catalogue import Catalogue, Interface, Use


class Route(msgspec.Struct, frozen=True):
    """An interface and its topics."""

    interface: Interface
    commands: str
    results: str


class Interfaces:
    """A catalogue whose topics have been filled in."""

    def __init__(self, catalogue: Catalogue, prefix: str, supplier: str) -> None:
        self.catalogue = catalogue
        names = {"{prefix}": prefix, "{supplier}": supplier}
        self.routes = [
            Route(interface, _filled(interface.path, names), _filled(interface.answers, names))
            for interface in catalogue.using(Use.CONTROL)
        ]

    @property
    def topics(self) -> Iterator[tuple[str, str]]:
        """Yield each topic after the name of its interface."""
        for route in self.routes:
            yield route.interface.name, route.commands
            yield route.interface.name, route.results

    @cached_property
    def by_setpoint(self) -> dict[str, Route]:
        """Setpoint → what sets it."""
        return {setpoint: route for route in reversed(self.routes) for setpoint in route.interface.setpoints}

    @cached_property
    def by_results(self) -> dict[str, Route]:
        """Topic of results → whose they are. Interfaces may share one: all results are alike."""
        return {route.results: route for route in reversed(self.routes)}


def _filled(template: str, names: dict[str, str]) -> str:
    for mark, name in names.items():
        template = template.replace(mark, name)
    return template
