"""Commands to Kafka, results from it: what a user, and GoodWe, sees of it."""

import json
from collections import Counter
from zlib import crc32

import pytest

from gateway.core.model import CommandState, DeviceKind, Range, Reason
from gateway.kafka.error_messages import UNKNOWN_TOPIC
from gateway.simulator.controls import Obedience
from tests.bridges.batch.kit import HOUSE, ROOF, device, plant, result
from tests.kit.bench import until

FORMER = {"battery_power_target": Range(0, 5000), "battery_target_soc": Range(10, 100), "battery_mode": Range()}


async def test_a_command_goes_to_the_mock_and_its_result_ends_it(mock, tmp_path):
    async with plant(tmp_path / "data", mock) as it:
        it.join()
        await it.up()
        command = it.command(serial=HOUSE, value=40)
        end = await it.done(command)
        assert (end.state, end.detail, end.verified) == (CommandState.SUCCEEDED, "done", False)
        assert [e.state for e in it.steps(command)][:2] == [CommandState.ACCEPTED, CommandState.SENT]
        assert it.goodwe.world.setpoints(HOUSE).active_power_limit == 40


async def test_the_six_interfaces_carry_their_fields(cluster, tmp_path):
    async with plant(tmp_path / "data", cluster) as it:
        it.announce(device(**FORMER))
        it.join()
        await it.up()
        told = {
            "running": False, "active_power_limit": 60, "reactive_power": -10, "export_limit": 3000, "work_mode": "eco",
            "battery_mode": "charge",
        }  # fmt: skip
        # What other bridges don't set is added to what they know.
        await until(lambda: told.keys() <= it.router.state(HOUSE).device.setpoints.keys())
        assert it.router.state(HOUSE).device.setpoints["battery_power_target"] == Range(0, 5000)
        # A new work mode takes the battery's orders back, so the battery is told last.
        first = await it.done(*(it.command(name, told[name], serial=HOUSE) for name in list(told)[:-1]))
        ends = [*first, await it.done(it.command("battery_mode", told["battery_mode"], serial=HOUSE))]
        assert {e.state for e in ends} == {CommandState.SUCCEEDED}
        found = it.goodwe.world.setpoints(HOUSE)
        assert [getattr(found, name) for name in told] == list(told.values())
        await it.done(it.command("power_factor", 0.9, serial=HOUSE))
        await it.done(it.command("battery_power_target", 2000, serial=HOUSE))
        found = it.goodwe.world.setpoints(HOUSE)
        # What shares a call goes along as it stands; the rule for reactive power is the newest.
        assert (found.power_factor, found.reactive_power) == (0.9, 0.0)
        assert (found.battery_mode, found.battery_power_target, found.battery_target_soc) == ("charge", 2000, 100)
        [sent] = await it.commands(1, "switch")
        assert sent.keys() == {"requestId", "timestamp", "expires", "items"}
        assert sent["items"] == [{"sn": HOUSE, "data": {"InverterStatus": 2}}]
        assert sent["timestamp"] < sent["expires"] <= sent["timestamp"] + 60_000
        charge, power = await it.commands(2, "battery")
        data = charge["items"][0]["data"]
        assert data.pop("CDEndTime") - data.pop("CDStartTime") in {3600, 3601}
        assert data == {"BatteryCDEnable": 1, "BatteryCDMode": 2, "BatteryCDPW": 5000, "BatteryCDTargetSOC": 100}
        assert power["items"][0]["data"]["BatteryCDPW"] == 2000


async def test_many_commands_share_messages_whose_key_decides_the_partition_of_each(cluster, tmp_path):
    serials = [f"SN{n:04}" for n in range(60)]
    async with plant(tmp_path / "data", cluster, simulated=False) as it:
        for serial in serials:
            it.announce(device(serial, DeviceKind.INVERTER))
        it.join(whitelist="*", linger_ms=200, items_most=25)
        await it.up()
        commands = await it.send(*(it.command(serial=serial) for serial in serials))
        await until(lambda: sum(e.state is CommandState.SENT for e in it.events) == 60)
        messages = it.cluster.messages(it.topic(), 4)
        found = Counter()
        for message in messages:
            body = json.loads(message.value())
            named = [item["sn"] for item in body["items"]]
            found.update(named)
            assert 1 < len(named) <= 25
            assert message.key().decode() == named[0]
            assert {crc32(sn.encode()) % 2 for sn in named} == {message.partition()}
            await it.answer(result(body["requestId"], *((sn, "00000") for sn in named)))
        assert found == Counter(serials)
        assert {e.state for e in await it.ended(*commands)} == {CommandState.SUCCEEDED}
        figures = it.figures()
        assert (figures.messages, figures.items, figures.waiting) == (len(messages), 60, 0)


async def test_a_device_comes_once_in_a_message_for_results_name_no_more(cluster, tmp_path):
    async with plant(tmp_path / "data", cluster, simulated=False) as it:
        it.join(linger_ms=300)
        await it.up()
        await until(lambda: "power_factor" in it.router.state(ROOF).device.setpoints)
        await it.send(it.command("reactive_power", 5, serial=ROOF), it.command("power_factor", 0.9, serial=ROOF))
        first, second = await it.commands(2, "reactive_power")
        assert [first["items"][0]["data"], second["items"][0]["data"]] == [{"ReactivePower": 5}, {"PowerFactor": 0.9}]


async def test_only_whitelisted_devices_and_those_of_the_right_kind_can_be_addressed(cluster, tmp_path):
    async with plant(tmp_path / "data", cluster) as it:
        it.announce(device("9010KETU218W0002", work_mode=Range()))
        it.announce(device(ROOF, DeviceKind.INVERTER, work_mode=Range()))
        it.join()
        await it.up()
        for wrong in (it.command(serial="9010KETU218W0002"), it.command("work_mode", "eco", serial=ROOF)):
            [answer] = await it.dispatcher.submit(wrong)
            assert (answer.state, answer.reason) == (CommandState.REJECTED, Reason.NO_CONTROLLER)
        assert not it.goodwe.batch.messages


async def test_a_number_that_goodwe_has_not_whitelisted_fails_in_words(cluster, tmp_path, capsys):
    async with plant(tmp_path / "data", cluster, whitelist=[ROOF]) as it:
        it.join()
        await it.up()
        for _ in range(2):
            end = await it.done(it.command(serial=HOUSE))
            assert end.state is CommandState.FAILED
            assert "GoodWe has not whitelisted 9010KETU218W0001 for you" in end.detail
            assert "(W0403: not in the whitelist)" in end.detail
        assert it.figures().unauthorised == {HOUSE}
        assert capsys.readouterr().out.count("unauthorised") == 1
        it.goodwe.batch.whitelist.add(HOUSE)
        assert (await it.done(it.command(serial=HOUSE))).state is CommandState.SUCCEEDED
        assert not it.figures().unauthorised


async def test_what_a_device_makes_of_it(cluster, tmp_path):
    async with plant(tmp_path / "data", cluster) as it:
        it.join(result_within=3)
        await it.up()
        it.goodwe.cloud.tasks.obedience[HOUSE] = Obedience.REFUSES
        end = await it.done(it.command(serial=HOUSE))
        assert (end.state, end.detail) == (
            CommandState.FAILED,
            "the device did not obey (R0305: the device did not obey)",
        )
        it.goodwe.cloud.tasks.obedience[HOUSE] = Obedience.SILENT
        end = await it.done(it.command(serial=HOUSE))
        assert (end.state, end.detail) == (CommandState.UNKNOWN, "no result came within 3 s")
        assert it.figures().waiting == 0


async def test_the_simulated_goodwe_never_executes_what_has_expired(cluster, tmp_path):
    async with plant(tmp_path / "data", cluster) as it:
        it.goodwe.cloud.tasks.delay = 3600
        it.join()
        await it.up()
        end = await it.done(it.command(serial=HOUSE, value=7))
        assert (end.state, end.detail) == (CommandState.FAILED, "GoodWe refuses it (R0410: expired)")
        assert it.goodwe.world.setpoints(HOUSE).active_power_limit == 100


async def test_a_topic_that_is_not_there_is_named(cluster, tmp_path):
    async with plant(tmp_path / "data", cluster) as it:
        it.join(overrides={"interfaces": {"switch": {"path": "{prefix}.nowhere"}}})
        status = await it.down("nowhere")
        assert UNKNOWN_TOPIC.text.partition("{")[0].strip() in status.detail
        # The others work all the same, and the one without its topic is left to another controller.
        assert (await it.done(it.command(serial=HOUSE))).state is CommandState.SUCCEEDED
        end = await it.done(it.command("running", True, serial=HOUSE, ttl=0.5))
        assert end.state is CommandState.EXPIRED
        assert "nowhere" in end.detail


@pytest.mark.parametrize("name", ["reactive_power", "switch"])
async def test_numbers_that_nobody_else_knows_are_announced_where_they_are_said_to_be_something(
    cluster, tmp_path, name
):
    async with plant(tmp_path / "data", cluster) as it:
        it.join(whitelist=["9011KHCA223W0001", "9010KETU218W0099"], announce="storage")
        await it.up()
        state = await until(lambda: it.router.state("9010KETU218W0099"))
        assert state.device.kind is DeviceKind.STORAGE
        assert name in {i.interface.name for i in it.settings().interfaces.by_setpoint.values()}
        assert state.device.setpoints["work_mode"] == Range()
