"""Answers written from what SEMS.md knows of their shapes, and what they mean."""

from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from gateway.sems.catalogue import load
from gateway.sems.normalise import entries, read, samples
from gateway.sems.unknown_fields import UnknownFields
from tests.kit.clock import NOON
from tests.sems.kit import Notes


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
    unreadable: list[dict[str, str]] | None = None
    """Of each reading: field → text seen."""
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
        if recorded.unreadable is not None:
            assert [dict(reading.unreadable) for reading in found] == recorded.unreadable
    assert recorded.samples is not None or recorded.readings


def test_what_the_catalogue_does_not_know_is_named_once(recorded):
    interface, notes = load(recorded.api).interface(recorded.interface), Notes()
    unknown = UnknownFields(notes)
    for _ in range(2):
        unknown.look(interface, recorded.answer.data)
        assert sorted(unknown.fields.get(interface.name, ())) == recorded.unknown
        assert [(code, subject) for code, subject, *_ in notes.found] == (
            [("fields_unknown", interface.name)] if recorded.unknown else []
        )
    assert all(name in notes.found[0][2] for name in recorded.unknown)
