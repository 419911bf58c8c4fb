"""Births that a broker does not take, and types in data: row M4 of the trials."""

import pytest

from tests.bridges.mqtt.brokers import narrow
from tests.kit.bench import INVERTER, until
from tests.kit.mosquitto import mosquitto

SN = INVERTER.serial
MANY = {f"string_{n}_voltage": 600.0 + n for n in range(1, 25)}


@pytest.fixture
async def broker(tmp_path):
    async with mosquitto(tmp_path, extra=["max_packet_size 3000"]) as it:
        yield it


async def test_a_birth_that_is_too_large_goes_without_properties_and_others_are_whole(broker, host, node, capsys):
    async with node() as gateway:
        gateway.announce()
        gateway.announce(serial="small", setpoints={})
        gateway.announce(serial="larger")
        gateway.publish(**MANY)
        gateway.publish("small", ac_power=1.0)
        # Even without properties: every metric has a name of its own.
        gateway.publish("larger", **MANY, **{f"mppt_{n}_power": 600.0 + n for n in range(1, 40)})
        gateway.connect(broker)
        small = await host.count(1, "DBIRTH", "small")
        assert "properties" in small["payload"]["metrics"][0]
        large = await host.count(1, "DBIRTH", SN)
        assert "properties" not in large["payload"]["metrics"][0]
        await until(lambda: gateway.status.up and "spBv1.0/sems/DBIRTH/test-gateway/larger" in gateway.status.detail)
        gateway.publish("larger", string_1_voltage=5.0)
        gateway.publish("small", ac_power=2.0)
        await host.count(1, "DDATA", "small")
        assert not host.all("DDATA", "larger"), "no data of what was not born"
        numbers = [int(m["payload"].get("seq", -1)) for m in host.raw]
        assert numbers == list(range(len(numbers))), "what was left out has no number"
        assert gateway.runner.bridge._client.opened == 1
        assert not host.errors
        assert "DBIRTH/test-gateway/larger" in capsys.readouterr().out


async def test_a_node_whose_birth_is_not_taken_says_nothing_and_is_not_up(node):
    async with narrow(properties=b"\x27" + (120).to_bytes(4)) as it, node() as gateway:
        gateway.announce()
        gateway.publish(ac_power=1.0)
        gateway.connect(it)
        await gateway.down("NBIRTH/test-gateway (it is too large)")
        gateway.publish(ac_power=2.0)
        assert not it.topics
        assert it.opened == 1


@pytest.mark.parametrize("types", [True, False])
async def test_types_are_repeated_in_data_where_that_is_wanted(broker, host, node, types):
    async with node() as gateway:
        gateway.announce()
        gateway.publish(ac_power=1.0, status="normal")
        gateway.connect(broker, sparkplug={"types_in_data": types})
        birth = await host.count(1, "DBIRTH", SN)
        gateway.publish(ac_power=2.0, status="waiting")
        data = await host.count(1, "DDATA", SN)
        born = {m["alias"]: m["datatype"] for m in birth["payload"]["metrics"]}
        seen = {m["alias"]: m.get("datatype") for m in data["payload"]["metrics"]}
        assert len(seen) == 2
        assert seen == {alias: born[alias] if types else None for alias in seen}
