"""The disk fills up under load: what can't be written down is refused and not done; space comes back and it goes on."""

import pytest

from tests.kit.process import eventually
from tests.reliability import streams
from tests.reliability.checker import reconcile
from tests.reliability.crashes import come_to_rest
from tests.reliability.rig import Rig
from tests.reliability.small_disk import small_disk

pytestmark = pytest.mark.system


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        yield disk


def test_on_a_full_disk_commands_are_refused_and_nothing_accepted_is_lost_also_by_a_kill(tmp_path, disk):
    rig = Rig(tmp_path, disk)
    sources = streams.all_of(rig, 7)
    with rig.surroundings():
        rig.start()
        rig.wait_until_ready()
        for source in sources:
            source.start()
        eventually(lambda: any(command.end == "succeeded" for command in rig.commands()))

        disk.fill()
        eventually(lambda: rig.watcher.reasons["not_stored"] > 10, otherwise="nothing is refused on a full disk")
        assert rig.code is None, "it must live on"

        rig.kill()
        rig.start()
        told = rig.watcher.reasons.total()
        eventually(lambda: rig.code is not None or rig.watcher.reasons.total() > told)
        if rig.code is not None:
            assert rig.code == 1
            rig.gateway.line("space")
            rig.kill()

        disk.empty()
        if rig.gateway is None:
            rig.start()
        done = len(rig.commands())
        eventually(lambda: len(rig.commands()) > done + 10, otherwise="it does not go on")
        for source in sources:
            source.end()
        come_to_rest(rig, sources[0].values)
        verdict = reconcile(rig.records([promise for source in sources for promise in source.promised]))
    # A revert that was due meanwhile goes out, and is written down once there is room.
    faults = [fault for fault in verdict.faults if fault.kind != "not reverted in time"]
    assert faults == [], "\n".join(map(str, faults))
    assert verdict.figures["executions"] > 3
