"""A cluster that is away, comes back, lets in only who may, or has another member of the same name."""

import asyncio
import os
import signal
import sys

import pytest

import gateway.core.control.carry as carry_module
from gateway.core.bridge import Outcome
from gateway.core.model import CommandState
from gateway.simulator.results import Mishap
from tests.bridges.batch.kit import HOUSE, INTERFACES, ROOF, plant, result
from tests.kit.bench import until
from tests.kit.kafka import Kafka
from tests.kit.process import ROOT

DOWN = float(os.environ.get("SEMS_GATEWAY_SOAK_OUTAGE", "3"))
"""Seconds that the broker is away; `make soak` takes 30."""


class Second:
    """A controller that carries out what the first can't."""

    def __init__(self):
        self.sent = []

    def takes(self, serial, setpoint):
        return True

    async def send(self, command, in_force, timeout):
        self.sent.append(command.id)
        return ""

    async def result(self, command, receipt):
        return Outcome(CommandState.SUCCEEDED, "by the second")


def secured(kafka, way):
    """Return a connection by one of the broker's closed doors."""
    sasl = {"username": kafka.user, "password": kafka.password}
    return {
        "plain": {"bootstrap_servers": kafka.sasl_plaintext, "sasl": sasl | {"mechanism": "PLAIN"}},
        "scram-256": {"bootstrap_servers": kafka.sasl_plaintext, "sasl": sasl | {"mechanism": "SCRAM-SHA-256"}},
        "scram-512 over tls": {"bootstrap_servers": kafka.sasl_ssl, "sasl": sasl, "tls": {"ca": kafka.ca}},
        "mtls": {
            "bootstrap_servers": kafka.mtls,
            "tls": {"ca": kafka.ca, "certificate": kafka.certificate, "key": kafka.key},
        },
    }[way]


def allow(kafka, it, *but):
    for interface in INTERFACES:
        for kind, right in (("command", "WRITE"), ("result", "READ")):
            if it.topic(interface, kind) not in but:
                kafka.allow(it.topic(interface, kind), right)
    kafka.allow_group(f"gateway.{it.prefix}")


@pytest.mark.parametrize("way", ["plain", "scram-256", "scram-512 over tls", "mtls"])
async def test_each_way_in(kafka, tmp_path, way):
    async with plant(tmp_path / "data", kafka) as it:
        allow(kafka, it)
        it.join(connection=secured(kafka, way))
        await it.up()
        assert (await it.done(it.command(serial=HOUSE))).state is CommandState.SUCCEEDED


async def test_a_wrong_password_is_one_clear_line_and_the_second_controller_gets_its_turn(kafka, tmp_path, capsys):
    async with plant(tmp_path / "data", kafka) as it:
        connection = secured(kafka, "scram-256")
        runner = it.join(connection=connection | {"sasl": {"username": "alice", "password": "wrong-word"}})
        second = Second()
        it.dispatcher.use({"batch": runner.bridge, "second": second})
        status = await it.down("refuses our login")
        assert "check sasl, its username and its password" in status.detail
        await until(lambda: runner.bridge._health.counts["authentication"] > 3)
        text = capsys.readouterr().out
        assert text.count("[warning  ] down") == 1
        assert "wrong-word" not in text
        assert (await it.done(it.command(serial=HOUSE))).detail == "by the second"
        assert len(second.sent) == 1


async def test_a_producer_that_may_not_write_idempotently_begins_anew_until_it_may(kafka, tmp_path):
    async with plant(tmp_path / "data", kafka) as it:
        it.join(connection=secured(kafka, "plain"))
        await it.down("does not let us")
        allow(kafka, it)
        await it.up(timeout=30)
        assert (await it.done(it.command(serial=HOUSE))).state is CommandState.SUCCEEDED


async def test_topics_that_we_may_not_use_are_named_and_left_alone(kafka, tmp_path):
    async with plant(tmp_path / "data", kafka) as it:
        switch, power = it.topic("switch"), it.topic("active_power", "result")
        allow(kafka, it, switch, power)
        options = {"topic.metadata.refresh.interval.ms": 500}
        it.join(connection=secured(kafka, "plain") | {"options": options})
        status = await it.down(switch)
        assert "does not let us use topic" in status.detail
        await it.down(power)
        # Not to be written; and where no result would be heard, nothing is sent either.
        for setpoint, value in (("running", False), ("active_power_limit", 5)):
            end = await it.done(it.command(setpoint, value, serial=HOUSE, ttl=0.4))
            assert (end.state, "does not let us use" in end.detail) == (CommandState.EXPIRED, True)
        assert not it.goodwe.batch.messages
        kafka.allow(power, "READ")
        kafka.allow(switch, "WRITE")
        await it.up()
        assert (await it.done(it.command(serial=HOUSE))).state is CommandState.SUCCEEDED


async def test_a_broker_away_for_a_while_under_load_loses_and_repeats_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(carry_module, "RETRY_MOST", 1.0)
    (tmp_path / "kafka").mkdir()
    async with Kafka(tmp_path / "kafka") as kafka, plant(tmp_path / "data", kafka) as it:
        it.join(send_within=1, result_within=DOWN + 5)
        await it.up()
        commands, over = [], asyncio.Event()

        async def load():
            while not over.is_set():
                n = len(commands)
                serial, setpoint = (HOUSE, ROOF)[n % 2], ("active_power_limit", "running")[n // 2 % 2]
                value = n % 100 if setpoint == "active_power_limit" else bool(n % 3)
                commands.extend(await it.send(it.command(setpoint, value, serial=serial, ttl=DOWN + 60)))
                await asyncio.sleep(0.02)

        task = asyncio.create_task(load())
        await until(lambda: sum(e.state is CommandState.SUCCEEDED for e in it.events) > 20)
        await kafka.stop()
        status = await it.down("can't be reached")
        assert "Kafka cluster" in status.detail
        await asyncio.sleep(DOWN)
        await kafka.start()
        await it.up(timeout=60)
        before = sum(e.state is CommandState.SUCCEEDED for e in it.events)
        await until(lambda: sum(e.state is CommandState.SUCCEEDED for e in it.events) > before + 20, timeout=60)
        over.set()
        await task
        ends = await it.ended(*commands, timeout=DOWN + 70)
        counts = {state: sum(e.state is state for e in ends) for state in {e.state for e in ends}}
        # One that was under way when the broker went may be unsure, never lost; what had to wait was overtaken.
        assert counts.keys() <= {CommandState.SUCCEEDED, CommandState.SUPERSEDED, CommandState.UNKNOWN}, counts
        # Four lanes: one of each when it went, and one when it came back and the groups were not yet.
        assert counts.get(CommandState.UNKNOWN, 0) <= 8
        # GoodWe's side reads again what it had not committed; what we sent is sent once.
        sent = {(heard.request, serial) for heard in it.goodwe.batch.messages for serial in heard.serials}
        done = sum(e.state is CommandState.SUCCEEDED for e in ends)
        assert done <= len(sent) <= done + counts.get(CommandState.UNKNOWN, 0)


async def test_a_cluster_that_is_away_leaves_the_command_to_the_second_controller(tmp_path):
    (tmp_path / "kafka").mkdir()
    async with Kafka(tmp_path / "kafka") as kafka, plant(tmp_path / "data", kafka) as it:
        runner = it.join()
        await it.up()
        second = Second()
        it.dispatcher.use({"batch": runner.bridge, "second": second})
        assert (await it.done(it.command(serial=HOUSE))).detail == "done"
        kafka.kill()
        await it.down("can't be reached")
        assert (await it.done(it.command(serial=HOUSE))).detail == "by the second"
        assert len(second.sent) == 1
        await kafka.start()  # so that the clients need not wait for it when they leave


async def test_a_broker_that_stands_still_makes_a_command_unsure_and_nothing_leaves_later(tmp_path):
    (tmp_path / "kafka").mkdir()
    async with Kafka(tmp_path / "kafka") as kafka, plant(tmp_path / "data", kafka) as it:
        it.join(send_within=0.5, result_within=30)
        await it.up()
        assert (await it.done(it.command(serial=HOUSE, value=1))).detail == "done"
        kafka.process.send_signal(signal.SIGSTOP)
        command = it.command(serial=HOUSE, value=2)
        try:
            await it.send(command)
            sent = await until(lambda: next((e for e in it.steps(command) if e.state is CommandState.SENT), None))
        finally:
            kafka.process.send_signal(signal.SIGCONT)
        assert "did not confirm within" in sent.detail
        # The producer works on after what was taken back.
        assert (await it.done(it.command(serial=ROOF, value=3))).state is CommandState.SUCCEEDED
        told = [control.setpoints["active_power_limit"] for control in it.goodwe.cloud.controls]
        assert told in ([1, 3], [1, 2, 3])


async def test_killed_the_next_run_takes_over_at_once_and_goes_on_where_the_first_had_got_to(kafka, tmp_path):
    """A static member: nobody waits until the session of the one killed is over, which takes 10 s."""
    data = tmp_path / "data"
    async with plant(data / "first", kafka) as it:
        it.spoil(Mishap.MISSING)
        script = ROOT / "tests" / "bridges" / "batch" / "victim.py"
        arguments = [script, data, it.prefix, kafka.plaintext]
        child = await asyncio.create_subprocess_exec(
            sys.executable, *map(str, arguments), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        try:
            line = ""
            while not line.startswith("sent "):
                line = (await asyncio.wait_for(child.stdout.readline(), 30)).decode()
                assert line, "it ended"
        finally:
            child.kill()
            await child.wait()
        command_id = line.split()[1]
        [sent] = await it.commands(1)
        prefix = it.prefix
        await it.answer(result(sent["requestId"], (HOUSE, "00000")))
    async with plant(data, kafka, simulated=False, prefix=prefix, before=lambda it: it.prepare()) as it:
        it.runners[0].start()
        end = await until(lambda: next((e for e in it.events if e.state.final), None), timeout=8)
        assert (end.command.id, end.state) == (command_id, CommandState.SUCCEEDED)
