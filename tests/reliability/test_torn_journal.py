"""Killed under load, and then the end of the journal is gone, as after a power cut on a disk that lied about writing.

tests/journal/test_journal_damage.py damages it anywhere. Here a whole gateway goes on with what is left, and the
cloud is witness that it does nothing wrong. What was torn off is forgotten, so of the checker's kinds only these may be
found.
"""

import random

import pytest

from tests.kit.process import eventually, finished
from tests.reliability import streams
from tests.reliability.checker import reconcile
from tests.reliability.crashes import come_to_rest
from tests.reliability.rig import Rig

pytestmark = pytest.mark.system

FORGOTTEN = {"lost", "out of nothing", "published, not journaled", "not published", "not reverted",
             "not reverted in time", "not done"}  # fmt: skip


@pytest.mark.parametrize(("file", "least"), [("journal.sqlite-wal", 0.2), ("journal.sqlite", 0.5)])
def test_a_gateway_whose_journal_is_cut_off_goes_on_and_does_nothing_late_or_stale(tmp_path, file, least):
    rig = Rig(tmp_path)
    sources = streams.all_of(rig, 11)
    with rig.surroundings():
        rig.start()
        rig.wait_until_ready()
        for source in sources:
            source.start()
        eventually(lambda: sum(command.end == "succeeded" for command in rig.commands()) > 5)
        rig.kill()
        for source in sources:
            source.end()
        torn = rig.data_dir / file
        with torn.open("r+b") as content:
            content.truncate(int(torn.stat().st_size * random.Random(file).uniform(least, 1.0)))
        rig.start()
        rig.wait_until_ready()
        halted = finished("resume", rig.config)
        assert halted.returncode == 0, halted.stderr
        come_to_rest(rig, sources[0].values)
        verdict = reconcile(rig.records())
    assert not verdict.kinds - FORGOTTEN, "\n".join(map(str, verdict.faults))
    assert verdict.figures["audit rows"] > 10
