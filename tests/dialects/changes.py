"""What a dialect changes of each line of the catalogue."""

from enum import StrEnum

from gateway.simulator.dialect import TextStyle, ZoneStyle, is_number, unit_of

WITH_UNIT = {TextStyle.UNIT, TextStyle.BRACKETS}


class Change(StrEnum):
    """A kind of difference."""

    RENAME = "rename"
    SCALE = "scale"
    SIGN = "sign"
    TEXT = "value as text"
    UNIT = "unit in the text"
    DATE = "date format"
    UNIX = "unix time"
    ZONE = "zone"
    NESTING = "nesting"
    LISTS = "list elsewhere"
    ENVELOPE = "envelope"
    DROPPED = "dropped"
    NOISE = "unknown fields"


def changes_of(dialect, line):
    """Return what a dialect changes of a line. Where lists lie, the envelope and noise are of no single line."""
    row, after, text = line.before, line.after, dialect.texts[line.interface]
    if after is None:
        return {Change.ZONE if row.attribute == "time_zone" else Change.DROPPED}
    path, _, name = row.field.rpartition(".")
    new_path, _, new_name = after.field.rpartition(".")
    found = {
        Change.RENAME: name != new_name,
        Change.NESTING: path != new_path,
        Change.SCALE: abs(row.scale) != abs(after.scale),
        Change.SIGN: row.scale * after.scale < 0,
        Change.UNIX: after.type not in (row.type, "local_time"),
        Change.DATE: after.type == "local_time" and (row.type != after.type or dialect.date is not None),
        Change.ZONE: row.attribute == "time_zone" and dialect.zone is not ZoneStyle.IANA,
        Change.TEXT: is_number(row) and text is not TextStyle.NUMBER,
        Change.UNIT: text in WITH_UNIT and unit_of(after) != "",
    }
    return {change for change, is_so in found.items() if is_so}


def carries_units(dialect, interface, row):
    """Return whether a row's values, as they are written in this dialect, name their unit."""
    return dialect.texts.get(interface) in WITH_UNIT and unit_of(row) != ""
