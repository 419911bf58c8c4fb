"""What the configuration may say, and how commands are put together: without a cluster."""

import asyncio

import pytest
from pydantic import ValidationError

from gateway.bridges.batch import BatchSettings
from gateway.bridges.batch.message import Item
from gateway.bridges.batch.sender import Waiting, grouped, partition_of
from gateway.sems.whitelist import Whitelist
from tests.bridges.batch.kit import HOUSE
from tests.kit.bench import Bench
from tests.kit.clock import virtual

MINIMAL = {"connection": {"bootstrap_servers": ["k:9092"]}, "supplier": "acme", "whitelist": [HOUSE]}


def load(directory=None, **changes):
    return BatchSettings.model_validate(MINIMAL | changes, context={"directory": directory})


def test_topics_are_named_by_prefix_and_supplier_and_each_may_be_named_otherwise():
    override = {"interfaces": {"switch": {"path": "on.off.{supplier}", "answers": "on.off.done"}, "work_mode": None}}
    routes = {r.interface.name: r for r in load(overrides=override).interfaces.routes}
    assert (routes["battery"].commands, routes["battery"].results) == (
        "goodwe.acme.battery.command", "goodwe.acme.battery.result",
    )  # fmt: skip
    assert (routes["switch"].commands, routes["switch"].results) == ("on.off.acme", "on.off.done")
    assert "work_mode" not in routes
    assert "work_mode" not in load(overrides=override).interfaces.by_setpoint


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"overrides": {"interfaces": {"swich": None}}}, "did you mean 'switch'?"),
        ({"overrides": {"interfaces": {"switch": {"path": "what/is/this"}}}}, "no name of a Kafka topic"),
        ({"overrides": {"interfaces": {"switch": {"path": "{region}.switch"}}}}, "no name of a Kafka topic"),
        ({"announce": "inverter", "whitelist": "*"}, "announce needs a list"),
        ({"result_within": 500}, "less than or equal to 120"),
        ({"supplier": "a b"}, "should match pattern"),
        ({"whitelist": []}, "no serial number is listed"),
        ({"whitelist": [12345]}, "put the serial number 12345 in quotes"),
        ({"whitelist": ["SN*"]}, "patterns are not taken"),
        ({"whitelist": ["\x07"]}, "is no serial number"),
        ({"whitelist": {"file": "nowhere.txt"}}, "can't be read"),
        ({"whitelist": "SN1"}, "write a list of serial numbers"),
    ],
)
def test_mistakes_are_told_with_what_to_write_instead(changes, words):
    with pytest.raises(ValidationError, match=words.replace("?", r"\?").replace("{", r"\{").replace("*", r"\*")):
        load(**changes)


def test_a_whitelist_is_a_list_a_file_or_everything(tmp_path):
    (tmp_path / "list.txt").write_text("# ours\nSN1  # the roof\n\nSN2\nSN1\n")
    listed = load(tmp_path, whitelist={"file": "list.txt"}).whitelist
    assert (listed.numbers, "SN2" in listed, "SN3" in listed) == (("SN1", "SN2"), True, False)
    assert "anything" in load(whitelist="*").whitelist
    assert Whitelist.model_validate(listed) == listed


@virtual
async def test_a_message_has_one_partition_each_device_once_and_similar_time_left(tmp_path):
    bench = Bench(tmp_path)

    def waiting(serial, left):
        item = Item(bench.command(serial=serial), {})
        return Waiting(item, left, asyncio.get_running_loop().create_future())

    serials = [f"SN{n}" for n in range(40)]
    assert {partition_of(serial, 3) for serial in serials} == {0, 1, 2}
    taken = [waiting(serial, 60) for serial in serials] + [waiting("SN0", 60), waiting("SN1", 3), waiting("SN2", 3.5)]
    groups = [[(w.serial, w.deadline) for w in group] for group in grouped(taken, 3, 10, 0.0)]
    assert sum(map(len, groups)) == 43
    for group in groups:
        assert len({partition_of(serial, 3) for serial, _ in group}) == 1
        assert len({serial for serial, _ in group}) == len(group) <= 10
        assert max(left for _, left in group) <= 2 * min(left for _, left in group)
    firsts = [n for n, group in enumerate(groups) for serial, _ in group if serial == "SN0"]
    assert firsts == sorted(firsts)
    assert len(firsts) == 2
