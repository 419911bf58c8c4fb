"""The maps that a configuration names: made, and checked against each other."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gateway.api.registry import PluginError, UnknownPluginError
from gateway.bridges.modbus.codec import WordOrder
from gateway.bridges.modbus.maps.custom import CustomFamily
from gateway.bridges.modbus.maps.family import Family
from gateway.bridges.modbus.maps.found import installed, make
from gateway.bridges.modbus.maps.row import MapError, RegisterMap, Row
from gateway.config.short_form import ShortForm
from gateway.core.model import Device, DeviceKind, Range
from gateway.core.points import SETPOINTS

FILE: Final = ".csv"
SAMPLES: Final = tuple(
    Device(serial=kind, kind=kind, rated_power=10_000.0, setpoints=dict.fromkeys(SETPOINTS, Range()))
    for kind in DeviceKind
)
"""A device of each kind, able to do everything: what maps have for these is what they have."""


class Choice(ShortForm):
    """A line of `maps:`. A name, a CSV file, or either with options: `{map: NAME, option: …}`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    SHORT: ClassVar = {"type": "string"}

    map: str = Field(description="name of a map, or a CSV file")

    @property
    def is_file(self) -> bool:
        """Whether this is a map of the user's own."""
        return self.map.lower().endswith(FILE)

    @property
    def options(self) -> Mapping[str, Any]:
        """What stands beside the name, as the family's own `Options` take it."""
        given = self.model_extra or {}
        model = self._model
        return given if model is None else dict(model.model_validate(given))

    @property
    def _model(self) -> type[BaseModel] | None:
        """What its options are; None where it takes none. Raises PluginError."""
        return None if self.is_file else getattr(installed().load(self.map), "Options", None)

    @model_validator(mode="before")
    @classmethod
    def _may_be_a_name(cls, raw: Any) -> Any:
        return {"map": raw} if isinstance(raw, str) else raw

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        try:
            model = self._model
        except UnknownPluginError as error:
            raise ValueError(f"{error}; a file's name ends in {FILE}") from None
        except PluginError as error:
            raise ValueError(str(error)) from None
        known = list(model.model_fields) if model else []
        for option in self.model_extra or {}:
            if option not in known:
                near = get_close_matches(option, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}"
                raise ValueError(f"the map {self.map} has no option {option!r}; {hint}")
        try:
            _ = self.options
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            said = first["msg"][:1].lower() + first["msg"][1:]
            raise ValueError(f"option {where!r} of the map {self.map}: {said}") from None
        return self


class MapsError(ValueError):
    """The maps can't be used as they are. The message says what to change."""


def build(choices: Iterable[Choice], order: WordOrder) -> tuple[Family, ...]:
    """Make the maps. Raises MapsError where a file is no map, or addresses of two maps meet."""
    families = []
    for choice in choices:
        try:
            families.append(
                CustomFamily(Path(choice.map), order) if choice.is_file else make(choice.map, order, **choice.options)
            )
        except MapError as error:
            raise MapsError(str(error)) from error
    names = [family.name for family in families]
    for name in names:
        if names.count(name) > 1:
            raise MapsError(f"the map {name} stands there twice; keep one")
    for clash in _clashes(families):
        raise MapsError(clash)
    return tuple(families)


def _clashes(families: Sequence[Family]) -> Iterator[str]:
    if len(families) < 2:
        return
    for device in SAMPLES:
        laid_out = [(family, layout.map) for family in families if (layout := family.layout(device))]
        for (one, one_map), (other, other_map) in combinations(laid_out, 2):
            address = _meeting(one_map, other_map)
            if address is not None:
                yield (
                    f"address {address} is in two maps: {_what(one, one_map, address)}, "
                    f"and {_what(other, other_map, address)}; move one, or leave one out"
                )


def _meeting(one: RegisterMap, other: RegisterMap) -> int | None:
    """Return the address to complain of: one where both have rows, if there is any."""
    shared = [
        range(max(mine.start, theirs.start), min(mine.end, theirs.end))
        for mine in one.blocks
        for theirs in other.blocks
    ]
    addresses = [address for part in shared for address in part]
    both = (a for a in addresses if _row_at(one, a) and _row_at(other, a))
    return next(both, addresses[0] if addresses else None)


def _what(family: Family, map_: RegisterMap, address: int) -> str:
    row = _row_at(map_, address)
    if row is not None:
        line = family.lines.get(row.address) if isinstance(family, CustomFamily) else None
        return f"{family.name}{f':{line}' if line else ''} has {row.field} at {row.address}"
    block = next(block for block in map_.blocks if block.start <= address < block.end)
    return f"{family.name} has {block.title!r} from {block.start} to {block.end - 1}"


def _row_at(map_: RegisterMap, address: int) -> Row | None:
    return next((row for row in map_.rows if row.address <= address < row.end), None)
