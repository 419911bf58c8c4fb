"""What is whole stays, whatever ends the command, and the same command goes on from there."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.cli.history_file import FileInTheWayError, Format, HistoryFile
from gateway.core.model import Page, Sample
from tests.kit.clock import NOON

POINTS = ("status", "ac_power", "running")
REQUEST = {"serial": "SN", "from": "2026-06-01", "to": "2026-06-02", "step": "minutes"}


def page(day, *values):
    start = NOON + timedelta(days=day)
    samples = [Sample(start + timedelta(minutes=5 * n), value) for n, value in enumerate(values)]
    return Page(start, start + timedelta(days=1), samples)


@pytest.fixture
def opened(tmp_path):
    files = []

    def opened(format_=Format.CSV, *, force=False, name="out.csv", **changes):
        file = HistoryFile(tmp_path / name, format_, REQUEST | changes)
        files.append(file)
        file.open(force=force)
        return file

    yield opened
    for file in files:
        file.close()


def names(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


def test_csv(opened, tmp_path):
    file = opened()
    file.begin(POINTS)
    file.write(page(0, {"ac_power": 8101.0, "status": "nor,mal"}, {"ac_power": None, "running": False}))
    file.write(page(1))
    file.write(page(2, {"ac_power": 0.1, "running": True, "unlisted": 1}))
    file.finish()
    assert (tmp_path / "out.csv").read_text() == (
        "time,status,ac_power,running\n"
        '2026-06-21T12:00:00.000Z,"nor,mal",8101,\n'
        "2026-06-21T12:05:00.000Z,,,false\n"
        "2026-06-23T12:00:00.000Z,,0.1,true\n"
    )
    file.close()
    assert names(tmp_path) == ["out.csv"]


def test_json_lines(opened, tmp_path):
    file = opened(Format.JSONL)
    file.begin(POINTS)
    file.write(page(0, {"ac_power": 5.0, "status": None}))
    file.finish()
    (line,) = (tmp_path / "out.csv").read_text().splitlines()
    assert json.loads(line) == {"time": "2026-06-21T12:00:00.000Z", "ac_power": 5.0, "status": None}


@pytest.mark.parametrize(
    ("name", "format_"), [("a.csv", Format.CSV), ("a", Format.CSV), ("a.JSONL", Format.JSONL), ("a.ndjson", "jsonl")]
)
def test_the_name_tells_the_format(tmp_path, name, format_):
    assert Format.of(tmp_path / name) == format_


def test_it_goes_on_where_it_stopped_and_cuts_off_what_is_torn(opened, tmp_path):
    first = opened()
    first.begin(POINTS)
    first.write(page(0, {"ac_power": 1.0}))
    first.close()
    with (tmp_path / "out.csv.part").open("a") as part:
        part.write("2026-06-22T12:00:00.000Z,nor")
    again = opened()
    assert again.progress.until == NOON + timedelta(days=1)
    assert (again.progress.pages, again.progress.samples) == (1, 1)
    again.begin(POINTS)
    again.write(page(1))
    again.write(page(2, {"ac_power": 2.0}))
    again.finish()
    assert [line.split(",")[2] for line in (tmp_path / "out.csv").read_text().splitlines()] == ["ac_power", "1", "2"]
    assert names(tmp_path) == ["out.csv"]


def test_before_the_first_whole_page_nothing_stays(opened, tmp_path):
    file = opened()
    file.begin(POINTS)
    file.close()
    assert names(tmp_path) == []


def test_a_crash_before_the_first_page_leaves_nothing_to_go_on_from(opened, tmp_path):
    (tmp_path / "out.csv.part").write_text("time,stat")
    file = opened()
    assert file.progress.until is None
    file.begin(POINTS)
    file.finish()
    assert (tmp_path / "out.csv").read_text() == "time,status,ac_power,running\n"


def test_what_is_finished_is_not_overwritten_unless_told(opened, tmp_path):
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(FileInTheWayError, match=r"out\.csv is there already; name another file, or overwrite it"):
        opened()
    file = opened(force=True)
    assert (tmp_path / "out.csv").read_text() == "mine", "until there is something in its place"
    file.begin(POINTS)
    file.finish()
    assert (tmp_path / "out.csv").read_text() != "mine"


def halfway(opened):
    file = opened()
    file.begin(POINTS)
    file.write(page(0, {"ac_power": 1.0}))
    file.close()


def test_another_request_does_not_go_on_with_it(opened, tmp_path):
    halfway(opened)
    with pytest.raises(FileInTheWayError, match=r"belongs to another request \(SN 2026-06-01 2026-06-02 minutes csv\)"):
        opened(step="day")
    assert (tmp_path / "out.csv.part").stat().st_size, "and does it no harm"
    file = opened(force=True, step="day")
    assert file.progress.until is None
    assert (tmp_path / "out.csv.part").read_text() == ""


def test_other_columns_do_not_go_on_with_it(opened):
    halfway(opened)
    file = opened()
    with pytest.raises(FileInTheWayError, match="other columns"):
        file.begin(("ac_power",))


def test_two_at_once(opened):
    opened()
    with pytest.raises(FileInTheWayError, match="another `sems-gateway history` is writing"):
        opened()


def test_a_spoilt_progress(opened, tmp_path):
    halfway(opened)
    (tmp_path / "out.csv.part").write_text("short")
    with pytest.raises(FileInTheWayError, match="shorter than it was"):
        opened()
    (tmp_path / "out.csv.progress").write_text("{")
    with pytest.raises(FileInTheWayError, match="can't be read; begin anew with --force"):
        opened()


def test_where_nothing_can_be_written(opened, tmp_path):
    with pytest.raises(FileInTheWayError, match="there is no directory"):
        opened(name="nowhere/out.csv")
    (tmp_path / "a.part").mkdir()
    with pytest.raises(FileInTheWayError, match=r"a\.part can't be written \(Is a directory\)"):
        opened(name="a")


def test_a_full_disk_leaves_what_is_whole(opened, tmp_path):
    halfway(opened)
    file = opened()
    file.begin(POINTS)
    kept = file._file
    file._file = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115 - closed below
    with pytest.raises(FileInTheWayError, match="No space left on device"):
        file.write(page(1, {"ac_power": 2.0}))
    file._file.close()
    file._file = kept
    file.close()
    assert opened().progress.until == NOON + timedelta(days=1)
