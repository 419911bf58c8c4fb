"""The last line of defence: whatever reaches a terminal or the log is text, however it came there."""

import ast
import io
import json
from pathlib import Path

import msgspec
import pytest
import structlog
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gateway.core.text import MAX_LINE
from gateway.run import logs
from gateway.run.settings import LogSettings
from gateway.terminal import console
from tests.kit.terminal import HOSTILE, harm

ROOT = Path(__file__).parents[2] / "gateway"


def table(text):
    made = Table(escape(text), title=escape(text))
    made.add_row(escape(text))
    made.add_row(Text(text))
    return made


@pytest.mark.parametrize(
    "renderable",
    [
        escape(HOSTILE), Text(HOSTILE[:200]), table(HOSTILE), Group(Text(HOSTILE[:200]), table(HOSTILE)),
        f"[red]{escape(HOSTILE)}[/]",
    ],
    ids=["str", "Text", "table", "group", "markup"],
)  # fmt: skip
@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_console_writes_no_control_character_of_a_text(renderable, is_terminal):
    out = console.Terminal(file=io.StringIO(), force_terminal=is_terminal, width=200, soft_wrap=True, highlight=False)
    out.print(renderable)
    out.print("plain [bold]words[/]")
    written = out.file.getvalue()
    assert not harm(written)
    assert "\\u202e" in written, "it is shown, and not left out"
    assert "words" in written


def test_json_is_escaped_and_says_the_same(capsys):
    said = {HOSTILE: [HOSTILE, "ü😀\U000e0041"], "lone": 1}
    console.write(msgspec.json.format(msgspec.json.encode(said)).decode())
    written = capsys.readouterr().out
    assert not [trouble for trouble in harm(written) if "long" not in trouble]
    assert "\U000e0041" not in written
    assert json.loads(written) == said


@pytest.mark.parametrize("format_", ["console", "json"])
def test_the_log_has_no_control_character_and_ends(capsys, format_):
    before = structlog.get_config()
    try:
        logs.configure(LogSettings(format=format_, level="debug"))
        log = structlog.get_logger("x")
        log.warning(
            HOSTILE, name=HOSTILE, names=[HOSTILE, {HOSTILE: HOSTILE}], error=ValueError(HOSTILE), many=["n"] * 10_000
        )
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            log.exception("crashed")
    finally:
        structlog.configure(**before)
    written = capsys.readouterr().err
    assert len(written) < 20 * MAX_LINE
    assert "\\u202e" in written
    assert not [trouble for trouble in harm(written) if "long" not in trouble]
    if format_ == "json":
        first = json.loads(written.splitlines()[0])
        assert not [harm(text) for text in (first["event"], first["name"], first["names"][0]) if harm(text)]
        assert len(first["many"]) < 1000


def test_an_error_that_nobody_expected_is_escaped_too(capsys):
    console._crashed(ValueError, ValueError(HOSTILE), None)
    written = capsys.readouterr().err
    assert "ValueError" in written or "y" * 100 in written
    assert not [trouble for trouble in harm(written) if "long" not in trouble]


def test_nothing_else_writes_to_a_terminal():
    """Who makes a console of Rich's own, or writes by himself, is not looked after by `gateway.terminal.console`."""
    writers = {
        "Console", "rich.print", "print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write",
    }  # fmt: skip
    found = {
        f"{path.relative_to(ROOT)}: {ast.unparse(node.func)}"
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in writers
    }
    assert found == {
        "terminal/console.py: sys.stdout.write",
        "terminal/console.py: sys.stderr.write",
        "run/log_writer.py: sys.stderr.write",
    }
