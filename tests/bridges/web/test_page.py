"""The files of the page. What it does in a browser, tests/browser/test_page.py shows."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gateway.bridges.web.page import FOLDER
from tests.bridges.web.conftest import served

ROOT = Path(__file__).parents[3]
FILES = sorted(each.name for each in FOLDER.iterdir())


async def test_it_is_there_without_a_token_and_shows_nothing_of_the_plants(tmp_path):
    async with served(tmp_path, token="a-token-for-every-reader") as it:
        it.bench.publish(ac_power=1.0)
        page = await it.get("/")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "test-gateway" not in page.text
        for name in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
            answer = await it.get(name)
            assert answer.status_code == 200, name
        assert (await it.get("/static/../bridge.py")).status_code == 404
        assert (await it.get("/", headers={"Host": "rebound.example"})).status_code == 403


async def test_a_browser_is_told_to_take_nothing_else_for_a_script(it):
    for path in ["/", *(f"/static/{name}" for name in FILES if name != "index.html")]:
        answer = await it.get(path)
        policy = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert {policy[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
        assert policy["require-trusted-types-for"] == "'script'"
        assert policy["frame-ancestors"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", FILES)
def test_no_file_has_a_script_in_its_line_or_names_another_site(name):
    text = FOLDER.joinpath(name).read_text("utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|\son\w+=|style=", text)
    assert set(re.findall(r"https?://[^\s\"')]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_it_gets_into_the_wheel(tmp_path):
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assert {f"gateway/bridges/web/static/{name}" for name in FILES} <= names
