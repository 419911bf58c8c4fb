"""Two gateways joined by topics: one polls, members of a group serve what it publishes. Against Apache Kafka."""

import asyncio
import json
import uuid
from contextlib import AsyncExitStack
from datetime import timedelta

import msgspec
import pytest

import gateway.kafka.producer as producer_module
from gateway.bridges.kafka import schema
from gateway.bridges.kafka.joined import TURN
from gateway.core.controller import Outcome
from gateway.core.model import Alarm, CommandState, Quality
from gateway.kafka import Assigned
from tests.bridges.kafka.conftest import gateway
from tests.kit.bench import INVERTER, collected, until


@pytest.fixture
async def joined(tmp_path, kafka):
    """A gateway that polls; `serve` starts one that serves."""
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(Pair(tmp_path, kafka, stack))


SOON = {"topic.metadata.refresh.interval.ms": 500}
"""Notice soon what becomes of topics."""


class Pair:
    def __init__(self, tmp_path, kafka, stack):
        self.directory, self.kafka, self.stack = tmp_path, kafka, stack
        self.prefix = f"p{uuid.uuid4().hex[:8]}"

    async def __aenter__(self):
        self.poller = await self.stack.enter_async_context(gateway(self.directory / "poller", "poller"))
        self.poller.run(
            self.kafka.plaintext,
            group=f"{self.prefix}-poller",
            session_timeout=1,
            publish={"topics": {"prefix": self.prefix}, "create": {"partitions": 4}, "linger_ms": 0, "commands": True},
        )
        return self

    async def __aexit__(self, *_):
        pass

    async def serve(self, name, **settings):
        found = await self.stack.enter_async_context(gateway(self.directory / name, name))
        join = {"topics": {"prefix": self.prefix}, "commands": True} | settings.pop("join", {})
        settings = {"group": self.prefix, "session_timeout": 1, "options": SOON} | settings
        found.run(self.kafka.plaintext, join=join, **settings)
        found.bench.dispatcher.use({"kafka": found.runner.bridge})
        return found


async def test_a_device_shows_on_the_far_side_with_its_interval(joined):
    poller = joined.poller.bench
    poller.announce()
    poller.publish(pv_power=1234.0, interval=60.0)
    far = await joined.serve("far")
    state = await until(lambda: far.state(INVERTER.serial))
    await until(lambda: far.value(INVERTER.serial, "pv_power") == 1234.0)
    assert state.device == INVERTER
    assert far.state(INVERTER.serial).quality is Quality.GOOD
    await until(lambda: far.archive.values("pv_power", INVERTER.serial) == [1234.0])


def serials(count):
    return [f"9010KETU000W{n:04}" for n in range(count)]


def served(members):
    return [{s.device.serial for s in member.bench.router.states()} for member in members]


async def two_members(joined, count=20):
    """Twenty devices, shared by two members."""
    poller = joined.poller.bench
    for n, serial in enumerate(serials(count)):
        poller.announce(serial=serial)
        poller.publish(serial, pv_power=float(n), interval=60.0)
    members = [await joined.serve("far-1"), await joined.serve("far-2")]
    await until(lambda: all(served(members)) and not set.intersection(*served(members)))
    await until(lambda: set.union(*served(members)) == set(serials(count)))
    return members


async def test_members_share_the_devices_and_take_over_what_one_leaves(joined):
    first, second = await two_members(joined)
    theirs = served([first])[0]
    last = {s: first.value(s, "pv_power") for s in await until(lambda: shown(first, theirs))}
    first.bench.runners.remove(first.runner)
    await first.runner.stop()
    assert not first.bench.router.states()  # nothing is shown twice
    # Nothing new is published: what shows is read again from before the group's place.
    await until(lambda: all(second.value(serial, "pv_power") == value for serial, value in last.items()))
    assert set.union(*served([second])) == set(serials(20))


async def test_a_member_reads_nothing_again_of_what_stays_with_it(joined):
    """Else all its devices stand still while it takes over those of another."""
    poller = joined.poller.bench
    for serial in serials(20):
        poller.announce(serial=serial)
        poller.publish(serial, pv_power=1.0, interval=60.0)
    first = await joined.serve("far-1", session_timeout=30)
    await until(lambda: shown(first, set(serials(20))))
    consumer = first.runner.bridge._clients["joined"]
    before = 3 * 20  # what each is, its alarms, its snapshot
    await until(lambda: consumer.meter.received == before)
    await until(lambda: all(p.is_current and p.described for p in first.runner.bridge._joined._partitions.values()))
    second = await joined.serve("far-2", session_timeout=30)
    await until(lambda: all(served([first, second])) and set.union(*served([first, second])) == set(serials(20)))
    for serial in serials(20):
        poller.publish(serial, pv_power=2.0, interval=60.0)
    await until(lambda: all(m.value(s, "pv_power") == 2.0 for m in (first, second) for s in served([m])[0]))
    assert consumer.meter.received - before == len(served([first])[0])


async def test_after_topics_were_given_more_partitions_each_device_has_one_owner_and_moving_values(
    joined, kafka, monkeypatch
):
    monkeypatch.setattr(producer_module, "REFRESH", 0.2)
    members = await two_members(joined)
    kinds = ("devices", "alarms", "snapshots", "events", "commands")
    await asyncio.to_thread(kafka.more_partitions, 6, *(f"{joined.prefix}.{kind}" for kind in kinds))
    poller = joined.poller
    poller.bench.runners.remove(poller.runner)
    await poller.runner.stop()
    poller.run(
        kafka.plaintext,
        group=f"{joined.prefix}-poller",
        session_timeout=1,
        publish={"topics": {"prefix": joined.prefix}, "linger_ms": 0, "commands": True},
    )
    wanted = set(serials(20))
    power = 1000.0

    def settled():
        nonlocal power
        power += 1
        for serial in wanted:
            poller.bench.publish(serial, pv_power=power)
        first, second = served(members)
        owner = {s: m for m in members for s in wanted if m.state(s) is not None}
        moving = all((owner[s].value(s, "pv_power") or 0) > 1000 for s in owner)
        return first | second == wanted and not first & second and moving and len(owner) == 20

    async with asyncio.timeout(240):
        while not settled():
            await asyncio.sleep(0.5)


@pytest.mark.usefixtures("look_often")
async def test_topics_made_anew_are_written_anew_and_read_from_their_beginning(joined, kafka, capsys):
    poller = joined.poller.bench
    poller.announce()
    poller.publish(pv_power=1.0, interval=60.0)
    far = await joined.serve("far")
    for power in range(2, 12):
        poller.publish(pv_power=float(power), interval=60.0)
    await until(lambda: 11.0 in far.archive.values("pv_power", INVERTER.serial))
    await until(lambda: len(joined.poller.runner.bridge._clients["publisher"]._topic_ids) == 4)
    for kind in ("devices", "snapshots", "alarms"):
        await asyncio.to_thread(kafka.make_again, f"{joined.prefix}.{kind}", 4)
    power = 1000.0

    def moves():
        nonlocal power
        power += 1
        poller.publish(pv_power=power, interval=60.0)
        stored = far.archive.values("pv_power", INVERTER.serial)
        return (far.value(INVERTER.serial, "pv_power") or 0) > 1000 and stored[-1] > 1000

    async with asyncio.timeout(240):
        while not moves():
            await asyncio.sleep(0.2)
    # Who joins later knows the device from what was written anew.
    later = await joined.serve("later", group=f"{joined.prefix}-later")
    await until(lambda: later.state(INVERTER.serial))
    assert "was made anew, and is written anew" in capsys.readouterr().out


def shown(member, wanted):
    return {s for s in wanted if member.value(s, "pv_power") is not None} == wanted and wanted


async def test_a_device_that_goes_is_withdrawn_and_does_not_come_again(joined):
    joined.poller.bench.announce()
    joined.poller.bench.announce(serial="9010KETU000W0002")
    far = await joined.serve("far")
    await until(lambda: far.state(INVERTER.serial) and far.state("9010KETU000W0002"))
    joined.poller.bench.router.withdraw("scripted", INVERTER.serial)
    await until(lambda: far.state(INVERTER.serial) is None)
    later = await joined.serve("far-2", join={"commands": False})
    await until(lambda: far.state("9010KETU000W0002") or later.state("9010KETU000W0002"))
    assert later.state(INVERTER.serial) is None


async def test_alarms_cross_the_joint(joined):
    poller = joined.poller.bench
    poller.announce()
    alarm = Alarm(serial=INVERTER.serial, id="a1", code="F42", text="Grid voltage", raised=poller.clock.now())
    poller.router.alarms("scripted", INVERTER.serial, [alarm])
    far = await joined.serve("far")
    await until(lambda: [a.code for a in far.bench.router.alarm_book] == ["F42"])
    poller.router.alarms("scripted", INVERTER.serial, [])
    await until(lambda: not list(far.bench.router.alarm_book))


async def test_a_command_is_carried_out_where_the_device_is_polled(joined):
    poller = joined.poller.bench
    poller.announce()
    far = await joined.serve("far")
    await until(lambda: far.state(INVERTER.serial))
    async with collected(far.bench.router) as (events, _):
        command = far.bench.command(origin="mqtt/user:alice")
        await far.bench.dispatcher.submit(command)
        await until(
            lambda: [e.state for e in events] == [CommandState.ACCEPTED, CommandState.SENT, CommandState.SUCCEEDED]
        )
    [sent] = poller.controller.sent
    assert (sent.id, sent.value) == (command.id, command.value)
    assert sent.origin == "kafka-poller/mqtt:far mqtt/user:alice"
    assert sent.expires <= command.expires


async def test_sent_has_the_time_at_which_a_command_was_given_to_the_topic(joined, monkeypatch):
    joined.poller.bench.announce()
    far = await joined.serve("far")
    await until(lambda: far.state(INVERTER.serial))
    producer, left = far.runner.bridge._clients["commands"], []
    post, connected = producer.post, []

    async def ready(_):
        await asyncio.sleep(0.01)
        connected.append(far.bench.clock.now())

    def posted(*args, **fields):
        left.append(far.bench.clock.now())
        return post(*args, **fields)

    monkeypatch.setattr(producer, "ready", ready)
    monkeypatch.setattr(producer, "post", posted)
    async with collected(far.bench.router) as (events, _):
        await far.bench.dispatcher.submit(far.bench.command())
        await until(lambda: events and events[-1].state is CommandState.SUCCEEDED)
    accepted, sent, _ = events
    assert accepted.time <= connected[0] <= sent.time <= left[0]


async def test_a_command_that_the_other_side_refuses_fails_with_its_reason(joined):
    poller = joined.poller.bench
    poller.announce()
    far = await joined.serve("far")
    await until(lambda: far.state(INVERTER.serial))
    poller.controller.outcomes = [Outcome(CommandState.FAILED, "device did not obey")]
    async with collected(far.bench.router) as (events, _):
        await far.bench.dispatcher.submit(far.bench.command())
        await until(lambda: events and events[-1].state is CommandState.FAILED)
        assert "device did not obey" in events[-1].detail
        poller.controller.takes = lambda *_: False
        await far.bench.dispatcher.submit(far.bench.command(value=60))
        await until(lambda: len(events) == 6)
        assert "no_controller" in events[-1].detail


async def far_topics(kafka, **partitions):
    prefix = f"p{uuid.uuid4().hex[:8]}"
    for kind in ("devices", "snapshots", "alarms"):
        kafka.make(f"{prefix}.{kind}", partitions=partitions.get(kind, 1))
    return prefix


def message(kind, **fields):
    return schema.encode(kind(gateway="poller", **fields))


def snapshot(far, power, *, age=0.0, source="sems", serial=INVERTER.serial):
    time = far.bench.clock.now() - timedelta(seconds=age)
    fields = {"serial": serial, "time": time, "source": source, "interval": 60.0, "values": {"pv_power": power}}
    return message(schema.SnapshotMessage, **fields)


@pytest.fixture
async def alone(tmp_path, kafka):
    """A member whose topics a test writes."""
    async with gateway(tmp_path / "far", "far") as far:
        far.prefix = await far_topics(kafka)

        def start(prefix=far.prefix):
            far.run(kafka.plaintext, group=prefix, session_timeout=1, join={"topics": {"prefix": prefix}})

        far.start = start
        yield far


DESCRIPTION = message(schema.DeviceMessage, device=INVERTER)
KEY = INVERTER.serial.encode()


async def test_topics_with_unlike_partitions_are_refused_in_words(alone, kafka):
    alone.start(await far_topics(kafka, alarms=2))
    await until(lambda: alone.status and "must have the same number of partitions" in alone.status.detail)


async def test_a_snapshot_that_comes_before_its_device_waits_for_it(alone, kafka):
    alone.start()
    kafka.send(f"{alone.prefix}.snapshots", KEY, snapshot(alone, 1.0, age=10), snapshot(alone, 2.0))
    await until(lambda: alone.runner.bridge._joined._partitions)
    await until(lambda: any(p.early for p in alone.runner.bridge._joined._partitions.values()))
    kafka.send(f"{alone.prefix}.devices", KEY, DESCRIPTION)
    await until(lambda: alone.archive.values("pv_power", INVERTER.serial) == [1.0, 2.0])


async def test_a_member_that_was_away_brings_its_histories_what_it_missed(alone, kafka):
    kafka.send(f"{alone.prefix}.devices", KEY, DESCRIPTION)
    kafka.send(f"{alone.prefix}.snapshots", KEY, snapshot(alone, 1.0, age=50))
    alone.start()
    await until(lambda: kafka.committed(alone.prefix, f"{alone.prefix}.snapshots") == 1)
    alone.bench.runners.remove(alone.runner)
    await alone.runner.stop()
    kafka.send(f"{alone.prefix}.snapshots", KEY, *(snapshot(alone, float(n), age=50 - n) for n in range(2, 10)))
    alone.start()
    # The one before is shown again, for it might have been another member's.
    wanted = [1.0, *(float(n) for n in range(1, 10))]
    await until(lambda: alone.archive.values("pv_power", INVERTER.serial) == wanted)


class Turns:
    """How often a method is called in each turn of the loop."""

    def __init__(self, monkeypatch, owner, name):
        self.counts = [0]
        self._method = getattr(owner, name)
        monkeypatch.setattr(owner, name, self._counted)

    def _counted(self, *args, **kwargs):
        if not self.counts[-1]:
            asyncio.get_running_loop().call_soon(self.counts.append, 0)
        self.counts[-1] += 1
        return self._method(*args, **kwargs)


async def test_what_has_gathered_in_the_topic_does_not_hold_the_loop(alone, kafka, monkeypatch):
    kafka.send(f"{alone.prefix}.devices", KEY, DESCRIPTION)
    kafka.send(f"{alone.prefix}.snapshots", KEY, *(snapshot(alone, float(n), age=2000 - n) for n in range(2000)))
    turns = Turns(monkeypatch, alone.bench.router, "publish")
    alone.start()
    await until(lambda: sum(turns.counts) == 2000)
    assert max(turns.counts) <= TURN


async def test_many_devices_that_are_taken_over_and_given_up_do_not_hold_the_loop(alone, kafka, monkeypatch):
    for serial in serials(3 * TURN):
        device = message(schema.DeviceMessage, device=msgspec.structs.replace(INVERTER, serial=serial))
        kafka.send(f"{alone.prefix}.devices", serial.encode(), device)
        kafka.send(f"{alone.prefix}.snapshots", serial.encode(), snapshot(alone, 1.0, serial=serial))
    kafka.place(alone.prefix, f"{alone.prefix}.snapshots", 3 * TURN)  # another member has read them
    shown = Turns(monkeypatch, alone.bench.router, "publish")
    gone = Turns(monkeypatch, alone.bench.router, "withdraw")
    alone.start()
    await until(lambda: sum(shown.counts) == 3 * TURN)
    assert max(shown.counts) <= TURN
    assigned = Assigned(
        dict.fromkeys([(f"{alone.prefix}.{kind}", 1) for kind in ("devices", "snapshots", "alarms")], 0)
    )
    await alone.runner.bridge._joined._assigned(assigned)
    assert sum(gone.counts) == 3 * TURN
    assert max(gone.counts) <= TURN


async def test_two_sources_of_a_device_add_up_and_an_older_one_is_for_histories_alone(alone, kafka):
    kafka.send(f"{alone.prefix}.devices", KEY, DESCRIPTION)
    other = message(
        schema.SnapshotMessage, serial=INVERTER.serial, time=alone.bench.clock.now(), source="push", interval=60.0,
        values={"battery_soc": 55.0},
    )  # fmt: skip
    kafka.send(f"{alone.prefix}.snapshots", KEY, snapshot(alone, 3.0, age=5), other, snapshot(alone, 2.0, age=30))
    alone.start()
    await until(lambda: 2.0 in alone.archive.values("pv_power", INVERTER.serial))
    assert (alone.value(INVERTER.serial, "pv_power"), alone.value(INVERTER.serial, "battery_soc")) == (3.0, 55.0)


async def test_what_a_gateway_says_is_held_against_the_point_table(alone, kafka):
    """Each of these once kept out, or broke, all that was right after it."""

    def spoilt(**changes):
        return json.dumps(json.loads(snapshot(alone, 1.0)) | changes).encode()

    odd = [
        spoilt(interval=1e300),
        spoilt(interval=-5),
        spoilt(time="9999-12-31T23:59:59Z"),
        spoilt(time="2199-01-01T00:00:00Z"),
        spoilt(time="0001-01-01T00:00:00+14:00"),
        spoilt(values={"pv_power": "abc", "warp": 5, "battery_soc": 300, "status": "sleepy"}),
        spoilt(values={"pv_power": True}),
        spoilt(values={"pv_power": 10**400}),
        spoilt(values={"warp": 5}),
        spoilt(gateway="x" * 500),
        spoilt(source="s" * 500),
    ]
    described = json.loads(DESCRIPTION)
    described["device"] |= {
        "rated_power": -1e300,
        "setpoints": {"active_power_limit": {"low": 9, "high": 1}, "warp": {}},
    }
    kafka.send(f"{alone.prefix}.devices", KEY, json.dumps(described).encode())
    kafka.send(f"{alone.prefix}.snapshots", KEY, *odd)
    alone.start()
    await until(lambda: kafka.committed(alone.prefix, f"{alone.prefix}.snapshots") == len(odd))
    kafka.send(f"{alone.prefix}.snapshots", KEY, snapshot(alone, 4.0))
    await until(lambda: alone.value(INVERTER.serial, "pv_power") == 4.0)
    state = alone.state(INVERTER.serial)
    assert (state.device.rated_power, dict(state.device.setpoints)) == (None, {})
    assert not {"warp", "battery_soc", "status"} & {p for p, value in state.values.items() if value is not None}


async def test_bad_messages_and_those_of_unknown_devices_are_passed_over(alone, kafka):
    kafka.send(f"{alone.prefix}.devices", KEY, b"{", DESCRIPTION)
    kafka.send(f"{alone.prefix}.alarms", KEY, b"[]")
    kafka.send(f"{alone.prefix}.snapshots", b"other", snapshot(alone, 1.0, serial="other"))
    kafka.send(f"{alone.prefix}.snapshots", KEY, b"{", b"7", snapshot(alone, 4.0))
    alone.start()
    await until(lambda: alone.value(INVERTER.serial, "pv_power") == 4.0)
    await until(lambda: sum(alone.runner.bridge._skipped.counts.values()) == 4)
    assert alone.state("other") is None
