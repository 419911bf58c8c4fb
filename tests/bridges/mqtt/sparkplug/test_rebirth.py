"""Rebirth, when a host asks for it."""

import gateway.bridges.mqtt.sparkplug.node as node_module
from tests.bridges.mqtt.peer import peer
from tests.bridges.mqtt.sparkplug.statements import checks
from tests.kit.bench import INVERTER, until
from tests.kit.sparkplug import metrics_of

SN = INVERTER.serial


@checks(
    "operational-behavior-data-commands-rebirth-action-2", "operational-behavior-data-commands-rebirth-action-3",
)  # fmt: skip
async def test_a_rebirth_is_all_births_with_the_bdseq_of_the_connection(plant):
    gateway, host = plant
    gateway.announce(serial="other")
    gateway.publish("other", ac_power=1.0)
    first = await host.count(1, "DBIRTH", "other")
    host.rebirth()
    birth = await host.count(2, "NBIRTH")
    assert birth["payload"]["seq"] == "0"
    assert metrics_of(birth)["bdSeq"]["long_value"] == metrics_of(host.all("NBIRTH")[0])["bdSeq"]["long_value"]
    await host.count(2, "DBIRTH", SN)
    again = await host.count(2, "DBIRTH", "other")
    assert {m["name"]: m["alias"] for m in again["payload"]["metrics"]} == {
        m["name"]: m["alias"] for m in first["payload"]["metrics"]
    }
    kinds = [m["type"] for m in host.raw if m["type"] in ("NBIRTH", "DBIRTH")]
    assert kinds[-3:] == ["NBIRTH", "DBIRTH", "DBIRTH"]


@checks("operational-behavior-data-commands-rebirth-action-1")
async def test_from_the_request_to_the_birth_no_data_are_sent(plant, monkeypatch):
    gateway, host = plant
    monkeypatch.setattr(node_module, "REBIRTH_PAUSE", 60.0)
    host.rebirth()
    await host.count(2, "NBIRTH")
    host.rebirth()  # has to wait for a minute
    await until(lambda: gateway.edge._rebirth_wanted)
    seen = len(host.raw)
    for n in range(5):
        gateway.publish(ac_power=float(n))
    await until(lambda: gateway.edge._outbox.states)
    gateway.edge._rebirth_from = 0.0
    gateway.edge._outbox.wake()
    await host.count(3, "DBIRTH", SN)
    kinds = [m["type"] for m in host.raw[seen:] if m["type"] != "NCMD"]
    assert kinds[:2] == ["NBIRTH", "DBIRTH"]
    assert metrics_of(host.all("DBIRTH", SN)[2])["ac_power"]["double_value"] == 4.0


async def test_a_storm_of_requests_is_a_few_births(plant, monkeypatch):
    gateway, host = plant
    monkeypatch.setattr(node_module, "REBIRTH_PAUSE", 0.5)
    for _ in range(500):
        host.rebirth()
    await host.count(500, "NCMD")
    await until(lambda: not gateway.edge._rebirth_wanted)
    gateway.publish(ac_power=9.0)
    await until(lambda: any(v.get("ac_power") == 9.0 for kind in ("DDATA", "DBIRTH") for v in host.values(kind, SN)))
    assert 2 <= len(host.all("NBIRTH")) <= 6


REBIRTH = bytes.fromhex("1218 0a14 4e6f646520436f6e74726f6c2f52656269727468 7001".replace(" ", ""))
"""One metric, `Node Control/Rebirth`, true."""


async def test_a_request_that_is_false_or_retained_or_garbage_is_none(broker, node):
    # Without the host that we did not write: garbage ends it.
    ncmd = "spBv1.0/sems/NCMD/test-gateway"
    async with peer(broker) as it, node() as gateway:
        gateway.connect(broker)
        await it.next("spBv1.0/sems/NBIRTH/test-gateway")
        it.publish(ncmd, b"\xff\xff\xff")
        it.publish(ncmd, b"", retain=True)
        it.publish(ncmd, REBIRTH, retain=True)
        it.publish(ncmd, REBIRTH[:-1] + b"\x00")
        it.publish(ncmd, bytes.fromhex("1203 0a0178".replace(" ", "")))
        it.publish("spBv1.0/sems/NCMD/elsewhere", REBIRTH)
        await until(lambda: len(gateway.edge._commands._told) == 3)
        gateway.announce()
        await it.next("spBv1.0/sems/NDATA/test-gateway")
        assert len(it.all("spBv1.0/sems/NBIRTH/test-gateway")) == 1
        it.publish(ncmd, REBIRTH)
        await until(lambda: len(it.all("spBv1.0/sems/NBIRTH/test-gateway")) == 2)
