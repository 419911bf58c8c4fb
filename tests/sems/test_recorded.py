"""Answers written from what SEMS.md knows of their shapes, and what they mean."""

from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from gateway.sems.catalogue import load
from gateway.sems.normalise import KeptAside, entries, read, samples
from tests.kit.clock import NOON


class Envelope(msgspec.Struct):
    code: int | str
    msg: str
    data: Any


class Recorded(msgspec.Struct, forbid_unknown_fields=True):
    interface: str
    day: str | None
    zone: str
    answer: Envelope
    api: str = "open_api"
    samples: list[tuple[datetime, dict[str, Any]]] | None = None
    readings: list[dict[str, Any]] | None = None
    unknown: list[str] = []


FILES = sorted(Path(__file__).with_name("recorded").glob("*.json"))


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def recorded(request):
    return msgspec.json.decode(request.param.read_bytes(), type=Recorded)


def test_it_means_exactly_this(recorded):
    catalogue = load(recorded.api)
    interface, zone = catalogue.interface(recorded.interface), ZoneInfo(recorded.zone)
    assert str(recorded.answer.code) in catalogue.success
    if recorded.samples is not None:
        found = samples(interface, recorded.answer.data, zone, NOON, datetime.fromisoformat(recorded.day))
        assert [(sample.time, dict(sample.values)) for sample in found] == recorded.samples
    if recorded.readings is not None:
        found = [read(interface, entry, zone, NOON) for entry in entries(interface, recorded.answer.data)]
        assert [
            {
                "attributes": dict(reading.attributes),
                "time": reading.time and reading.time.isoformat().replace("+00:00", "Z"),
                "values": dict(reading.values),
            }
            for reading in found
        ] == recorded.readings
    assert recorded.samples is not None or recorded.readings


def test_what_the_catalogue_does_not_know_is_kept_aside(recorded):
    interface, aside = load(recorded.api).interface(recorded.interface), KeptAside()
    said = aside.look(interface, recorded.answer.data)
    assert sorted(aside.fields.get(interface.name, ())) == recorded.unknown
    assert bool(said) == bool(recorded.unknown)
    assert not said or f"{interface.name} with fields the catalogue does not know: {recorded.unknown[0]}" in said
    assert not aside.look(interface, recorded.answer.data), "it is said once"
