"""Waiting for the primary host, and leaving when it leaves."""

import pytest

from gateway.bridges.mqtt.sparkplug.host import PrimaryHost, StateError
from tests.bridges.mqtt.peer import peer
from tests.bridges.mqtt.sparkplug.statements import checks
from tests.bridges.mqtt.sparkplug.tap import CONNECT, DISCONNECT, PUBLISH, SUBSCRIBE, tapped
from tests.kit.bench import INVERTER, until
from tests.kit.sparkplug import metrics_of

SN = INVERTER.serial
WAITS = "waits for the primary host scada to say at spBv1.0/STATE/scada that it is online"
SCADA = {"primary_host": "scada"}


@pytest.fixture
async def waiting(broker, host, node):
    """A node that waits for `scada`, and the tap in its wire."""
    async with tapped(broker) as tap, node() as gateway:
        gateway.announce()
        gateway.publish(ac_power=1.0)
        gateway.connect(tap, sparkplug=SCADA)
        await gateway.down(WAITS)
        yield gateway, host, tap


@checks(
    "message-flow-edge-node-birth-publish-phid-wait", "message-flow-edge-node-birth-publish-phid-wait-id",
    "message-flow-edge-node-birth-publish-phid-wait-online", "operational-behavior-edge-node-birth-sequence-wait",
)  # fmt: skip
async def test_nothing_is_published_before_the_host_is_online(waiting):
    gateway, host, tap = waiting
    assert b"spBv1.0/STATE/scada" in tap.of(SUBSCRIBE)[0].body
    # Neither another host nor one that is offline counts, whatever data come meanwhile.
    host.state(online=True, host="scada2")
    host.state(online=False, time=1_000)
    gateway.publish(ac_power=2.0)
    await until(lambda: gateway.edge._host._last == 1_000)
    await gateway.down(WAITS)
    assert not tap.of(PUBLISH)
    host.state(online=True, time=2_000)
    birth = await host.count(1, "DBIRTH", SN)
    assert metrics_of(birth)["ac_power"]["double_value"] == 2.0
    await gateway.up()
    assert [m["type"] for m in host.raw[:2]] == ["NBIRTH", "DBIRTH"]


async def test_a_host_that_was_there_before_is_known_by_its_retained_state(broker, host, node):
    host.state(online=True, time=5_000)
    async with node() as gateway:
        gateway.connect(broker, sparkplug=SCADA)
        await host.count(1, "NBIRTH")
        await gateway.up()


@checks(
    "message-flow-edge-node-birth-publish-phid-offline", "operational-behavior-edge-node-termination-host-offline",
    "operational-behavior-edge-node-termination-host-offline-reconnect",
)  # fmt: skip
async def test_when_the_host_goes_the_node_ends_its_session_and_waits_in_the_next(waiting, protocol):
    gateway, host, tap = waiting
    host.state(online=True, time=5_000)
    await host.count(1, "DBIRTH", SN)
    host.state(online=False, time=5_000)
    death = await host.count(1, "NDEATH")
    assert metrics_of(death)["bdSeq"]["long_value"] == "0"
    await until(lambda: len(tap.of(CONNECT)) == 2, "it has connected again")
    assert len(tap.of(DISCONNECT)) == 1
    await gateway.down(WAITS)
    assert len(host.all("NBIRTH")) == 1
    host.state(online=True, time=6_000)
    birth = await host.count(2, "NBIRTH")
    assert metrics_of(birth)["bdSeq"]["long_value"] == "1"
    await host.count(2, "DBIRTH", SN)
    await gateway.up()


def bd_seqs(host, type_):
    return {metrics_of(message)["bdSeq"]["long_value"] for message in host.all(type_)}


async def test_a_host_that_goes_while_births_are_under_way_is_left_too(waiting):
    gateway, host, _ = waiting
    for n in range(300):
        gateway.announce(serial=f"inverter-{n}")
        gateway.publish(f"inverter-{n}", ac_power=1.0)
    host.state(online=True, time=4_000)
    # From here on births are under way; states that came together would begin none.
    await host.count(1, "NBIRTH")
    for n in range(5):
        host.state(online=True, time=5_000 + 2 * n)
        host.state(online=False, time=5_001 + 2 * n)
    await until(lambda: gateway.edge._host._last == 5_009)
    await gateway.down(WAITS)
    await until(lambda: bd_seqs(host, "NDEATH") == bd_seqs(host, "NBIRTH") != set(), "each birth has its death")
    assert not gateway.edge._born


async def test_a_host_that_goes_and_comes_back_while_the_first_birth_goes_out_is_left_too(waiting):
    gateway, host, _ = waiting
    edge = gateway.edge
    birth_of_node = edge._birth_of_node

    async def slow(line):
        edge._birth_of_node = birth_of_node
        born = await birth_of_node(line)
        host.state(online=False, time=5_000)
        host.state(online=True, time=6_000)
        await until(lambda: edge._host._last == 6_000)
        return born

    edge._birth_of_node = slow
    host.state(online=True, time=4_000)
    await host.count(1, "NDEATH")
    await host.count(2, "NBIRTH")
    await gateway.up()
    assert bd_seqs(host, "NDEATH") == {"0"}
    assert bd_seqs(host, "NBIRTH") == {"0", "1"}


@checks(
    "message-flow-edge-node-birth-publish-phid-wait-timestamp",
    "operational-behavior-edge-node-termination-host-offline-timestamp",
)  # fmt: skip
async def test_an_older_state_message_counts_for_nothing(waiting):
    gateway, host, tap = waiting
    host.state(online=False, time=9_000)
    await until(lambda: gateway.edge._host._last == 9_000)
    host.state(online=True, time=8_999)
    host.state(online=True, time=9_000)
    await host.count(1, "DBIRTH", SN)
    host.state(online=False, time=8_000)
    gateway.publish(ac_power=3.0)
    await host.told(SN, "ac_power", 3.0)
    assert len(tap.of(CONNECT)) == 1
    assert not host.all("NDEATH")


async def test_after_an_outage_the_host_has_to_be_online_still(waiting, broker):
    gateway, host, tap = waiting
    host.state(online=True, time=5_000)
    await host.count(1, "NBIRTH")
    tap.refusing = True
    tap.cut()
    await host.count(1, "NDEATH")
    host.state(online=False, time=6_000)
    async with peer(broker) as it:
        await it.next("spBv1.0/STATE/scada", lambda m: m["timestamp"] == 6_000)
    tap.refusing = False
    await gateway.down(WAITS)
    assert len(host.all("NBIRTH")) == 1


async def test_a_host_of_sparkplug_2_is_told_of_in_the_log(waiting, broker):
    gateway, _, tap = waiting
    async with peer(broker) as it:
        it.publish("spBv1.0/STATE/scada", "ONLINE", retain=True)
        await until(lambda: gateway.edge._commands._told)
    ((text, _),) = gateway.edge._commands._told
    assert "STATE is not" in text
    assert not tap.of(PUBLISH)


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"ONLINE", b"\xff", b"[]", b'{"online": true}', b'{"online": 1, "timestamp": 1}',
        b'{"online": true, "timestamp": true}', b'{"online": true, "timestamp": "1"}', b"[" * 4_000, b" " * 5_000,
    ],
)  # fmt: skip
def test_what_is_no_state_is_refused(payload):
    host = PrimaryHost()
    with pytest.raises(StateError, match=r"Sparkplug 3\.0"):
        host.receive(payload)
    assert not host.online
