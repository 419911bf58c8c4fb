"""Every fault the simulated cloud knows, to the answer of a control call, whether it is carried out or not."""

import os

import pytest

from gateway.simulator.faults import Spoil
from tests.kit.process import eventually
from tests.reliability.checker import reconcile
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
    eventually(lambda: not rig.unended(), 120, lambda: f"these do not end: {rig.unended()}")
    rig.stop()
    rig.watcher.settle()
    verdict = reconcile(rig.records())
    assert verdict.faults == [], "\n".join(map(str, verdict.faults))
    assert verdict.figures["commands"] == 2 * len(FAULTS)
