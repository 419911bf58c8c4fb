import msgspec
import pytest
import structlog
from structlog.testing import capture_logs

from gateway.core import files
from gateway.core.kept_file import KeptFile


class Kept(msgspec.Struct):
    version: int
    names: list[str]


def kept(path, type_=Kept, version=1):
    log = structlog.get_logger("test")
    return KeptFile(path, type_, log, version=version, unreadable="lost", unwritable="not stored")


def events(logs):
    return [(entry["event"], entry["log_level"]) for entry in logs]


async def test_what_is_written_is_read_again_and_for_nobody_else(tmp_path):
    file = kept(tmp_path / "sub" / "kept.json")
    assert file.read() is None
    assert not file.damaged
    assert await file.write(msgspec.json.encode(Kept(1, ["a"])))
    assert kept(file.path).read() == Kept(1, ["a"])
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_a_type_without_a_version_needs_none(tmp_path):
    (tmp_path / "kept.json").write_text('{"a": 1}')
    assert kept(tmp_path / "kept.json", dict[str, int], None).read() == {"a": 1}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[" * 100_000, b'{"version":2,"names":[]}', b'{"version":1,"names":3}']
)
def test_a_damaged_file_counts_as_lost_and_is_logged(tmp_path, content):
    file = kept(tmp_path / "kept.json")
    file.path.write_bytes(content)
    with capture_logs() as logs:
        assert file.read() is None
    assert file.damaged
    assert events(logs) == [("lost", "warning")]
    assert logs[0]["file"] == str(file.path)


async def test_a_disk_that_takes_nothing_is_logged_once_until_it_takes_something(tmp_path, monkeypatch):
    file, real = kept(tmp_path / "kept.json"), files.replace

    def full(*_):
        raise OSError(28, "No space left on device")

    with capture_logs() as logs:
        for disk, works in ((full, False), (full, False), (real, True), (full, False)):
            monkeypatch.setattr(files, "replace", disk)
            assert await file.write(b"{}") is works
            assert file.works is works
    assert events(logs) == [("not stored", "warning")] * 2
    assert "No space left" in logs[0]["error"]


@pytest.mark.parametrize("content", [None, b"", b"{", b"\0" * 40, b'{"version":1,"names":["b"]}\0\0\0'])
async def test_where_a_file_is_damaged_or_gone_what_it_held_before_serves_and_is_told_once(tmp_path, content):
    file = kept(tmp_path / "kept.json")
    for name in "ab":
        await file.write(msgspec.json.encode(Kept(1, [name])))
    file.path.unlink()
    if content is not None:
        file.path.write_bytes(content)
    with capture_logs() as logs:
        assert kept(file.path).read() == kept(file.path).read() == Kept(1, ["a"])
    assert events(logs) == [("a file was damaged; what it held before serves", "warning")]
    aside = file.path.with_name("kept.json.damaged")
    assert (aside.read_bytes() if aside.exists() else None) == content
    await file.write(msgspec.json.encode(Kept(1, ["c"])))
    file.path.write_bytes(b"")
    assert kept(file.path).read() == Kept(1, ["a"]), "never what was damaged"


async def test_of_a_file_that_the_disk_cannot_read_what_it_held_before_serves(tmp_path, monkeypatch):
    file = kept(tmp_path / "kept.json")
    for name in "ab":
        await file.write(msgspec.json.encode(Kept(1, [name])))
    real = type(file.path).read_bytes

    def broken(path):
        if path == file.path:
            raise OSError(5, "Input/output error")
        return real(path)

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(type(file.path), "read_bytes", broken)
        assert kept(file.path).read() == Kept(1, ["a"])
    assert events(logs) == [("a file was damaged; what it held before serves", "warning")]
    file.path.with_name("kept.json.damaged").unlink()
    file.path.unlink()
    file.path.mkdir()
    assert kept(file.path).read() == kept(file.path).read() == Kept(1, ["a"])
    assert file.path.is_file()


async def test_without_hard_links_what_a_file_held_before_stays_too(tmp_path, monkeypatch):
    def link(*_, **__):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", link)
    file = kept(tmp_path / "kept.json")
    for name in "ab":
        await file.write(msgspec.json.encode(Kept(1, [name])))
    assert file.read() == Kept(1, ["b"])
    file.path.unlink()
    assert file.read() == Kept(1, ["a"])
