"""Empty lists of plants, believed at last, while a timer runs: the device is set back, and can still be commanded."""

import time

import pytest

from gateway.sems.doubts import SLACK
from tests.kit.process import eventually
from tests.reliability.rig import Rig

pytestmark = [pytest.mark.system, pytest.mark.timeout(480)]

ROOF, STORE = (("9020KDTU219W0001", "export_limit"), ("9020KETT221W0001", "export_limit"))


def refused(rig, target, value):
    """Whether the device is unknown. Each that is known is set, so this is not asked often."""
    unknown = "unknown_device" in rig.set(target, value).text
    if not unknown:
        time.sleep(2)
    return unknown


def test_what_was_promised_outlives_an_empty_list_of_plants(tmp_path):
    # A minute is how far apart lists are that must agree; the rest of it is as it is.
    rig = Rig(tmp_path, hasty={"gateway.sems.doubts.AGAIN": SLACK + 1})
    text = rig.config.read_text()
    rig.config.write_text(text.replace("poll_interval: 5", "poll_interval: 5\n    discovery_interval: 10"))
    with rig.surroundings(), rig.running():
        rig.set(ROOF, 1.0, revert_after=400, revert_value=2.0)
        eventually(lambda: rig.ended(ROOF, 1.0) == "succeeded")
        rig.spoil(answers=[{"answer": "empty_lists", "interfaces": ["GetUserPlantList"]}])
        # The list is doubted at first: three that agree are believed.
        eventually(lambda: refused(rig, STORE, 1.0), otherwise=lambda: rig.set(STORE, 1.0).text)
        assert rig.set(ROOF, 3.0, revert_after=8, revert_value=2.0).status_code < 300, "the operator's own set"
        eventually(lambda: rig.ended(ROOF, 3.0) == "succeeded")
        eventually(lambda: rig.records().in_force[ROOF] == 2.0, otherwise="it was not set back")
        eventually(lambda: refused(rig, ROOF, 4.0))
