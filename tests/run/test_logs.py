"""What is logged, and how that is changed while the gateway runs."""

import json

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
