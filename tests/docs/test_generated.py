"""What the docs and the golden files say is what the code says today."""

import re

import pytest
import yaml

from gateway.core.points import SETPOINTS
from tests.docs.generated import PARTS, Part
from tests.docs.setpoints import neutral
from tests.kit.process import ROOT


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_it_is_of_today(part):
    """Lines of golden files are addresses that SCADA systems read: none of them ever shifts."""
    assert part.lost() == [], "clients rely on these"
    assert part.is_of_today(), f"{part.name} is out of date: `make docs` renews it"


def test_renewed_it_is_of_today_and_what_stands_around_it_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.docs.generated.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("before\n\n<!-- a -->\n\nold\n\n<!-- end -->\n\nbehind\n<!-- end -->\n")
    part = Part("page.md", lambda: "new\nlines\n", "a", "end")
    assert not part.is_of_today()
    part.renew()
    assert part.is_of_today()
    assert page.read_text() == "before\n\n<!-- a -->\n\nnew\nlines\n\n<!-- end -->\n\nbehind\n<!-- end -->\n"


def test_what_clients_rely_on_is_found_lost(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.docs.generated.ROOT", tmp_path)
    (tmp_path / "golden.csv").write_text("1,power\n2,limit\n")
    assert Part("golden.csv", lambda: "1,power\n3,limit\n4,more\n", lasting=True).lost() == ["2,limit"]
    assert Part("golden.csv", lambda: "1,power\n2,limit\n4,more\n", lasting=True).lost() == []


@pytest.mark.parametrize("point", SETPOINTS.values(), ids=lambda point: point.id)
def test_a_dead_mans_timer_has_something_to_set(point):
    assert neutral(point)


def test_every_setting_of_the_example_stands_in_its_table():
    """The example has every setting, so each section and type of the page has those that the example has of it."""
    example = yaml.safe_load((ROOT / "config.example.yaml").read_text())
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    parts = dict(re.findall(r"^## `(.+?)`\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    asked = {f"{name}:": example[name] for name in ("gateway", "log", "control", "audit")}
    asked |= {f"type: {settings['type']}": settings for settings in example["bridges"].values()}
    missing = []
    for part, settings in asked.items():
        for name, value in settings.items():
            inner = [f"{name}.{key}" for key in value] if isinstance(value, dict) else []
            rows = re.findall(r"^\| `(.+?)` \|", parts[part], re.MULTILINE)
            found = {row.replace(".*", "") for row in rows}
            groups = any(row.startswith(f"{name}.") for row in found)
            missing += [f"{part} {one}" for one in (name, *(inner if groups else ())) if one not in found | {"type"}]
    assert missing == []
