"""A power cut at any byte of any file in data_dir: the gateway starts, shows data, and where a promise may be lost it
keeps control closed until a person resumes.

CI tries a sample, with all small files damaged at once; `make reliability` every file with every damage, each alone.
"""

import os
import random

import httpx
import pytest

from tests.kit.process import eventually, finished
from tests.reliability.damage import DAMAGES, JOURNAL, LANE, TIMER, Box
from tests.reliability.records import read_journal

pytestmark = pytest.mark.system

EVERY = bool(os.environ.get("SEMS_GATEWAY_ALL_DAMAGES"))
SEED = int(os.environ.get("SEMS_GATEWAY_SEED", "20261130"))
MAY_LOSE = ("journal.sqlite", "journal.sqlite-wal")
"""What promises are in."""


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    box = Box(tmp_path_factory.mktemp("box"))
    with box.surroundings():
        box.make_whole()
        yield box


def ready(box):
    answer = httpx.get(f"http://127.0.0.1:{box.web}/readyz", timeout=120, trust_env=False)
    return answer.json()


def goes_on(box, damages, base=None):
    """Start on a damaged data_dir and see that all is as it should be."""
    base = base or box.whole
    box.begin(damages, random.Random(f"{SEED} {damages}"), base)
    try:
        eventually(lambda: not ready(box)["down"], otherwise=lambda: f"{ready(box)}\n{box.gateway.text}")
        halted = ready(box)["halted"]
        if not halted:
            assert not promises_lost(box, base), f"control is open after {damages}"
            assert TIMER in {lane[:2] for lane in box.timers()}, f"the timer is gone after {damages}"
        elif not set(damages) & {*MAY_LOSE, "halt.json"}:
            # Units that nobody knows any more are the other promise there is.
            assert damages.keys() >= {"modbus-units.json", "modbus-units.json.old"}, f"{damages} halt control"
        if halted:
            refused = box.set(LANE, 5.0)
            assert (refused.status_code, refused.json()["reason"]) == (409, "halted"), refused.text
            done = finished("resume", box.config)
            assert done.returncode == 0, done.stderr
        assert eventually(lambda: box.succeeds(LANE, 5.0)), f"no command succeeds after {damages}"
        for name in damages:
            assert len(box.lines_about(name)) <= 2, "\n".join(box.lines_about(name))
        box.stop()
    finally:
        box.kill()


def promises_lost(box, base):
    """Return steps that the sound journal has, and this one does not."""
    had = {(id_, step) for id_, one in read_journal(base / "journal.sqlite")[0].items() for step in one.path}
    has = {(id_, step) for id_, one in read_journal(box.journal)[0].items() for step in one.path}
    return had - has


ROUNDS = [dict(zip(("journal", "small"), each, strict=True)) for each in (
    (("journal.sqlite", "zeroed_tail"), 0),
    (("journal.sqlite-wal", "cut"), 1),
    (("journal.sqlite", "cut"), 2),
    (("journal.sqlite.head", "empty"), 3),
)]  # fmt: skip


@pytest.mark.parametrize("each", ROUNDS, ids=lambda each: "-".join(each["journal"]))
def test_all_small_files_damaged_at_once_and_one_of_the_journal(box, each):
    damages = list(DAMAGES)
    small = [name for name in box.files() if name not in JOURNAL and not name.endswith(".old")]
    assert len(small) > 12, small
    rotated = {name: damages[(n + each["small"]) % len(damages)] for n, name in enumerate(small)}
    goes_on(box, rotated | dict([each["journal"]]))


@pytest.mark.parametrize("damage", DAMAGES if EVERY else ["first_page_zeroed"])
def test_a_journal_that_was_closed_in_good_order(box, damage):
    """Y1: a power cut, and the first 4 KiB of the journal are zeros."""
    goes_on(box, {"journal.sqlite": damage}, box.before)
    if damage == "first_page_zeroed":
        assert TIMER in {lane[:2] for lane in box.timers()}, "what can be read of it is rescued"


@pytest.mark.skipif(not EVERY, reason="make reliability does")
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_with_every_damage(box, damage):
    for name in box.files():
        goes_on(box, {name: damage})


def test_without_any_copy_of_the_units_control_is_closed(box):
    goes_on(box, {"modbus-units.json": "zeroed_tail", "modbus-units.json.old": "empty"})
