"""A push alone makes no device, unless the configuration says that it may, and then a few a day."""

from datetime import timedelta

import pytest

from gateway.bridges.push import PushBridge, PushSettings
from gateway.core.clock import SystemClock
from gateway.sems.catalogue import load
from tests.bridges.push.conftest import SECRET, SN, pushed_to
from tests.kit.bench import INVERTER, until


class Calendar(SystemClock):
    """Its date can be moved on."""

    ahead = timedelta()

    def now(self):
        return super().now() + self.ahead


def findings(it):
    status = next(s for s in it.bench.router.bridges() if s.name == "push")
    return {f.code.value: f for f in status.findings}


async def test_a_made_up_device_is_not_announced(tmp_path, capsys):
    async with pushed_to(tmp_path, announce=False) as it:
        for n in range(50):
            answer = await it.post(it.inverter(123_000_000, sn=f"MADE-UP-{n}"))
            assert answer.status_code == 422
            assert "nobody knows it" in answer.text
        assert it.bench.router.announced() == []
        assert it.archive.kept == []
        assert it.counts == {"unknown": 50}
        finding = findings(it)["devices_unknown"]
        assert "MADE-UP-9 " in finding.text
        assert "MADE-UP-10" not in finding.text
        assert "bridges.push.devices" in finding.remedy
        assert capsys.readouterr().out.count("finding=devices_unknown") == 1


def test_that_is_so_by_default():
    assert PushSettings(secret=SECRET).announce is False


@pytest.mark.parametrize("interface", [i.name for i in load("open_api").interfaces if i.use in ("alarms", "series")])
async def test_nor_is_it_by_alarms_or_a_series(tmp_path, interface):
    async with pushed_to(tmp_path, announce=False) as it:
        entry = {"sn": "MADE-UP", "time": it.local(), "errorMsg": "x", "pac": 1, "warning_id": "1"}
        for data in ([entry], {"list": [entry]}, entry):
            answer = await it.post({"interface": interface, "sn": "MADE-UP", "plant_id": "MADE-UP", "data": data})
            assert answer.status_code in (204, 422)  # 204: an empty list of nobody
        assert it.bench.router.announced() == []


async def test_what_another_bridge_knows_is_taken_and_the_rest_of_the_request_is_named(tmp_path):
    async with pushed_to(tmp_path, announce=False) as it:
        assert (await it.post(it.inverter(1))).status_code == 422
        it.bench.announce(INVERTER)
        answer = await it.post([it.inverter(2), it.inverter(3, sn="MADE-UP")])
        assert answer.status_code == 200
        assert (answer.json()["taken"], answer.json()["unknown"]) == (1, 1)
        assert [each["index"] for each in answer.json()["dropped"]] == [1]
        assert it.values()["ac_power"] == 2
        assert "MADE-UP" in findings(it)["devices_unknown"].text
        assert SN not in findings(it)["devices_unknown"].text


async def test_what_was_known_once_is_known_after_a_restart(tmp_path):
    async with pushed_to(tmp_path, announce=False) as it:
        it.bench.announce(INVERTER)
        assert (await it.post(it.inverter(1))).status_code == 204
    async with pushed_to(tmp_path, announce=False) as it:
        # The cloud was not asked yet.
        assert it.bench.router.announced() == []
        assert (await it.post(it.inverter(2))).status_code == 204
        assert it.values()["ac_power"] == 2


async def test_what_the_configuration_names_in_full_is_known(tmp_path):
    async with pushed_to(tmp_path, announce=False, devices=[SN, "90*"]) as it:
        assert (await it.post(it.inverter(1))).status_code == 204
        assert (await it.post(it.inverter(1, sn="9010OTHER"))).status_code == 422


async def test_where_a_push_may_announce_it_may_so_a_few_times_a_day(tmp_path):
    clock, settings = Calendar(), {"announce": True, "announce_most": 2}

    async def statuses(it, *numbers):
        return [(await it.post(it.inverter(n, sn=f"NEW-{n}"))).status_code for n in numbers]

    async with pushed_to(tmp_path, clock=clock, **settings) as it:
        assert await statuses(it, 1, 2, 3, 1, 4) == [204, 204, 422, 204, 422]
        assert it.counts["unknown"] == 2
        await it.runner.stop()
        second = it.bench.run(PushBridge, PushSettings(port=0, secret=SECRET, **settings), "push")
        it.runner = second
        await until(lambda: second.bridge.port)
        # The same day, and those of it are known.
        assert await statuses(it, 5, 1, 2) == [422, 204, 204]
        clock.ahead = timedelta(days=1)
        assert await statuses(it, 5, 6, 7) == [204, 204, 422]
        assert {s.device.serial for s in it.bench.router.announced()} == {"NEW-1", "NEW-2", "NEW-5", "NEW-6"}


async def test_what_was_announced_by_pushes_alone_is_not_known_where_they_may_not_any_more(tmp_path):
    async with pushed_to(tmp_path, announce=True) as it:
        assert (await it.post(it.inverter(1))).status_code == 204
    async with pushed_to(tmp_path, announce=False) as it:
        assert (await it.post(it.inverter(1))).status_code == 422
