"""Every fault the simulated cloud knows, to the answer of a control call, whether it is carried out or not."""

import json
import os
import subprocess
from functools import partial

import httpx
import pytest

from gateway.simulator.faults import Spoil
from tests.kit.process import COMMAND, eventually
from tests.reliability.checker import reconcile
from tests.reliability.records import posix, read_executed
from tests.reliability.rig import Rig
from tests.reliability.streams import BUSY

pytestmark = pytest.mark.system

CALLS = ["SetExportLimit", "SetActivePowerLimit"]
SLOW = {Spoil.HTTP_429, Spoil.HTTP_429_DATE, Spoil.HTTP_429_BARE, Spoil.RATE_LIMITED, Spoil.LOGIN_REFUSED}
"""After these the gateway keeps away from SEMS for minutes, as it should; tests/sems has them on a free clock."""
FAULTS = [
    *({"answer": spoil, "executed": done} for spoil in Spoil if spoil not in SLOW for done in (False, True)),
    {"delay": 1.0},
]
if not os.environ.get("SEMS_GATEWAY_ALL_FAULTS"):  # as `make reliability` has it
    FAULTS = FAULTS[3::4]


@pytest.fixture
def rig(tmp_path):
    rig = Rig(tmp_path)
    with rig.surroundings():
        rig.start()
        rig.wait_until_ready()
        yield rig


def executed(rig, lane, value):
    return any(
        (e.serial, e.setpoint, e.value) == (*lane, value) for e in read_executed(rig.ask("controls")["controls"])
    )


def test_whatever_becomes_of_answers_each_command_has_one_end_and_none_is_done_late_or_stale(rig):
    """A fault for each of the lanes in turn, two commands each: what it spoils, and the next one after it."""
    value = 0
    for begin in range(0, len(FAULTS), len(BUSY)):
        for lane, fault in zip(BUSY, FAULTS[begin : begin + len(BUSY)], strict=False):
            value += 2
            rig.spoil(answers=[fault | {"interfaces": CALLS, "times": 1}])
            rig.set(lane, value, ttl=20)
            eventually(lambda: not rig.ask("faults")["answers"][0]["times"], otherwise=f"nothing was spoilt: {fault}")
            rig.set(lane, value + 1, ttl=120)
            # Else the next fault may be this one's: it would be executed, and fail by what the cloud says.
            eventually(partial(executed, rig, lane, value + 1), otherwise=f"{lane} = {value + 1} is not executed")
    eventually(lambda: not rig.unended(), otherwise=lambda: f"these do not end: {rig.unended()}")
    rig.stop()
    rig.watcher.settle()
    verdict = reconcile(rig.records())
    assert verdict.faults == [], "\n".join(map(str, verdict.faults))
    assert verdict.figures["commands"] == 2 * len(FAULTS)


def test_a_call_that_hangs_does_not_hold_a_dead_mans_timer_up(rig):
    lane = BUSY[1]
    rig.spoil(answers=[{"interfaces": CALLS, "delay": 55.0, "times": 1, "executed": True}])
    rig.set(lane, 11.0, ttl=60, revert_after=2, revert_value=92.0)
    eventually(lambda: executed(rig, lane, 92.0), otherwise="it is not set back")
    at = {e.value: e.asked for e in read_executed(rig.ask("controls")["controls"]) if (e.serial, e.setpoint) == lane}
    assert at[92.0] - at[11.0] < 25, "while the call still hangs"


def test_of_a_call_that_hangs_every_door_says_when_it_left(rig):
    lanes = BUSY[1:6:2]
    rig.spoil(answers=[{"interfaces": CALLS, "delay": 5.0, "executed": True}])
    for lane in lanes:
        assert rig.set(lane, 31.0, ttl=60).status_code == 202
    eventually(lambda: all(rig.ended(lane, 31.0) for lane in lanes), otherwise=lambda: f"open: {rig.unended()}")
    rig.watcher.settle()
    came_in = {(call.serial, call.setpoint): call.asked for call in rig.records().calls if call.value == 31.0}
    audit = json.loads(subprocess.check_output([*COMMAND, "audit", str(rig.config), "--format", "json"]))
    told = [json.loads(payload) for payload in rig.watcher.results]
    for command in (command for command in rig.commands() if command.value == 31.0):
        accepted, sent, done = (command.at(state).time for state in ("accepted", "sent", "succeeded"))
        assert accepted <= sent <= came_in[command.lane] <= done
        assert done - sent >= 5.0
        steps = httpx.get(
            f"http://127.0.0.1:{rig.web}/api/v1/commands/{command.id}",
            headers={"Authorization": f"Bearer {rig.token}"},
            trust_env=False,
        ).json()["steps"]
        rows = [row for row in (*told, *audit) if row["id"] == command.id]
        times = [row["time"] for row in (*steps, *rows) if row["state"] == "sent"]
        assert [posix(time) for time in times] == [pytest.approx(sent, abs=0.001)] * 3
