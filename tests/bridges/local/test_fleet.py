"""`send --fleet` through the socket of a running gateway: the plan, the progress, Ctrl-C, and what failed."""

import asyncio
import io
import os
import signal

import pytest
from rich.console import Console
from structlog.testing import capture_logs

from gateway.bridges.local import LocalBridge, LocalSettings, NotRunningError
from gateway.bridges.local.fleet import FleetCommand
from gateway.bridges.local.protocol import SendFleet
from gateway.cli import fleet
from gateway.core.controller import CallEstimate
from gateway.core.errors import NotSentError, RefusedError
from gateway.core.model import BridgeStatus, CommandState, DeviceKind
from gateway.core.places import FEW, MANY
from tests.kit.bench import Bench, until
from tests.kit.clock import NOON

LIMIT = "active_power_limit"


class Cli:
    """A gateway with some devices, and what the command line shows."""

    def __init__(self, bench):
        self.bench = bench
        self.text = io.StringIO()
        self.out = Console(file=self.text, width=200)

    async def plan(self, **changes):
        request = SendFleet(**{"setpoint": LIMIT, "value": "60", "user": "ann"} | changes)
        return request, await fleet.plan_fleet(self.bench.data_dir, request)

    async def send(self, *, wait=True, **changes):
        request, plan = await self.plan(**changes)
        fleet.show_plan(plan, request, self.out)
        return await fleet.carry_out(self.bench.data_dir, request, plan, self.out, wait=wait)


@pytest.fixture
async def cli(tmp_path):
    async with Bench(tmp_path) as bench:
        for n in range(5):
            bench.announce(serial=f"s{n}", plant=f"p{n % 2}")
        bench.announce(serial="m1", kind=DeviceKind.METER, setpoints={})
        runner = bench.run(LocalBridge, LocalSettings(), "cli")
        await until(lambda: (tmp_path / "control.sock").exists() and runner.bridge._acceptor)
        yield Cli(bench)


async def test_each_device_that_takes_it_gets_a_command_of_its_own(cli):
    cli.bench.controller.call_estimate = lambda setpoint, serials: CallEstimate(len(serials), 5, 600.0, 3)
    assert await cli.send() is fleet.Ending.DONE
    assert sorted(c.serial for c in cli.bench.controller.sent) == [f"s{n}" for n in range(5)]
    assert {(c.value, c.origin) for c in cli.bench.controller.sent} == {(60.0, "cli:ann")}
    (ttl,) = {(c.expires - c.created).total_seconds() for c in cli.bench.controller.sent}
    assert ttl == 1.5 * 600 + 60
    shown = cli.text.getvalue()
    assert "60 for 5 devices" in shown
    assert "1 more match, but don't take it" in shown
    assert "5 devices in 5 calls; now there are 3 for control" in shown
    assert "in about 10 min; what has not left after 16 min expires" in shown
    assert "5 succeeded" in shown


@pytest.mark.parametrize(
    ("changes", "serials"),
    [
        ({"plant": "p1"}, ["s1", "s3"]),
        ({"devices": ("s[01]", "s4")}, ["s0", "s1", "s4"]),
        ({"kind": "storage"}, ["s0", "s1", "s2", "s3", "s4"]),
    ],
)
async def test_some_of_them(cli, changes, serials):
    _, plan = await cli.plan(**changes)
    assert sorted(plan.serials) == serials


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"setpoint": "active_power_limits"}, "did you mean 'active_power_limit'"),
        ({"plant": "nowhere"}, "no device matches"),
        ({"kind": "meter"}, "1 match, but don't take active_power_limit"),
    ],
)
async def test_where_there_is_nothing_to_do_it_says_why(cli, changes, words):
    with pytest.raises(fleet.FleetRefusedError, match=words):
        await cli.plan(**changes)


async def test_what_failed_is_listed(cli):
    cli.bench.controller.answers = [RefusedError("the inverter says no")]
    assert await cli.send() is fleet.Ending.NOT_ALL
    assert "4 succeeded, 1 failed" in cli.text.getvalue()
    assert "the inverter says no" in cli.text.getvalue()


async def test_what_policy_refuses_is_listed_and_the_others_go_on(cli):
    assert await cli.send(value="160") is fleet.Ending.NOT_ALL
    assert "5 rejected" in cli.text.getvalue()
    assert "out_of_range" in cli.text.getvalue()
    assert not cli.bench.controller.sent


async def test_without_waiting_it_ends_when_all_are_taken(cli):
    cli.bench.controller.gate.clear()
    assert await cli.send(wait=False) is fleet.Ending.DONE
    cli.bench.controller.gate.set()


async def test_ctrl_c_cancels_what_has_not_left(cli):
    cli.bench.controller.answers = [NotSentError("SEMS is away", 60)] * 5
    sending = asyncio.create_task(cli.send(spread=0))
    await until(lambda: not cli.bench.controller.answers)
    os.kill(os.getpid(), signal.SIGINT)
    assert await sending is fleet.Ending.INTERRUPTED
    shown = cli.text.getvalue()
    assert "stopping: 5 had not left" in shown
    assert "cancelled by cli:ann" in shown
    assert not cli.bench.controller.sent


async def test_ctrl_c_reaches_what_is_just_being_submitted(cli, monkeypatch):
    looked_up, going_on, cancelling = asyncio.Event(), asyncio.Event(), asyncio.Event()
    look_up, cancel = cli.bench.journal.last_events, FleetCommand.cancel

    async def held(ids):
        looked_up.set()
        await going_on.wait()
        return await look_up(ids)

    async def cancelled(command):
        cancelling.set()
        return await cancel(command)

    monkeypatch.setattr(cli.bench.journal, "last_events", held)
    monkeypatch.setattr(FleetCommand, "cancel", cancelled)
    sending = asyncio.create_task(cli.send())
    await looked_up.wait()
    with cli.bench.dispatcher._executor._places.held():  # none leaves before it can be cancelled
        os.kill(os.getpid(), signal.SIGINT)
        await cancelling.wait()
        going_on.set()
        await until(lambda: "had not left" in cli.text.getvalue())
    assert "stopping: 5 had not left" in cli.text.getvalue()
    assert await sending is fleet.Ending.INTERRUPTED
    assert not cli.bench.controller.sent


async def test_other_devices_than_were_asked_about_are_not_commanded(cli):
    request, plan = await cli.plan()
    cli.bench.announce(serial="s9")
    with pytest.raises(fleet.FleetRefusedError, match="other devices match by now"):
        await fleet.carry_out(cli.bench.data_dir, request, plan, cli.out, wait=True)
    assert not cli.bench.controller.sent


async def test_without_a_gateway_it_says_so(tmp_path):
    with pytest.raises(NotRunningError):
        await fleet.plan_fleet(tmp_path, SendFleet(LIMIT, 1, "ann"))


async def test_a_bridge_that_is_down_is_named_and_that_nothing_can_leave_is_no_success(cli):
    status = BridgeStatus(name="scripted", type="scripted", up=False, detail="the cluster is away", since=NOON)
    cli.bench.router.bridge_status(status)
    cli.bench.controller.gate.clear()
    _, plan = await cli.plan()
    assert plan.reached == {"scripted": 5}
    assert (plan.outage.down, plan.outage.stranded) == ({"scripted": "the cluster is away"}, 5)
    assert await cli.send(wait=False) is fleet.Ending.NOT_ALL
    fleet.show_outage(plan.outage, cli.out)
    assert "by scripted: it is down: the cluster is away" in cli.text.getvalue()
    cli.bench.controller.gate.set()
    assert await cli.send() is fleet.Ending.DONE  # it is up again before they expire


async def test_where_another_bridge_reaches_the_device_it_is_not_stranded(cli):
    cli.bench.dispatcher.use({"scripted": cli.bench.controller, "other": cli.bench.controller})
    status = BridgeStatus(name="scripted", type="scripted", up=False, detail="away", since=NOON)
    cli.bench.router.bridge_status(status)
    _, plan = await cli.plan()
    assert (plan.outage.down, plan.outage.stranded) == ({"scripted": "away"}, 0)


async def test_how_it_ended_is_logged_once_also_where_nobody_waited(cli):
    with capture_logs() as logs:
        cli.bench.controller.gate.clear()
        assert await cli.send(wait=False) is fleet.Ending.DONE
        cli.bench.controller.gate.set()
        await until(lambda: any(line["event"] == "fleet command ended" for line in logs))
    told = [line for line in logs if line["event"].startswith("fleet command")]
    assert [line["event"] for line in told] == ["fleet command accepted", "fleet command ended"]
    assert (told[0]["accepted"], told[0]["by"]) == (5, {"scripted": 5})
    assert told[1]["succeeded"] == 5


@pytest.mark.parametrize(("beside", "most"), [(False, MANY), (True, FEW)])
async def test_a_fleet_is_submitted_some_at_a_time_and_lets_others_go_ahead(cli, monkeypatch, beside, most):
    for number in range(2 * MANY):
        cli.bench.announce(serial=f"x{number}", plant="p9")
    posted = []
    post = cli.bench.journal.post
    monkeypatch.setattr(cli.bench.journal, "post", lambda *e, **more: posted.append(e) or post(*e, **more))
    if beside:
        monkeypatch.setattr("gateway.core.places.LATELY", 3600)
        await cli.bench.dispatcher.submit(cli.bench.command(serial="s0"))
    assert await cli.send(plant="p9") is fleet.Ending.DONE
    accepted = [len(events) for events in posted if events and events[0].state is CommandState.ACCEPTED]
    assert sum(accepted) == 2 * MANY + beside
    assert max(accepted) == most
    assert all(command.bulk for command in cli.bench.controller.sent[beside:])
