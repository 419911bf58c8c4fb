"""Metrics and health over real HTTP."""

import asyncio
import threading

import httpx
import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from gateway.bridges.web import WebBridge, WebSettings
from gateway.core.findings import FindingCode
from gateway.core.model import Alarm, Quality, Severity
from tests.kit.bench import INVERTER, Bench, until


async def get(runner, path, **headers):
    await until(lambda: runner.bridge.port)
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"http://127.0.0.1:{runner.bridge.port}{path}", headers=headers)


async def test_metrics_are_what_prometheus_reads(tmp_path):
    async with Bench(tmp_path) as bench:
        bench.announce()
        bench.publish(age=7, ac_power=1.0)
        alarms = [
            Alarm(serial=INVERTER.serial, id=id_, severity=Severity.WARNING, raised=bench.clock.now()) for id_ in "12"
        ]
        bench.router.alarms("scripted", INVERTER.serial, alarms)
        runner = bench.run(WebBridge, WebSettings(port=0), "web")
        await until(bench.router.bridges)
        answer = await get(runner, "/metrics")
        families = {f.name: f.samples for f in text_string_to_metric_families(answer.text)}
        assert {s.labels["quality"]: s.value for s in families["sems_gateway_devices"]} == {
            "good": 1,
            "stale": 0,
            "offline": 0,
        }
        assert {s.labels["severity"]: s.value for s in families["sems_gateway_alarms"]} == {
            "info": 0,
            "warning": 2,
            "fault": 0,
        }
        (age,) = families["sems_gateway_data_age_seconds"]
        assert age.labels == {"serial": INVERTER.serial, "kind": "storage"}
        assert 7 <= age.value < 10
        assert [s.value for s in families["sems_gateway_bridge_up"]] == [1]


async def test_while_metrics_of_many_devices_are_formatted_the_loop_is_free(tmp_path, monkeypatch):
    """A scrape of 10,000 devices takes tenths of a second: the loop's part of it is one metric a turn."""
    async with Bench(tmp_path) as bench:
        for n in range(100):
            bench.announce(serial=f"SN{n}")
            bench.publish(f"SN{n}", ac_power=1.0)
        runner = bench.run(WebBridge, WebSettings(port=0), "web")
        made, add, at, turn = set(), GaugeMetricFamily.add_metric, {}, 0

        def adding(family, labels, value):
            if family.name == "sems_gateway_data_age_seconds":
                made.add(threading.get_ident())
            else:
                at[family.name] = turn
            add(family, labels, value)

        async def others():
            nonlocal turn
            while True:
                await asyncio.sleep(0)
                turn += 1

        monkeypatch.setattr(GaugeMetricFamily, "add_metric", adding)
        other = asyncio.create_task(others())
        answer = await get(runner, "/metrics")
        other.cancel()
        assert answer.text.count("sems_gateway_data_age_seconds{") == 100
        assert made
        assert threading.get_ident() not in made
        own = [turn for name, turn in at.items() if name.startswith("sems_gateway_")]
        assert len(set(own)) == len(own) > 5


async def test_ready_is_when_all_bridges_are_up(tmp_path):
    async with Bench(tmp_path) as bench:
        runner = bench.run(WebBridge, WebSettings(port=0), "web")
        await until(bench.router.bridges)
        assert (await get(runner, "/readyz")).status_code == 200
        runner.report(up=False, detail="broken for a test")
        answer = await get(runner, "/readyz")
        assert (answer.status_code, answer.json()) == (503, {"ready": False, "down": ["web"], "halted": False})
        assert (await get(runner, "/healthz")).text == "ok\n"


async def test_with_a_token_metrics_are_for_those_who_have_it(tmp_path):
    async with Bench(tmp_path) as bench:
        runner = bench.run(WebBridge, WebSettings(port=0, token="s3cret"), "web")
        assert (await get(runner, "/metrics")).status_code == 401
        assert (await get(runner, "/metrics", Authorization="Bearer wrong")).status_code == 401
        assert (await get(runner, "/metrics", Authorization="Bearer s3cret")).status_code == 200
        assert (await get(runner, "/healthz")).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "gateway.local"])
def test_open_to_others_needs_a_token(host):
    with pytest.raises(ValidationError, match="set token"):
        WebSettings(host=host)
    WebSettings(host=host, token="t")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_needs_none(host):
    assert WebSettings(host=host).token is None


async def test_a_port_in_use_is_said_and_taken_up_later(tmp_path):
    async with Bench(tmp_path) as bench:
        first = bench.run(WebBridge, WebSettings(port=0), "first")
        await until(lambda: first.bridge.port)
        bench.run(WebBridge, WebSettings(port=first.bridge.port), "second")
        status = await until(lambda: next((s for s in bench.router.bridges() if s.name == "second"), None))
        assert not status.up
        assert "set bridges.second.port" in status.detail


async def test_what_a_bridge_doubts_is_shown_until_it_is_settled(tmp_path):
    async with Bench(tmp_path) as bench:
        runner = bench.run(WebBridge, WebSettings(port=0), "web")
        await until(bench.router.bridges)
        runner.find(FindingCode.LIST_DOUBTED, "P1", "2 of 9 devices are left", "wait")
        runner.find(FindingCode.ZONE_INFERRED, "P1", "UTC+02:00")
        runner.find(FindingCode.LIST_DOUBTED, "P1", "3 of 9 devices are left", "wait")

        answer = await get(runner, "/readyz")
        assert answer.status_code == 200, "doubts about data are no reason to send no requests"
        (shown,) = answer.json()["findings"]
        assert shown == {"bridge": "web", "code": "list_doubted", "subject": "P1", "text": "3 of 9 devices are left"}
        families = {f.name: f.samples for f in text_string_to_metric_families((await get(runner, "/metrics")).text)}
        assert {s.labels["code"]: s.value for s in families["sems_gateway_findings"]} == {
            "list_doubted": 1,
            "zone_inferred": 1,
        }
        (status,) = (await get(runner, "/api/v1/bridges")).json()["bridges"].values()
        assert [found["remedy"] for found in status["findings"]] == ["wait", ""]

        runner.settle(FindingCode.LIST_DOUBTED, "P1")
        assert "findings" not in (await get(runner, "/readyz")).json()


async def points_shown(runner):
    families = {f.name: f.samples for f in text_string_to_metric_families((await get(runner, "/metrics")).text)}
    assert "sems_gateway_bridge_up" in families
    return {(s.labels["serial"], s.labels["point"]): s.value for s in families.get("sems_gateway_point", [])}


async def test_points_are_metrics_where_they_are_wanted_and_only_while_they_are_good(tmp_path):
    async with Bench(tmp_path) as bench:
        bench.announce()
        bench.publish(interval=60, ac_power=4200.0, running=True, work_mode="general", pv_power=5000.0)
        wanted = ["ac_power", "battery_soc", "running"]
        runner = bench.run(WebBridge, WebSettings(port=0, metrics_points=wanted), "web")
        await until(bench.router.bridges)
        sn = INVERTER.serial
        assert await points_shown(runner) == {(sn, "ac_power"): 4200, (sn, "running"): 1}
        bench.publish(interval=0.001, ac_power=4300.0)
        await until(lambda: bench.router.age() or bench.router.state(sn).quality is Quality.STALE)
        assert await points_shown(runner) == {}
        bench.publish(interval=60, ac_power=10.0)
        assert await points_shown(runner) == {(sn, "ac_power"): 10}


async def test_points_are_no_metrics_unless_they_are_named(tmp_path):
    async with Bench(tmp_path) as bench:
        bench.announce()
        bench.publish(ac_power=4200.0)
        runner = bench.run(WebBridge, WebSettings(port=0), "web")
        await until(bench.router.bridges)
        assert await points_shown(runner) == {}


@pytest.mark.parametrize(("name", "said"), [("ac_powr", "did you mean ac_power"), ("work_mode", "is no number")])
def test_points_that_can_be_no_metrics_are_refused(name, said):
    with pytest.raises(ValidationError, match=said):
        WebSettings(metrics_points=[name])
