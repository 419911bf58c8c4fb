"""What became of each line of a dialect: restored, shown as a candidate, missed; and what is wrong."""

from enum import StrEnum

import msgspec

from gateway.sems.catalogue import Standing, text_keys
from gateway.sems.normalise import entries
from gateway.sems.overrides import CatalogueOverrides, overridden
from tests.dialects.changes import Change, carries_units, changes_of


class Verdict(StrEnum):
    """What became of a line."""

    RESTORED = "restored"
    CANDIDATE = "candidate"
    """A person finds it in a comment of the overrides."""
    MISSED = "missed"


class Judged(msgspec.Struct):
    """One changed line."""

    line: object
    identifiable: bool
    verdict: Verdict
    kinds: set


class Wrong(msgspec.Struct):
    """An active line that is not so."""

    interface: str
    text: str
    kinds: set
    """Changes of the lines it may have been meant for."""


def learned_catalogue(base, overrides):
    """The catalogue with the overrides that were active."""
    return overridden(base, CatalogueOverrides.model_validate(text_keys(overrides)))


def judge(truth, report):
    """What a report made of a dialect; returns the changed lines, and what is wrong."""
    dialect = truth.dialect
    learned = learned_catalogue(dialect.base, report.overrides)
    judged = []
    for line in dialect.lines:
        # What another field, or the unit in a text, still tells the catalogue as it is has not to be restored.
        if truth.changed(line) and not _restored(truth, line, dialect.base.interface(line.interface)):
            restored = _restored(truth, line, learned.interface(line.interface))
            shown = restored or _shown(truth, line, report)
            verdict = Verdict.RESTORED if restored else Verdict.CANDIDATE if shown else Verdict.MISSED
            kinds = changes_of(dialect, line) | ({Change.LISTS} if truth.moved(line.interface) else set())
            judged.append(Judged(line, truth.identifiable(line), verdict, kinds))
    return judged, list(_wrong(truth, learned))


def _restored(truth, line, interface):
    return any(_is_right(truth, line, row, interface) for row in interface.response)


def _shown(truth, line, report):
    """Whether the right override stands in the report without being sure."""
    base = truth.dialect.base.interface(line.interface)
    report_of = {one.name: one for one in report.interfaces}.get(line.interface)
    lists = base.lists if report_of is None or report_of.lists is None else report_of.lists
    interface = msgspec.structs.replace(base, lists=tuple(lists))
    rows = []
    for one in report.of(line.interface):
        if one.row is not None and one.row.field == line.before.field:
            said = [one.override, *(candidate.override for candidate in one.candidates)]
            rows += [_row(line.before, override) for override in said if override is not None]
    return any(_is_right(truth, line, row, interface) for row in rows)


def _is_harmless(truth, line, row, interface):
    """Whether a row is right, or would be if entries were looked for where they are, and finds nothing till then."""
    if _is_right(truth, line, row, interface):
        return True
    if any(value is not None for value in _found(truth, line.interface, interface, row)):
        return False
    path = _path(truth.dialect.catalogue.interface(line.interface), line.after)
    meant = msgspec.structs.replace(row, field=line.after.field)
    whole = f".{path}".endswith(f".{row.field}")
    return whole and _is_right(truth, line, meant, truth.dialect.catalogue.interface(line.interface))


def _row(before, override):
    changes = {key: value for key, value in override.items() if key in ("field", "scale", "type")}
    return msgspec.structs.replace(before, **changes)


def _is_right(truth, line, row, interface):
    """Whether a row reads what the dialect's own row reads, as what it is."""
    after = line.after
    if (row.point, row.attribute) != (after.point, after.attribute) or not _same_scale(truth, line, row):
        return False
    times = ("local_time", "unix_seconds", "unix_milliseconds")
    if (row.type in times or after.type in times) and row.type != after.type:
        return False
    return _same_place(
        truth, line.interface, (interface, row), (truth.dialect.catalogue.interface(line.interface), after)
    )


def _same_scale(truth, line, row):
    after = line.after
    if carries_units(truth.dialect, line.interface, after):
        return row.scale * after.scale > 0
    return abs(row.scale - after.scale) <= 1e-6 * abs(after.scale)


def _same_place(truth, name, one, other):
    """Whether two rows lead to the same field: by their whole path, or by what they find in all answers."""
    if {_path(*one)} == {_path(*other)}:
        return True
    found, there = _found(truth, name, *one), _found(truth, name, *other)
    if len(found) != len(there):  # what an object around the entries lends them is read as well without them
        found, there = (sorted({str(value) for value in values if value is not None}) for values in (found, there))
    return found == there and any(value is not None for value in there)


def _path(interface, row):
    shape = row.shape if row.shape is not None else interface.lists[0] if interface.lists else ""
    return f"{shape}.{row.field}".strip(".")


def _found(truth, name, interface, row):
    return [_at(entry, row.field) for data in truth.bodies[name] for entry in entries(interface, data)]


def _at(entry, path):
    for key in path.split("."):
        entry = entry.get(key) if isinstance(entry, dict) else None
    return entry


def _wrong(truth, learned):
    base = truth.dialect.base
    for interface in learned.interfaces:
        usual, spoken = base.interface(interface.name), truth.dialect.catalogue.interface(interface.name)
        lines = [line for line in truth.dialect.lines if line.interface == interface.name and line.after is not None]
        if interface.lists != usual.lists and not _same_entries(truth, interface, spoken):
            yield Wrong(interface.name, f"lists {list(interface.lists)}, not {list(spoken.lists)}", {Change.LISTS})
        for row in interface.response:
            if row.standing is Standing.CONFIG and not any(_is_harmless(truth, one, row, interface) for one in lines):
                gives = row.point or row.attribute
                yield Wrong(
                    interface.name,
                    f"{row.field} is no {gives} with {row.scale:g}, {row.type}",
                    {
                        kind
                        for one in lines
                        if gives in (one.before.point, one.before.attribute)
                        for kind in changes_of(truth.dialect, one)
                    },
                )
        kept = {(row.field, row.shape) for row in interface.response}
        for row in usual.response:
            there = any((one.before.field, one.before.shape) == (row.field, row.shape) for one in lines)
            gone = sum(1 for one in interface.response if (one.point, one.attribute) == (row.point, row.attribute))
            if (row.field, row.shape) not in kept and there and not gone:
                yield Wrong(interface.name, f"{row.field} was removed", set())


def _same_entries(truth, one, other):
    return all(
        [*map(_plain, entries(one, data))] == [*map(_plain, entries(other, data))] for data in truth.bodies[one.name]
    )


def _plain(entry):
    return {key: value for key, value in entry.items() if not isinstance(value, (dict, list))}
