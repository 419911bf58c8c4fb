"""A generation of the SEMS Open API is one file: here is a third one, found, entered and polled."""

from pathlib import Path

import pytest

from gateway.bridges.open_api import OpenApiBridge, OpenApiSettings
from gateway.bridges.push.settings import PushSettings
from gateway.sems import catalogue
from gateway.simulator import Simulator, SimulatorSettings
from tests.bridges.open_api.kit import CONTROL, HOUSE, ended
from tests.kit.bench import Bench, until
from tests.kit.clock import NOON

SHIPPED = Path(catalogue.__file__).with_name("catalogues")
RENAMED = {
    "api: open_api\n": "api: third\n",
    "title: SEMS Open API, classic\n": "title: SEMS Open API, the third\n",
    "platform: classic\n": "platform: third\n",
    "enters: [account, password]\n": "enters: [client_id, client_secret]\n",
    "host: https://openapi.semsportal.com\n": "",
    "base: /api/OpenApi/\n": "base: /v3/\n",
    "path: GetToken\n": "path: enter\n",
    "{field: account, arg: account,": "{field: who, arg: account,",
    "{field: pac,": "{field: acPower,",
}


@pytest.fixture
def third(tmp_path, monkeypatch):
    """Have a third file beside those that are shipped, and nothing else."""
    folder = tmp_path / "catalogues"
    folder.mkdir()
    for file in SHIPPED.glob("*.yaml"):
        (folder / file.name).write_bytes(file.read_bytes())
    text = (SHIPPED / "open_api.yaml").read_text("utf-8")
    for old, new in RENAMED.items():
        assert old in text, old
        text = text.replace(old, new)
    (folder / "third.yaml").write_text(text, "utf-8")
    monkeypatch.setattr(catalogue, "FOLDER", folder)
    catalogue.platforms.cache_clear()
    yield catalogue.load("third")
    catalogue.platforms.cache_clear()


def login(**changes):
    return {"platform": "third", "client_id": "demo", "client_secret": "demo"} | changes


async def test_it_is_found_entered_polled_and_commanded(third, tmp_path):
    settings = SimulatorSettings(port=0, start=NOON, calls_per_hour=0, device_delay=0)
    simulator = Simulator(settings, catalogue=third)
    await simulator.start()
    try:
        async with Bench(tmp_path, CONTROL) as bench:
            made = OpenApiSettings(**login(url=simulator.url, poll_interval=0.1, calls_per_hour=10_000_000))
            runner = bench.run(OpenApiBridge, made, "sems")
            bench.dispatcher.use({"sems": runner.bridge})
            state = await until(lambda: (s := bench.router.state(HOUSE)) and s.values.get("ac_power") is not None and s)
            assert state.source == "sems"
            assert {call.api for call in simulator.cloud.calls} == {"third"}
            (end,) = await ended(bench, bench.command(serial=HOUSE, setpoint="active_power_limit", value=60))
            assert end.state == "succeeded", end
        assert list(tmp_path.glob("third-*-session.json")), "what it keeps is apart from that of other generations"
    finally:
        await simulator.stop()


def test_the_file_says_how_one_enters_and_where_it_stands(third):
    assert OpenApiSettings(**login(region="au")).host == "https://au-gateway.semsportal.com"
    with pytest.raises(ValueError, match="platform third is entered by client_id and client_secret"):
        OpenApiSettings(platform="third", account="demo", password="demo")
    assert PushSettings(secret="0123456789abcdef", platform="third").catalogue.api == "third"


def test_without_the_file_there_is_none():
    with pytest.raises(ValueError, match="there is no platform 'third'; known here: "):
        OpenApiSettings(**login())
