"""The card turns read-only: book-keeping never bars the safe action, data go on, and control is closed, loudly."""

import subprocess

import httpx
import pytest

from tests.kit.process import eventually
from tests.reliability.rig import Rig
from tests.reliability.small_disk import small_disk

pytestmark = pytest.mark.system

ROOF, STORE = (("9020KDTU219W0001", "export_limit"), ("9020KETT221W0001", "export_limit"))


@pytest.fixture
def rig(tmp_path):
    with small_disk(tmp_path / "disk", "32m") as disk:
        if disk.prefix:
            pytest.skip("only root can make the disk read-only")
        rig = Rig(tmp_path, disk, log="info")
        rig.card = disk.outside
        with rig.surroundings():
            rig.start()
            rig.wait_until_ready()
            yield rig
            card(rig, "rw")


def card(rig, how):
    # Open files stand in the way of a plain remount; a card that dies asks nobody.
    subprocess.run(["mount", "-o", f"remount,{how}", str(rig.card)], check=True)


def readyz(rig):
    answer = httpx.get(f"http://127.0.0.1:{rig.web}/readyz", timeout=120, trust_env=False)
    return answer.status_code, answer.json().get("journal", "")


def in_force(rig, lane):
    return rig.records().in_force[lane]


def test_a_timer_fires_although_the_card_has_died_and_control_opens_when_it_is_back(rig):
    eventually(lambda: readyz(rig) == (200, ""), otherwise=lambda: str(readyz(rig)))
    rig.set(ROOF, 1.0, revert_after=6, revert_value=2.0)
    eventually(lambda: rig.ended(ROOF, 1.0) == "succeeded")
    fill(rig)
    refused = rig.set(STORE, 3.0)
    assert (refused.status_code, refused.json()["reason"]) == (503, "not_stored")
    eventually(lambda: in_force(rig, ROOF) == 2.0, 30, "the revert did not go")
    code, why = readyz(rig)
    assert code == 503
    assert "journal" in why
    metrics = httpx.get(f"http://127.0.0.1:{rig.web}/metrics", headers=token(rig), timeout=120, trust_env=False).text
    assert "sems_gateway_journal_up 0.0" in metrics
    assert in_force(rig, STORE) != 3.0
    empty(rig)
    eventually(lambda: rig.set(STORE, 4.0).status_code < 300, 60, "control does not open again")
    eventually(lambda: rig.ended(ROOF, 2.0) == "succeeded", 30, "what went is not in the journal")
    assert rig.timers() == []
    eventually(lambda: readyz(rig) == (200, ""), otherwise=lambda: str(readyz(rig)))
    rig.stop()


def test_a_gateway_starts_on_a_read_only_card_with_data_and_reverts_and_without_control(rig):
    rig.set(ROOF, 1.0, revert_after=15, revert_value=2.0)
    eventually(lambda: rig.ended(ROOF, 1.0) == "succeeded")
    rig.kill()
    card(rig, "ro")
    rig.start()
    rig.wait_until_ready()
    code, why = readyz(rig)
    assert code == 503
    assert "journal" in why
    refused = rig.set(STORE, 3.0)
    assert (refused.status_code, refused.json()["reason"]) == (503, "not_stored")
    eventually(lambda: in_force(rig, ROOF) == 2.0, 60, "the revert did not go")
    assert rig.gateway.code is None
    card(rig, "rw")
    eventually(lambda: rig.set(STORE, 4.0).status_code < 300, 60, "control does not open again")
    eventually(lambda: rig.ended(ROOF, 2.0) == "succeeded", 30, "what went is not in the journal")
    assert rig.timers() == []
    rig.stop()


def token(rig):
    return {"Authorization": f"Bearer {rig.token}"}


def fill(rig):
    """Not a byte can be written: a disk that is held open for writing can't be made read-only for a test."""
    with (rig.card / "ballast").open("ab", buffering=0) as file:
        for size in (1 << 16, 1):
            while True:
                try:
                    file.write(b"\0" * size)
                except OSError:
                    break


def empty(rig):
    (rig.card / "ballast").unlink()
