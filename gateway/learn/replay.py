"""The gateway's own parsing, run over answers: what it reads by a catalogue."""

from collections.abc import Sequence
from datetime import UTC
from typing import Final

import msgspec

from gateway.learn.envelope import unwrap
from gateway.learn.infer import READING
from gateway.learn.observed import data_of
from gateway.sems.catalogue import Catalogue
from gateway.sems.normalise import entries, read
from gateway.sems.recording import Answer

MAX_ENTRIES: Final = 5_000


class Read(msgspec.Struct):
    """What was read of one interface."""

    answers: int = 0
    entries: int = 0
    values: int = 0
    """Points and attributes that have a value, times among them."""


def replay(catalogue: Catalogue, answers: Sequence[Answer]) -> dict[str, Read]:
    """Return what the gateway reads of each interface, by a catalogue."""
    wrapping = unwrap(catalogue, answers)
    found: dict[str, Read] = {}
    known = {interface.name: interface for interface in catalogue.interfaces if interface.use in READING}
    for answer in wrapping.good:
        interface = known.get(answer.interface)
        if interface is None:
            continue
        one = found.setdefault(answer.interface, Read())
        one.answers += 1
        for entry in entries(interface, data_of(answer, wrapping.envelope))[:MAX_ENTRIES]:
            reading = read(interface, entry, UTC, answer.time, answer.time.replace(tzinfo=None))
            one.entries += 1
            said = [*reading.values.values(), *reading.attributes.values()]
            one.values += sum(value is not None for value in said) + len(reading.times)
    return found
