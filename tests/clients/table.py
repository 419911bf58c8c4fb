"""The table of clients: what each did, and what came of it."""

from datetime import UTC, datetime
from typing import NamedTuple

from tests.kit.process import ROOT

PAGE = ROOT / "docs" / "clients.md"
BEGIN, END = "<!-- table: written by make clients -->", "<!-- end of the table -->"


class Row(NamedTuple):
    client: str
    version: str
    language: str
    did: str
    result: str
    """`ok`, or what was wrong."""

    @property
    def good(self):
        return self.result == "ok"


HEAD = Row("client", "version", "language", "what it did", "result")


class Checks:
    """Rows of one client: `is_` compares, and a row that holds several things is one once all are said."""

    def __init__(self, client, version, language):
        self._who = (client, version, language)
        self.rows = []

    def say(self, did, *wrong):
        """Add a row; `wrong` are complaints, none of which should be there."""
        self.rows.append(Row(*self._who, did, "; ".join(filter(None, wrong)) or "ok"))


def differs(what, read, wanted, tolerance=0.0):
    """Return a complaint unless what was read is what the simulator says, within `tolerance` of it."""
    if isinstance(wanted, float) and isinstance(read, int | float):
        return "" if abs(read - wanted) <= tolerance else f"{what}: read {read}, not {wanted}"
    return "" if read == wanted else f"{what}: read {read!r}, not {wanted!r}"


def plain(rows):
    """Return the table for a terminal."""
    widths = [max(len(row[column]) for row in [HEAD, *rows]) for column in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row.result])
        for row in [HEAD, *rows]
    )


def markdown(rows):
    lines = [HEAD, ("---",) * len(HEAD), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def write(rows):
    """Put the table into docs/clients.md, with the day."""
    text = PAGE.read_text()
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    good = sum(row.good for row in rows)
    day = datetime.now(UTC).date().isoformat()
    summary = f"{day}: {good} of {len(rows)} rows are ok, with {len({row.language for row in rows})} languages."
    PAGE.write_text(f"{before}{BEGIN}\n\n{summary}\n\n{markdown(rows)}\n\n{END}{after}")
