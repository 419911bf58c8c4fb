"""What is logged, and how that is changed while the gateway runs."""

import json
import os

import pytest
import structlog

from gateway.run import logs
from gateway.run.settings import LogSettings


@pytest.fixture(autouse=True)
def _as_before():
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_a_logger_that_is_held_obeys_a_change_of_level_at_once(capsys):
    logs.configure(LogSettings(level="warning", format="json"))
    log = structlog.get_logger("x").bind(bridge="mqtt")
    log.info("first")
    log.warning("second")
    logs.set_level("debug")
    log.debug("third")
    log.exception("fourth")  # noqa: LOG004 - its level has another name
    logs.set_level("error")
    log.warning("fifth")
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["level"]) for line in said] == [
        ("second", "warning"), ("third", "debug"), ("fourth", "error"),
    ]  # fmt: skip


def test_there_are_four_levels():
    with pytest.raises(KeyError):
        logs.set_level("loud")


@pytest.mark.parametrize(
    ("variables", "first"),
    [({}, "2"), ({"container": "docker"}, "{"), ({"JOURNAL_STREAM": "of standard error"}, "[")],
    ids=["a person", "a container", "the journal"],
)
def test_whoever_reads_it_gets_what_is_for_him(tmp_path, monkeypatch, variables, first):
    """Time first for a person, none for systemd's journal, which has its own; JSON in a container."""
    monkeypatch.setattr(logs, "Path", lambda _: tmp_path / "no such file")
    with (tmp_path / "err").open("w+") as err:
        monkeypatch.setattr(logs.sys, "stderr", err)
        for name in ("container", "JOURNAL_STREAM"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            found = os.fstat(err.fileno())
            monkeypatch.setenv(name, f"{found.st_dev}:{found.st_ino}" if name == "JOURNAL_STREAM" else value)
        logs.configure(LogSettings())
        structlog.get_logger("x").warning("hello")
        logs.writer.flush(5.0)
        err.seek(0)
        assert err.read().startswith(first)
