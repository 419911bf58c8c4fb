"""A cluster that is away, comes back, lets in only who may, or has another member of the same name."""

import asyncio
import os
import signal
import sys

import pytest

import gateway.bridges.batch.sender as sender_module
import gateway.commands.executor as carry_module
import gateway.kafka.renewal as renewal_module
from gateway.core.controller import Outcome
from gateway.core.model import CommandState
from gateway.simulator.results import Mishap
from tests.bridges.batch.kit import HOUSE, INTERFACES, ROOF, make_topics, plant, result
from tests.kit.bench import until
from tests.kit.kafka import REAUTH_MS, Kafka
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
        await it.up()
        assert (await it.done(it.command(serial=HOUSE))).state is CommandState.SUCCEEDED


async def test_commands_are_divided_until_the_topic_takes_them_and_the_size_is_learned(
    kafka, tmp_path, capsys, monkeypatch
):
    # Not by trying again later, in smaller messages.
    monkeypatch.setattr(sender_module, "RETRY_REFUSED", 3600.0)
    serials = [f"SN{number:04}" for number in range(200)]
    async with plant(
        tmp_path / "data", kafka, simulated=False, before=lambda it: make_topics(it, max_message_bytes=2000)
    ) as it:
        for serial in serials:
            it.announce(it.router.state(HOUSE).device, serial=serial)
        it.join(whitelist=serials, linger_ms=100, items_most=500, result_within=0.1)
        await it.up()
        for round_ in range(2):
            commands = [it.command(value=round_, serial=serial, ttl=600) for serial in serials]
            ends = await it.ended(*await it.send(*commands))
            assert {end.state for end in ends} == {CommandState.UNKNOWN}, "they left, and nobody answers"
        text = capsys.readouterr().out
        assert text.count("commands are divided among more of them") == 1
        wanted = 2 * len(serials)
        count = it.figures().messages
        sent = await it.commands(count)
        assert sum(len(body["items"]) for body in sent) == wanted
        assert len({body["requestId"] for body in sent}) == count


async def test_a_password_that_is_renewed_while_it_runs_lets_it_in(kafka, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(renewal_module, "LOOK", 0.1)
    file = tmp_path / "password"
    file.write_text("the-old-one")
    async with plant(tmp_path / "data", kafka) as it:
        allow(kafka, it)
        connection = secured(kafka, "scram-256")
        it.join(connection=connection | {"sasl": connection["sasl"] | {"password": {"file": str(file)}}})
        await it.down("refuses our login")
        file.write_text(f"{kafka.password}\n")
        await it.up()
        assert (await it.done(it.command(serial=HOUSE))).state is CommandState.SUCCEEDED
        text = capsys.readouterr().out
        assert "the file of the SASL password has changed; connecting anew" in text
        assert "the-old-one" not in text


async def test_a_login_that_expires_on_an_open_connection_is_renewed_and_loses_or_doubles_nothing(
    kafka, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(renewal_module, "LOOK", 0.1)
    monkeypatch.setattr(carry_module, "MAX_RETRY_SECONDS", 1.0)
    file = tmp_path / "password"
    file.write_text("first-word")
    await asyncio.to_thread(kafka.set_password, "first-word")
    async with plant(tmp_path / "data", kafka) as it:
        allow(kafka, it)
        sasl = {"username": kafka.expiring, "password": {"file": str(file)}, "mechanism": "SCRAM-SHA-512"}
        runner = it.join(connection={"bootstrap_servers": kafka.sasl_plaintext, "sasl": sasl})
        await it.up()
        first = runner.bridge._producer._raw
        values, over = [], asyncio.get_running_loop().time() + 3 * REAUTH_MS / 1000
        while asyncio.get_running_loop().time() < over:
            values.append(len(values) % 50)
            assert (await it.done(it.command(serial=HOUSE, value=values[-1], ttl=300))).state is CommandState.SUCCEEDED
            await asyncio.sleep(0.05)  # a device may be written to 200 times a day
        assert runner.bridge._producer._raw is first, "the connection was kept"
        assert not runner.bridge._health.counts["authentication"]
        # Whoever logs in anew, also where he is connected, needs the new one.
        await asyncio.to_thread(kafka.set_password, "second-word")
        await it.down("refuses our login")
        # Until none of its connections is left: each has a time of its own.
        await until(lambda: not runner.bridge._producer.up and not runner.bridge._consumer.meter.connected)
        late = {HOUSE: 99, ROOF: 98}
        commands = await it.send(*(it.command(serial=sn, value=value, ttl=300) for sn, value in late.items()))
        file.write_text("second-word")
        assert [end.state for end in await it.ended(*commands)] == [CommandState.SUCCEEDED] * 2
        await it.up()
        told = [control.setpoints["active_power_limit"] for control in it.goodwe.cloud.controls]
        assert sorted(told) == sorted([*values, 98, 99]), "each was executed, and once"
    text = capsys.readouterr().out
    assert "the file of the SASL password has changed; connecting anew" in text
    assert not {word for word in ("first-word", "second-word") if word in text}


async def test_certificates_that_are_renewed_while_it_runs_are_taken(kafka, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(renewal_module, "LOOK", 0.1)
    ours = {name: tmp_path / f"{name}.pem" for name in ("certificate", "key")}
    for name, path in ours.items():
        path.write_bytes(getattr(kafka, name).read_bytes())
    async with plant(tmp_path / "data", kafka) as it:
        allow(kafka, it)
        connection = secured(kafka, "mtls")
        runner = it.join(connection=connection | {"tls": connection["tls"] | ours})
        await it.up()
        before = runner.bridge._producer._raw
        ours["certificate"].write_text("half of it")
        out = []
        await until(
            lambda: out.append(capsys.readouterr().out) or "can't be used; the connection stays" in "".join(out)
        )
        assert runner.bridge._producer._raw is before
        ours["certificate"].write_bytes(kafka.certificate.read_bytes())
        await until(lambda: runner.bridge._producer._raw not in (None, before))
        await it.up()
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
    monkeypatch.setattr(carry_module, "MAX_RETRY_SECONDS", 1.0)
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
        await it.up()
        before = sum(e.state is CommandState.SUCCEEDED for e in it.events)
        await until(lambda: sum(e.state is CommandState.SUCCEEDED for e in it.events) > before + 20)
        over.set()
        await task
        ends = await it.ended(*commands)
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
                line = (await asyncio.wait_for(child.stdout.readline(), 120)).decode()
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
        end = await until(lambda: next((e for e in it.events if e.state.final), None))
        assert (end.command.id, end.state) == (command_id, CommandState.SUCCEEDED)
