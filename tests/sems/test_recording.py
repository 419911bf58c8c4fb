"""A recording of what SEMS answered, written and read."""

from datetime import UTC, datetime

import pytest

from gateway.sems import recording
from gateway.sems.recording import Answer, RecordingError, Writer, read

MADE = datetime(2026, 6, 21, 12, 0, tzinfo=UTC)
ANSWER = Answer("GetInverterBySN", {"invertersn": "A1"}, MADE, 200, {"code": 0, "data": {"pac": 1.5, "x": [None, "ü"]}})


def test_what_is_written_is_read(tmp_path):
    page = Answer("GetUserPlantList", {"page_index": 1}, MADE, 502, "<html>")
    with Writer(tmp_path / "r", "open_api", MADE, "1.0") as writer:
        writer.write(ANSWER)
        writer.write(page)
    read_back = read(tmp_path / "r")
    assert (read_back.api, read_back.made, read_back.gateway) == ("open_api", MADE, "1.0")
    assert read_back.answers == (ANSWER, page)
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o600


HEAD = '{"sems_recording": 1, "api": "open_api", "made": "2026-06-21T12:00:00Z", "gateway": "1.0"}\n'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("hello\n", 1),
        ("\xff\xfe\n", 1),
        ("[1]\n", 1),
        (HEAD.replace(": 1,", ": 2,"), 1),
        (HEAD.replace("open_api", "else"), 1),
        (HEAD.replace("Z", ""), 1),
        (HEAD + "\n{}\n", 3),
        (HEAD + '{"interface": "X", "args": {}, "time": "2026-06-21T12:00:00Z", "status": 200}\n', 2),
        (HEAD + "[" * 5000 + "]" * 5000, 2),
    ],
)
def test_an_error_names_the_line(tmp_path, text, line):
    (tmp_path / "r").write_text(text, "latin-1")
    with pytest.raises(RecordingError, match=rf"/r:{line}: .*; "):
        read(tmp_path / "r")


def test_what_is_read_is_bounded(tmp_path, monkeypatch):
    with Writer(tmp_path / "r", "open_api", MADE, "1.0") as writer:
        for _ in range(3):
            writer.write(ANSWER)
    monkeypatch.setattr(recording, "MAX_ANSWERS", 2)
    with pytest.raises(RecordingError, match=r"/r:4: .* more than 2 answers"):
        read(tmp_path / "r")
    monkeypatch.setattr(recording, "MAX_BYTES", 10)
    with pytest.raises(RecordingError, match="longer"):
        read(tmp_path / "r")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(RecordingError, match="learn CONFIG --record"):
        read(tmp_path / "r")
    with pytest.raises(RecordingError, match="can't be written"), Writer(tmp_path / "no" / "r", "open_api", MADE, "1"):
        pass
