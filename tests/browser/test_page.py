"""The gateway's page in a real browser: what a person sees, presses and is told."""

import json

import pytest

from gateway.api.bridge import BridgeSettings
from gateway.core.findings import FindingCode
from gateway.core.model import Alarm, DeviceKind
from tests.bridges.web.conftest import SN, TOKENS, WRITER, served
from tests.kit.bench import EVERYTHING, INVERTER, Silent, collected, until
from tests.kit.chromium import driven
from tests.kit.ports import free_port
from tests.kit.terminal import HOSTILE

TAGS = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>" + HOSTILE[:40]
ENTER = """v => {
  const field = document.getElementById('value');
  field.value = v;
  field.dispatchEvent(new Event('input', {bubbles: true}));
}"""
LIVE = "!document.body.classList.contains('lost')"
FLOWS = {
    "pv_power": 5000.0, "battery_power": -2000.0, "grid_power": -1000.0, "load_power": 2000.0, "battery_soc": 80.0,
}  # fmt: skip
WAYS = "Object.fromEntries([...document.querySelectorAll('[data-node]')].map(e => [e.dataset.node, e.dataset.flow]))"


def text(id_):
    return f"document.getElementById({id_!r}).innerText"


def has(id_, words):
    return f"{text(id_)}.includes({json.dumps(words)})"


def click(id_):
    return f"document.getElementById({id_!r}).click()"


async def give_token(tab, token=WRITER):
    await tab.run(f"document.getElementById('token').value = {token!r}; document.getElementById('token-open').click()")
    await tab.run("document.getElementById('token-form').requestSubmit()")
    await tab.until(f"{LIVE} && !document.getElementById('halt').disabled")


async def open_device(tab, serial=SN):
    await tab.until(f"[...document.querySelectorAll('#devices .row')].some(row => row.innerText.includes({serial!r}))")
    await tab.run(
        f"[...document.querySelectorAll('#devices .row')].find(row => row.innerText.includes({serial!r})).click()"
    )


def announce_plant(bench, **changes):
    plant = {"serial": "plant-1", "kind": DeviceKind.PLANT, "name": "Home", "plant": "", "setpoints": {}} | changes
    return bench.announce(**plant)


@pytest.fixture
async def it(tmp_path):
    async with served(tmp_path / "data") as web:
        announce_plant(web.bench)
        web.bench.publish(ac_power=4210.0)
        web.bench.publish("plant-1", **FLOWS)
        yield web


async def test_data_appear_and_change_and_nothing_is_asked_of_others(it, tmp_path):
    async with driven(it.url + "/", tmp_path / "browser") as tab:
        await tab.until(f"{LIVE} && {has('devices', 'AC 4.21 kW')}")
        assert "House" in await tab.run(text("devices"))
        drawn = await tab.run("document.querySelector('#plants svg').getAttribute('aria-label')")
        assert drawn == "PV 5.00 kW, grid exports 1.00 kW, battery charges 2.00 kW, load 2.00 kW"
        assert await tab.run(WAYS) == {"pv": "in", "grid": "out", "battery": "out", "load": "out"}

        it.bench.publish(ac_power=-5000.0)
        it.bench.publish("plant-1", **FLOWS | {"grid_power": 1500.0, "battery_power": 500.0})
        await tab.until(has("devices", "AC -5.00 kW"))
        await tab.until(f"({WAYS}).grid === 'in' && ({WAYS}).battery === 'in'")

        now = it.bench.clock.now()
        runner = it.bench.services.router
        runner.alarms("scripted", SN, [Alarm(serial=SN, id="1", code="512", text="Isolation", raised=now)])
        await tab.until(has("alarms", "512 Isolation"))
        runner.alarms("scripted", SN, [])
        await tab.until(has("alarms", "None is active"))
        assert "up web" in await tab.run(text("bridges"))
        assert {url.startswith(it.url) for url in tab.requests if not url.startswith("about:")} == {True}
        assert tab.console == []


async def test_a_command_is_checked_first_and_then_runs_through(it, tmp_path):
    async with driven(it.url + "/", tmp_path / "browser") as tab:
        await tab.until(LIVE)
        await open_device(tab)
        await tab.until(has("set-why", "write: true"))
        await give_token(tab)
        await tab.until("!document.getElementById('set-form').hidden")

        await tab.run(
            "document.getElementById('setpoint').value = 'active_power_limit';"
            "document.getElementById('setpoint').dispatchEvent(new Event('change'))"
        )
        await tab.run(f"({ENTER})('150')")
        await tab.run(click("explain"))
        await tab.until(has("explained", "out_of_range"))
        assert await tab.run("document.getElementById('send').disabled")

        await tab.run(f"({ENTER})('60')")
        await tab.run(click("explain"))
        await tab.until(has("explained", "Permitted"))
        # What was found of one value says nothing of another.
        await tab.run(f"({ENTER})('61')")
        assert await tab.run("document.getElementById('send').disabled")
        assert it.controller.sent == []

        await tab.run(f"({ENTER})('60')")
        await tab.run(click("explain"))
        await tab.until("!document.getElementById('send').disabled")
        it.controller.gate.clear()
        await tab.run(click("send"))
        await tab.until(f"{has('commands', 'accepted')} && {has('commands', 'sent')}")
        assert "succeeded" not in await tab.run(text("commands"))
        it.controller.gate.set()
        await tab.until(has("commands", "succeeded"))
        assert "this page" in await tab.run(text("commands"))
        assert [command.value for command in it.controller.sent] == [60]
        assert tab.console == []


async def test_halt_works_and_says_so(it, tmp_path):
    async with driven(it.url + "/", tmp_path / "browser") as tab:
        await tab.until(f"{LIVE} && {has('halted', 'not halted')}")
        assert await tab.run("document.getElementById('halt').disabled")
        await give_token(tab)
        await tab.run("document.getElementById('halt-reason').value = 'smoke'")
        await tab.run(click("halt"))
        await tab.until(has("halted", "HALTED"))
        await tab.until(has("halted", "smoke"))
        assert it.bench.halting.current.reason == "smoke"
        # Nobody but the command line may resume here: the page says that it did not.
        await tab.run(click("resume"))
        await tab.until(has("problem", "resume did not succeed"))
        assert it.bench.halting.current is not None
        # Halted and resumed by others is seen too.
        await it.bench.halting.resume("cli:somebody")
        it.bench.router.halt_changed()
        await tab.until(has("halted", "not halted"))


async def test_what_is_lost_is_said_and_greyed_and_comes_back(tmp_path):
    port = free_port()
    async with served(tmp_path / "data", port=port) as it:
        it.bench.publish(ac_power=1000.0)
        async with driven(it.url + "/", tmp_path / "browser") as tab:
            await tab.until(f"{LIVE} && {has('devices', 'AC 1.00 kW')}")
            assert tab.console == []
            await it.runner.stop()
            await tab.until(f"!({LIVE}) && {has('stream', 'Not live since')}")
            assert await tab.run("getComputedStyle(document.getElementById('devices')).filter") == "grayscale(1)"
            it.bench.publish(ac_power=2000.0)
            it.runner.start()
            await tab.until(f"{LIVE} && {has('devices', 'AC 2.00 kW')}")
            assert {source for source, _ in tab.console} <= {"network"}


async def test_steps_that_came_while_the_stream_was_lost_are_asked_for(tmp_path):
    port = free_port()
    async with served(tmp_path / "data", port=port) as it:
        it.bench.publish(ac_power=1000.0)
        async with driven(it.url + "/", tmp_path / "browser") as tab:
            await tab.until(LIVE)
            it.controller.gate.clear()
            await it.set({"active_power_limit": 50})
            await tab.until(has("commands", "sent"))
            await it.runner.stop()
            async with collected(it.bench.router) as (events, _):
                it.controller.gate.set()
                await until(lambda: any(event.state.final for event in events))
            await tab.until(f"!({LIVE})")
            it.runner.start()
            await tab.until(f"{LIVE} && {has('commands', 'succeeded')}")
            assert (await tab.run(text("commands"))).count("accepted") == 1


async def test_a_device_that_is_gone_is_not_shown_as_there(it, tmp_path):
    async with driven(it.url + "/", tmp_path / "browser") as tab:
        await tab.until(LIVE)
        await open_device(tab)
        await tab.until(has("device", "4210"))
        it.bench.router.withdraw("scripted", SN)
        await tab.until(has("device-state", "not known any more"))
        assert "House" not in await tab.run(text("devices"))


async def test_what_is_old_is_not_shown_as_new(it, tmp_path):
    it.bench.announce(serial="OLD", name="Shed")
    it.bench.publish("OLD", age=7200.0, ac_power=1.0)
    async with driven(it.url + "/", tmp_path / "browser") as tab:
        row = "[...document.querySelectorAll('#devices .row')].find(row => row.innerText.includes('Shed'))"
        await tab.until(f"{LIVE} && {row}?.innerText.includes('stale, 2 h')")
        assert await tab.run(f"{row}.classList.contains('old')")


async def test_names_from_outside_are_text(it, tmp_path):
    it.bench.announce(serial="EVIL", name=TAGS, model=TAGS)
    it.bench.publish("EVIL", status=TAGS)
    announce_plant(it.bench, name=TAGS)
    now = it.bench.clock.now()
    it.bench.router.alarms("scripted", SN, [Alarm(serial=SN, id=TAGS, code=TAGS, text=TAGS, raised=now)])
    async with driven(it.url + "/", tmp_path / "browser") as tab:
        await tab.until(f"{LIVE} && {has('devices', '<img src=x')} && {has('plants', '<img src=x')}")
        await tab.until(has("alarms", "<script>document"))
        await open_device(tab, "EVIL")
        await tab.until(has("device", "<img src=x"))
        assert await tab.run("document.querySelectorAll('img, main script').length") == 0
        assert await tab.run("document.title") != "owned"
        assert tab.console == []


async def test_of_thousands_only_those_in_sight_are_there(it, tmp_path):
    for number in range(2000):
        it.bench.announce(serial=f"SN{number:05}", name=f"Inverter {number:05}")
        it.bench.publish(f"SN{number:05}", ac_power=float(number), battery_soc=50.0)
    async with driven(it.url + "/", tmp_path / "browser") as tab:
        await tab.until(f"{LIVE} && {text('count')} === '2001 of 2001'")
        rows = "document.querySelectorAll('#devices .row').length"
        assert 3 < await tab.run(rows) < 40
        await tab.run("document.getElementById('devices').focus()")
        await tab.key("End", 35)
        await tab.until(has("devices", "Inverter 01999"))
        assert await tab.run(rows) < 40
        await tab.key("Enter", 13)
        await tab.until(has("device-title", "Inverter 01999"))
        assert await tab.run("document.activeElement.id") == "device-title"
        await tab.run(
            "document.getElementById('search').value = 'SN00042';"
            "document.getElementById('search').dispatchEvent(new Event('input'))"
        )
        await tab.until(f"{text('count')} === '1 of 2001'")
        assert "Inverter 00042" in await tab.run(text("devices"))


async def test_without_a_token_it_asks_for_one(tmp_path):
    async with served(tmp_path / "data", token="a-token-for-every-reader", tokens=TOKENS) as it:
        it.bench.publish(ac_power=1000.0)
        async with driven(it.url + "/", tmp_path / "browser") as tab:
            await tab.until("!document.getElementById('token-form').hidden")
            assert SN not in await tab.run("document.body.innerText")
            await tab.run("document.getElementById('token').value = 'a-token-for-every-reader'")
            await tab.run("document.getElementById('token-form').requestSubmit()")
            await tab.until(f"{LIVE} && {has('devices', INVERTER.name)}")
            await until(lambda: it.runner.bridge._streams.readers)


async def test_a_bridge_that_is_down_says_why_and_a_finding_its_remedy(it, tmp_path):
    runner = it.bench.run(Silent, BridgeSettings(), "broken")
    async with driven(it.url + "/", tmp_path / "browser") as tab:
        await tab.until(LIVE)
        context = runner.bridge.context
        context.report(up=False, detail="SEMS refuses the login; trying again in 60 s")
        await tab.until(f"{has('bridges', 'down broken')} && {has('bridges', 'refuses the login')}")
        context.find(next(iter(FindingCode)), SN, TAGS, "put it right")
        await tab.until("document.querySelector('#bridges summary') !== null")
        await tab.run("document.querySelector('#bridges summary').click()")
        await tab.until(f"{has('bridges', '<img src=x')} && {has('bridges', 'put it right')}")
        # What was opened stays open where the bridges change.
        context.report(up=True)
        await tab.until(f"{has('bridges', 'up broken')} && {has('bridges', 'put it right')}")
        assert tab.console == []


async def test_who_may_resume_does_so_here(tmp_path):
    control = EVERYTHING.model_copy(update={"resume": ["web/scada"]})
    async with served(tmp_path / "data", control=control) as it, driven(it.url + "/", tmp_path / "browser") as tab:
        await tab.until(LIVE)
        await give_token(tab)
        await tab.run(click("halt"))
        await tab.until(has("halted", "HALTED"))
        await tab.run(click("resume"))
        await tab.until(has("halted", "not halted"))
        assert it.bench.halting.current is None
        assert tab.console == []
