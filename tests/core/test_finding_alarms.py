"""A finding that readers of a device's values must know is an alarm of it, beside those that SEMS has."""

from gateway.api.bridge import BridgeSettings
from gateway.core.findings import FindingCode
from gateway.core.model import Alarm, Severity
from tests.kit.bench import INVERTER, Bench, Silent, until
from tests.kit.clock import NOON

SIGN = FindingCode.SIGN_DOUBTFUL
FAN = Alarm(serial=INVERTER.serial, id="7", code="77", text="Fan slow", raised=NOON)


def codes(bench):
    return sorted(alarm.code for alarm in bench.router.alarm_book.of(INVERTER.serial))


async def started(bench):
    bench.announce()
    runner = bench.run(Silent, BridgeSettings(), "sems")
    await until(lambda: any(status.up for status in bench.router.bridges()))
    return runner


async def test_it_stands_beside_the_alarms_of_its_bridge_until_it_is_settled(tmp_path):
    async with Bench(tmp_path) as bench:
        runner = await started(bench)
        runner.alarms(INVERTER.serial, [FAN])
        runner.find(SIGN, INVERTER.serial, "the other sign fits", "turn it")
        runner.find(FindingCode.ZONE_UNKNOWN, INVERTER.serial, "no zone")
        assert codes(bench) == ["77", "sign_doubtful"]
        runner.alarms(INVERTER.serial, [])
        assert codes(bench) == ["sign_doubtful"]
        (alarm,) = bench.router.alarm_book.of(INVERTER.serial)
        assert (alarm.severity, alarm.text) == (Severity.WARNING, "the other sign fits")
        assert bench.router.state(INVERTER.serial).values["alarms_active"] == 1
        runner.settle(SIGN, INVERTER.serial)
        assert codes(bench) == []


async def test_it_ends_where_its_bridge_begins_anew(tmp_path):
    async with Bench(tmp_path) as bench:
        runner = await started(bench)
        runner.find(SIGN, INVERTER.serial, "the other sign fits")
        await bench.router.alarm_book.save()
        runner.begin_anew()
        await until(lambda: codes(bench) == [])


async def test_one_of_the_last_run_ends_at_the_start_and_one_of_sems_stays(tmp_path):
    async with Bench(tmp_path) as bench:
        bench.router.alarm_book.restore(tmp_path, ["sems", ":sems"])
        runner = await started(bench)
        runner.alarms(INVERTER.serial, [FAN])
        runner.find(SIGN, INVERTER.serial, "the other sign fits")
        await bench.router.alarm_book.save()
    async with Bench(tmp_path) as bench:
        bench.router.alarm_book.restore(tmp_path, ["sems", ":sems"])
        assert codes(bench) == ["77", "sign_doubtful"]
        bench.run(Silent, BridgeSettings(), "sems")
        await until(lambda: codes(bench) == ["77"])


async def test_a_device_that_is_gone_leaves_no_doubt_behind(tmp_path):
    async with Bench(tmp_path) as bench:
        runner = await started(bench)
        runner.announce(INVERTER)
        runner.find(SIGN, INVERTER.serial, "the other sign fits")
        runner.withdraw(INVERTER.serial)
        assert codes(bench) == []
        (status,) = bench.router.bridges()
        assert not status.findings
