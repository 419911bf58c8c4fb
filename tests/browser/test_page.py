"""The gateway's page in a real browser: what a person sees, presses and is told."""

import csv
import io
import json
import os
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.api.bridge import BridgeSettings
from gateway.bridges.modbus import ModbusBridge, ModbusSettings
from gateway.core.findings import FindingCode
from gateway.core.model import Alarm, DeviceKind
from tests.bridges.web.conftest import SN, TOKENS, WRITER, served
from tests.bridges.web.test_served import Caller
from tests.kit.bench import EVERYTHING, INVERTER, Silent, collected, until
from tests.kit.chromium import driven
from tests.kit.ports import free_port
from tests.kit.terminal import HOSTILE

# One browser for all, so one loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

TAGS = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>" + HOSTILE[:40]
AXE = Path(__file__).parents[2] / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
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
NONE = "\N{EN DASH}"
VIEWS = ("plants", "devices", "registers", "commands", "system")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory):
    async with driven(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def it(tmp_path):
    async with served(tmp_path / "data") as web:
        announce_plant(web.bench)
        web.bench.publish(ac_power=4210.0)
        web.bench.publish("plant-1", **FLOWS)
        yield web


def text(id_):
    return f"document.getElementById({id_!r}).innerText"


def has(id_, words):
    return f"{text(id_)}.includes({json.dumps(words)})"


def click(id_):
    return f"document.getElementById({id_!r}).click()"


def at(web, view="plants"):
    return f"{web.url}/#/{view}"


async def go(tab, view):
    """Show another view by its link."""
    await tab.run(f"document.querySelector('nav a[href=\"#/{view}\"]').click()")
    await tab.until(f"!document.querySelector('[data-view={view}]').hidden")


async def give_token(tab, token=WRITER):
    await tab.run(f"document.getElementById('token').value = {token!r}; document.getElementById('token-open').click()")
    await tab.run("document.getElementById('token-form').requestSubmit()")
    await tab.until(f"{LIVE} && !document.getElementById('halt').disabled")


async def open_device(tab, serial=SN):
    await tab.until(f"[...document.querySelectorAll('#devices .row')].some(row => row.innerText.includes({serial!r}))")
    await tab.run(
        f"[...document.querySelectorAll('#devices .row')].find(row => row.innerText.includes({serial!r})).click()"
    )
    await tab.until("document.activeElement.id === 'device-title'")


def announce_plant(bench, **changes):
    plant = {"serial": "plant-1", "kind": DeviceKind.PLANT, "name": "Home", "plant": "", "setpoints": {}} | changes
    return bench.announce(**plant)


async def with_modbus(web, *maps):
    runner = web.bench.run(ModbusBridge, ModbusSettings(port=0, maps=maps or ["native"]), "modbus")
    await until(lambda: runner.bridge.register_maps(SN))
    return runner.bridge


async def test_data_appear_and_change_and_nothing_is_asked_of_others(it, browser):
    async with browser.tab(at(it)) as tab:
        await tab.until(f"{LIVE} && document.querySelector('#plants svg') !== null")
        drawn = await tab.run("document.querySelector('#plants svg').getAttribute('aria-label')")
        assert drawn == "PV 5.00 kW, grid exports 1.00 kW, load 2.00 kW, battery charges 2.00 kW"
        assert await tab.run(WAYS) == {"pv": "in", "grid": "out", "battery": "out", "load": "out"}
        totals = (await tab.run(text("totals"))).split("\n")
        assert totals == ["PV", "5.00 kW", "Load", "2.00 kW", "Grid", "1.00 kW", "exports", "Battery", "2.00 kW",
                          "charges", "Devices", "1", "good, all"]  # fmt: skip
        it.bench.publish("plant-1", **FLOWS | {"grid_power": 1500.0, "battery_power": 500.0})
        await tab.until(f"({WAYS}).grid === 'in' && ({WAYS}).battery === 'in'")

        await go(tab, "devices")
        await tab.until(has("devices", "AC 4.21 kW"))
        assert "House" in await tab.run(text("devices"))
        it.bench.publish(ac_power=-5000.0)
        await tab.until(has("devices", "AC \N{MINUS SIGN}5.00 kW"))

        await go(tab, "system")
        now = it.bench.clock.now()
        runner = it.bench.services.router
        runner.alarms("scripted", SN, [Alarm(serial=SN, id="1", code="512", text="Isolation", raised=now)])
        await tab.until(f"{has('alarms', '512 Isolation')} && {text('alarm-count')} === '1 alarm'")
        runner.alarms("scripted", SN, [])
        await tab.until(f"{has('alarms', 'None is active')} && document.getElementById('alarm-count').hidden")
        assert "up web" in await tab.run(text("bridges"))
        assert {url.startswith(it.url) for url in tab.requests if not url.startswith("about:")} == {True}
        assert tab.console == []


async def test_a_command_is_checked_first_and_then_runs_through(it, browser):
    async with browser.tab(at(it, "devices")) as tab:
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
        # Its steps come where it was sent, and with all others.
        await tab.until(f"{has('following', 'accepted')} && {has('following', 'sent')}")
        assert "succeeded" not in await tab.run(text("following"))
        await tab.until(f"{text('open-count')} === '1 open'")
        it.controller.gate.set()
        await tab.until(has("following", "succeeded"))
        assert await tab.run("document.getElementById('open-count').hidden")
        await go(tab, "commands")
        commands = await tab.run(text("commands"))
        assert [word in commands for word in ("accepted", "sent", "succeeded", "this page", "House")] == [True] * 5
        assert [command.value for command in it.controller.sent] == [60]
        assert tab.console == []


async def focused(tab, selector):
    """Press Tab until that has the focus."""
    seen = []
    for _ in range(60):
        if await tab.run(f"document.activeElement.matches({selector!r})"):
            return
        await tab.key("Tab")
        seen.append(await tab.run("document.activeElement.id || document.activeElement.tagName"))
    raise AssertionError(f"the keyboard does not get to {selector}: {seen}")


async def test_all_of_it_works_by_the_keyboard(it, browser):
    async with browser.tab(at(it)) as tab:
        await tab.until(LIVE)
        await focused(tab, "#token-open")
        await tab.key("Enter")
        await tab.until("document.activeElement.id === 'token'")
        await tab.type(WRITER)
        await tab.key("Enter")
        await tab.until(f"{LIVE} && !document.getElementById('halt').disabled")

        await focused(tab, "nav a[href='#/devices']")
        await tab.key("Enter")
        await tab.until("document.activeElement.id === 'devices-title'")
        await focused(tab, "#devices")
        await tab.key("End")
        await tab.key("Enter")
        await tab.until("document.activeElement.id === 'device-title' && !document.getElementById('set-form').hidden")
        assert SN in await tab.run(text("device-state"))
        await focused(tab, "#setpoint")
        # By its name, as a list takes letters.
        await tab.run("document.activeElement.value = 'active_power_limit'")
        await tab.run("document.activeElement.dispatchEvent(new Event('change'))")
        await focused(tab, "#value")
        await tab.type("60")
        await tab.key("Enter")
        await tab.until("!document.getElementById('send').disabled")
        await focused(tab, "#send")
        await tab.key("Enter")
        await tab.until(has("following", "succeeded"))
        assert [command.value for command in it.controller.sent] == [60]
        # Shift and Tab lead back to what closes it, and that to the list.
        await tab.run("document.getElementById('device-title').focus()")
        await focused(tab, "#device-close")
        await tab.key("Enter")
        await tab.until("document.activeElement.id === 'devices' && document.getElementById('device').hidden")

        await tab.run("document.activeElement.blur()")
        await focused(tab, "#halt-reason")
        await tab.type("by hand")
        await focused(tab, "#halt")
        await tab.key("Enter")
        await tab.until(has("halted", "HALTED"))
        assert it.bench.halting.current.reason == "by hand"
        assert tab.console == []


async def test_halt_works_and_says_so(it, browser):
    async with browser.tab(at(it, "registers")) as tab:
        await tab.until(f"{LIVE} && {has('halted', 'not halted')}")
        assert await tab.run("document.getElementById('halt').disabled")
        await give_token(tab)
        for view in VIEWS:
            await go(tab, view)
            size = await tab.run(
                "(box => [box.width, box.height])(document.getElementById('halt').getBoundingClientRect())"
            )
            assert size[0] > 150, view
            assert size[1] > 40, view
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


async def test_what_is_lost_is_said_and_greyed_and_comes_back(tmp_path, browser):
    port = free_port()
    async with served(tmp_path / "data", port=port) as it:
        it.bench.publish(ac_power=1000.0)
        async with browser.tab(at(it, "devices")) as tab:
            await tab.until(f"{LIVE} && {has('devices', 'AC 1.00 kW')}")
            assert tab.console == []
            await it.runner.stop()
            await tab.until(f"!({LIVE}) && {has('stream', 'Not live since')}")
            assert await tab.run("getComputedStyle(document.querySelector('main')).filter") == "grayscale(1)"
            halted = "getComputedStyle(document.getElementById('halted')).color"
            assert await tab.run(f"{halted} !== getComputedStyle(document.body).color")
            it.bench.publish(ac_power=2000.0)
            it.runner.start()
            await tab.until(f"{LIVE} && {has('devices', 'AC 2.00 kW')}")
            assert {source for source, _ in tab.console} <= {"network"}


async def test_steps_that_came_while_the_stream_was_lost_are_asked_for(tmp_path, browser):
    port = free_port()
    async with served(tmp_path / "data", port=port) as it:
        it.bench.publish(ac_power=1000.0)
        async with browser.tab(at(it, "commands")) as tab:
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


async def test_a_device_that_is_gone_is_not_shown_as_there(it, browser):
    async with browser.tab(at(it, "devices")) as tab:
        await tab.until(LIVE)
        await open_device(tab)
        await tab.until(has("device", "4210"))
        assert await tab.run("document.querySelector('#device-values td:last-child').innerText") == "W"
        it.bench.router.withdraw("scripted", SN)
        await tab.until(has("device-state", "not known any more"))
        assert "House" not in await tab.run(text("devices"))


async def test_what_is_old_is_not_shown_as_new(it, browser):
    it.bench.announce(serial="OLD", name="Shed")
    it.bench.publish("OLD", age=7200.0, ac_power=1.0)
    announce_plant(it.bench, serial="plant-2", name="Cabin")
    it.bench.publish("plant-2", age=7200.0, **FLOWS)
    async with browser.tab(at(it)) as tab:
        cabin = "document.querySelector('#plants [data-serial=plant-2]')"
        await tab.until(f"{LIVE} && {cabin}?.innerText.includes('stale, 2 h old')")
        amount = "getComputedStyle(document.querySelector('[data-serial={}] .amount')).fill"
        assert await tab.run(amount.format("plant-2")) != await tab.run(amount.format("plant-1"))
        # No sum has it.
        assert "5.00 kW\n1 of 2 plants" in await tab.run(text("totals"))
        await go(tab, "devices")
        row = "[...document.querySelectorAll('#devices .row')].find(row => row.innerText.includes('Shed'))"
        await tab.until(f"{LIVE} && {row}?.innerText.includes('stale, 2 h')")
        assert await tab.run(f"{row}.classList.contains('old')")
        colour = "getComputedStyle({}.querySelector('.power')).color"
        new = "[...document.querySelectorAll('#devices .row')].find(row => row.innerText.includes('House'))"
        assert await tab.run(colour.format(row)) != await tab.run(colour.format(new))


async def test_names_from_outside_are_text(it, browser):
    it.bench.announce(serial="EVIL", name=TAGS, model=TAGS)
    it.bench.publish("EVIL", status=TAGS)
    announce_plant(it.bench, name=TAGS)
    now = it.bench.clock.now()
    it.bench.router.alarms("scripted", SN, [Alarm(serial=SN, id=TAGS, code=TAGS, text=TAGS, raised=now)])
    await with_modbus(it)
    async with browser.tab(at(it)) as tab:
        await tab.until(f"{LIVE} && {has('plants', '<img src=x')}")
        await go(tab, "system")
        await tab.until(has("alarms", "<script>document"))
        await go(tab, "devices")
        await tab.until(has("devices", "<img src=x"))
        await open_device(tab, "EVIL")
        await tab.until(has("device", "<img src=x"))
        await tab.run("location.hash = '#/registers/EVIL'")
        await tab.until(has("registers", "<img src=x"))
        assert await tab.run("document.querySelectorAll('main img, main script').length") == 0
        assert await tab.run("document.title") != "owned"
        assert tab.console == []


async def test_of_thousands_only_those_in_sight_are_there(it, browser):
    for number in range(2000):
        it.bench.announce(serial=f"SN{number:05}", name=f"Inverter {number:05}")
        it.bench.publish(f"SN{number:05}", ac_power=float(number), battery_soc=50.0)
    async with browser.tab(at(it, "devices")) as tab:
        await tab.until(f"{LIVE} && {text('count')} === '2002 of 2002'")
        rows = "document.querySelectorAll('#devices .row').length"
        elements = "document.querySelectorAll('#devices *').length"
        assert 3 < await tab.run(rows) < 40
        assert await tab.run(elements) < 40 * 8 + 1
        # A step of the wheel makes and takes away the rows that come and go, and touches no other.
        await tab.run(
            "window.made = 0; new MutationObserver(all => all.forEach(each => window.made += each.addedNodes.length))"
            ".observe(document.getElementById('devices'), {childList: true});"
            "document.getElementById('devices').scrollTop = 64 * 500"
        )
        await tab.until(has("devices", "Inverter 00505"))
        before = await tab.run("window.made")
        await tab.run("document.getElementById('devices').scrollTop += 64 * 3")
        await tab.until(f"window.made > {before}")
        assert await tab.run("window.made") - before == 3
        await tab.run("document.getElementById('devices').focus()")
        await tab.key("End")
        await tab.until(has("devices", "Inverter 01999"))
        assert await tab.run(rows) < 40
        await tab.key("Enter")
        await tab.until(has("device-title", "Inverter 01999"))
        assert await tab.run("document.activeElement.id") == "device-title"
        await tab.run(
            "document.getElementById('search').value = 'SN00042';"
            "document.getElementById('search').dispatchEvent(new Event('input'))"
        )
        await tab.until(f"{text('count')} === '1 of 2002'")
        assert "Inverter 00042" in await tab.run(text("devices"))
        # Curves are asked for of those in sight alone.
        asked = [url for url in tab.requests if "/recent?" in url]
        assert len({serial for url in asked for serial in url.split("serial=")[1:]}) < 120


CURVE = """async values => {
  const {curveOf} = await import('/static/curves.js');
  return curveOf({point: 'ac_power', values}, 3600, 100, 24)?.querySelector('.drawn').getAttribute('d') ?? null;
}"""


async def test_the_last_hours_are_drawn_with_their_gaps(tmp_path, browser):
    async with served(tmp_path / "data", recent=120) as it:
        it.bench.publish(ac_power=4210.0)
        await until(lambda: it.runner.bridge._recent._curves)
        async with browser.tab(at(it, "devices")) as tab:
            await tab.until("document.querySelector('#devices .row .drawn') !== null")
            label = "document.querySelector('#devices .row svg').getAttribute('aria-label')"
            assert await tab.run(label) == "last 2 min: 4.21 kW to 4.21 kW"
            it.bench.publish(ac_power=1000.0)
            await tab.until(f"{label} === 'last 2 min: 1.00 kW to 4.21 kW'")
            await open_device(tab)
            await tab.until("document.querySelector('#device-curve .drawn') !== null")
            assert "highest 4.21 kW" in await tab.run(text("device-curve"))
            # A line for each run of values: nothing is drawn across a gap, and one value alone is a dot.
            assert await tab.run(f"({CURVE})([null, 0, 10, null, 10])") == "M25.0 22.0L50.0 2.0M100.0 2.0h.01"
            assert await tab.run(f"({CURVE})([null, null, null])") is None
            assert tab.console == []


REGISTERS = (
    "[...document.querySelectorAll('#registers-rows tr')].map(row => [...row.cells].map(cell => cell.innerText))"
)


CLIPBOARD = """Object.defineProperty(navigator, 'clipboard', {
  value: {writeText: async words => { window.copied = words; }},
})"""


async def registers(tab, *names):
    found = await tab.run(REGISTERS)
    return {row[0]: row for row in found if row[1] in names}


async def test_registers_are_those_that_are_served(it, browser):
    it.bench.publish(ac_power=4210.0, energy_total=12.5)
    bridge = await with_modbus(it, "native", "sunspec")
    async with browser.tab(at(it, f"registers/{SN}")) as tab:
        await tab.until(has("registers", "4210"))
        served_now = {str(row.address): row for row in bridge.served_registers(SN, "native")}
        found = await registers(tab, "ac_power", "device.serial", "pv1_voltage")
        assert len(found) > 4
        for address, (_, name, raw, value, unit, type_, access, state) in found.items():
            row = served_now[address]
            assert (name, unit, type_, access) == (row.point, row.unit, row.type, row.access)
            assert [int(word, 16) for word in raw.split()] == list(row.raw)
            assert value == (NONE if row.value is None else str(row.value).removesuffix(".0"))
            assert state == {"absent": "not there"}.get(row.state, row.state)
        it.bench.publish(ac_power=1234.0)
        await tab.until(has("registers", "1234"))

        await tab.run("document.getElementById('registers-find').value = 'AC_Power'")
        await tab.run("document.getElementById('registers-there').click()")
        assert {row[1] for row in await tab.run(REGISTERS)} >= {"ac_power"}
        assert all("ac_power" in row[1] and row[3] != NONE for row in await tab.run(REGISTERS))
        await tab.run(CLIPBOARD)
        await tab.run(click("registers-copy"))
        await tab.until("window.copied")
        copied = list(csv.DictReader(io.StringIO(await tab.run("window.copied"))))
        assert [row["address"] for row in copied] == [row[0] for row in await tab.run(REGISTERS)]
        assert {row["value"] for row in copied if row["name"] == "ac_power"} == {"1234"}

        await tab.run("document.getElementById('registers-find').value = ''")
        await tab.run(
            "(map => { map.selectedIndex = 1; map.dispatchEvent(new Event('change')); })"
            "(document.getElementById('registers-map'))"
        )
        await tab.until(f"({REGISTERS})[0][0] === '40000'")
        assert tab.console == []


async def test_registers_of_old_data_are_never_shown_as_live(it, browser):
    await with_modbus(it)
    it.bench.announce(serial="OLD", name="Shed")
    it.bench.publish("OLD", age=7200.0, ac_power=4567.0, energy_total=12.5)
    async with browser.tab(at(it, "registers/OLD")) as tab:
        await tab.until(has("registers-state", "data stale, 2 h old"))
        await tab.until(has("registers-state", "are refused"))
        assert "4567" not in await tab.run(text("registers"))
        powers = [row for row in await tab.run(REGISTERS) if row[1] == "ac_power"]
        assert {row[7] for row in powers} == {"not readable", "not there"}
        assert {row[3] for row in powers} == {NONE}
        totals = [row for row in await tab.run(REGISTERS) if row[1] == "energy_total" and row[3] != NONE]
        assert {(row[3], row[7]) for row in totals} == {("12.5", "stale")}
        await tab.run("location.hash = '#/registers/nowhere'")
        await tab.until(has("registers-state", "no device 'nowhere' is known"))
        assert await tab.run(REGISTERS) == []


async def test_text_that_a_spreadsheet_would_run_is_copied_as_text(it, browser):
    it.bench.announce(serial="EVIL", name='=HYPERLINK("http://x")')
    it.bench.publish("EVIL", ac_power=-5.0)
    await with_modbus(it)
    async with browser.tab(at(it, "registers/EVIL")) as tab:
        await tab.until(has("registers", "HYPERLINK"))
        await tab.run(CLIPBOARD)
        await tab.run(click("registers-copy"))
        rows = csv.DictReader(io.StringIO(await tab.until("window.copied")))
        values = {row["name"]: row["value"] for row in rows if row["value"]}
        assert values["device.name"] == '\'=HYPERLINK("http://x")'
        assert values["ac_power"] == "-5"


async def test_where_no_bridge_serves_a_device_it_says_so(it, browser):
    async with browser.tab(at(it, "registers")) as tab:
        await tab.until(has("registers-state", "No bridge serves this device over Modbus"))
        assert await tab.run("document.getElementById('registers-device').value") == SN


async def test_the_calls_that_are_left_are_shown(it, browser):
    it.bench.run(Caller, Silent.Settings(), "sems")
    async with browser.tab(at(it, "system")) as tab:
        await tab.until(has("budgets", "188 left"))
        assert "412 of 600 calls used in the last hour; polling plans 510 an hour" in await tab.run(text("budgets"))
        assert await tab.run("document.querySelector('#budgets .meter').ariaValueNow") == "412"


async def test_without_a_token_it_asks_for_one(tmp_path, browser):
    async with served(tmp_path / "data", token="a-token-for-every-reader", tokens=TOKENS) as it:
        it.bench.publish(ac_power=1000.0)
        async with browser.tab(at(it, "devices")) as tab:
            await tab.until("!document.getElementById('token-form').hidden")
            assert SN not in await tab.run("document.body.innerText")
            await tab.run("document.getElementById('token').value = 'a-token-for-every-reader'")
            await tab.run("document.getElementById('token-form').requestSubmit()")
            await tab.until(f"{LIVE} && {has('devices', INVERTER.name)}")
            await until(lambda: it.runner.bridge._streams.readers)


async def test_a_bridge_that_is_down_says_why_and_a_finding_its_remedy(it, browser):
    runner = it.bench.run(Silent, BridgeSettings(), "broken")
    async with browser.tab(at(it, "system")) as tab:
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


async def test_who_may_resume_does_so_here(tmp_path, browser):
    control = EVERYTHING.model_copy(update={"resume": ["web/scada"]})
    async with served(tmp_path / "data", control=control) as it, browser.tab(at(it)) as tab:
        await tab.until(LIVE)
        await give_token(tab)
        await tab.run(click("halt"))
        await tab.until(has("halted", "HALTED"))
        await tab.run(click("resume"))
        await tab.until(has("halted", "not halted"))
        assert it.bench.halting.current is None
        assert tab.console == []


def need_axe():
    if not AXE.exists():
        words = "axe-core is not installed (tests/programs does it, with npm)"
        pytest.fail(words) if os.environ.get("SEMS_GATEWAY_NO_SKIP") == "1" else pytest.skip(words)
    return AXE.read_text("utf-8")


FAULTS = """axe.run(document, {resultTypes: ['violations']}).then(found => found.violations
  .filter(each => ['serious', 'critical'].includes(each.impact))
  .map(each => `${each.id}: ${each.nodes.map(node => node.html).join(' | ')}`))"""


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
async def test_no_view_shuts_anybody_out(tmp_path, browser, scheme, width):
    axe = need_axe()
    control = EVERYTHING.model_copy(update={"resume": ["web/scada"]})
    async with served(tmp_path / "data", control=control, recent=120) as it:
        announce_plant(it.bench)
        it.bench.publish(ac_power=4210.0)
        it.bench.publish("plant-1", **FLOWS)
        it.bench.announce(serial="OLD", name="Shed")
        it.bench.publish("OLD", age=7200.0, ac_power=4567.0, energy_total=12.5)
        now = it.bench.clock.now()
        for severity in ("info", "warning", "fault"):
            it.bench.router.alarms(
                "scripted", SN, [Alarm(serial=SN, id=severity, code="5", text="x", severity=severity, raised=now)]
            )
        it.bench.run(Caller, Silent.Settings(), "sems")
        it.runner.find(next(iter(FindingCode)), SN, "doubtful", "put it right")
        await with_modbus(it)
        await until(lambda: it.runner.bridge._recent._curves)
        async with browser.tab(at(it), width=width, scheme=scheme, still=True) as tab:
            assert await tab.run("matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")
            await tab.until(LIVE)
            await tab.run(f"{axe}; true")
            await give_token(tab)
            await it.set({"active_power_limit": 50})
            await it.set({"active_power_limit": 500})
            found = {}
            for view in VIEWS:
                await go(tab, view)
                if view == "registers":
                    # A few rows: there are hundreds that look the same.
                    await tab.run("document.getElementById('registers-find').value = '100'")
                    await tab.until(f"({REGISTERS}).length")
                if view == "system":
                    await tab.until(has("budgets", "188 left"))
                found[view] = await tab.run(FAULTS)
            # What else a view may look like: each in one of both.
            if scheme == "light":
                await go(tab, "devices")
                await open_device(tab)
                await tab.until("!document.getElementById('set-form').hidden")
                await tab.run(f"({ENTER})('50')")
                await tab.run(click("explain"))
                await tab.until("document.getElementById('checks').children.length")
                await tab.run(click("halt"))
                await tab.until(has("halted", "HALTED"))
                found["device, halted"] = await tab.run(FAULTS)
            else:
                await tab.run("document.getElementById('registers-find').value = '10'")
                await tab.run("location.hash = '#/registers/OLD'")
                await tab.until(has("registers-state", "are refused"))
                await it.runner.stop()
                await tab.until(f"!({LIVE})")
                found["stale registers, lost"] = await tab.run(FAULTS)
        assert found == {view: [] for view in found}
