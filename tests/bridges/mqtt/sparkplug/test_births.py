"""What a host learns when the node is born."""

from gateway.commands.policy.policy import ControlSettings
from gateway.core.model import DeviceKind
from gateway.core.points import POINTS
from tests.bridges.mqtt.sparkplug.statements import checks
from tests.kit.bench import INVERTER, until
from tests.kit.sparkplug import metrics_of, properties_of

SN = INVERTER.serial
MINUTE = 60_000


@checks(
    "topic-structure", "topic-structure-namespace-a", "topics-nbirth-topic", "topics-nbirth-mqtt",
    "message-flow-edge-node-birth-publish-nbirth-topic", "message-flow-edge-node-birth-publish-nbirth-payload",
    "message-flow-edge-node-birth-publish-nbirth-qos", "message-flow-edge-node-birth-publish-nbirth-retained",
    "message-flow-edge-node-birth-publish-nbirth-payload-seq", "payloads-nbirth-qos", "payloads-nbirth-retain",
    "payloads-nbirth-seq", "topics-nbirth-seq-num", "payloads-sequence-num-req-nbirth", "topics-nbirth-timestamp",
    "payloads-nbirth-timestamp", "payloads-timestamp-in-UTC",
    "topic-structure-namespace-device-id-non-associated-message-types",
)  # fmt: skip
async def test_the_birth_of_the_node(plant):
    _, host = plant
    birth = await host.count(1, "NBIRTH")
    assert birth["topic"] == "spBv1.0/sems/NBIRTH/test-gateway"
    assert (birth["qos"], birth["retain"]) == (0, False)
    assert birth["payload"]["seq"] == "0"
    assert abs(birth["at"] - int(birth["payload"]["timestamp"])) < MINUTE


@checks(
    "topics-nbirth-metric-reqs", "topics-nbirth-metrics", "topics-nbirth-bdseq-included", "payloads-nbirth-bdseq",
    "message-flow-edge-node-birth-publish-nbirth-payload-bdSeq", "topics-nbirth-rebirth-metric",
    "payloads-nbirth-rebirth-req", "operational-behavior-data-commands-rebirth-name",
    "operational-behavior-data-commands-rebirth-name-aliases",
    "operational-behavior-data-commands-rebirth-datatype", "operational-behavior-data-commands-rebirth-value",
    "operational-behavior-data-publish-nbirth", "operational-behavior-data-publish-nbirth-values",
)  # fmt: skip
async def test_the_nodes_metrics(plant):
    gateway, host = plant
    found = metrics_of(await host.count(1, "NBIRTH"))
    assert found["bdSeq"]["long_value"] == "0"
    assert found["bdSeq"]["datatype"] == 4
    rebirth = found["Node Control/Rebirth"]
    assert (rebirth["datatype"], rebirth["boolean_value"], "alias" in rebirth) == (11, False, False)
    assert found["Properties/Gateway"]["string_value"] == "test-gateway"
    assert {"devices/total", "devices/good", "bridges/mqtt/up", "bridges/mqtt/detail"} <= found.keys()
    for metric in found.values():
        assert metric["datatype"] in (4, 11, 12)
        assert any(key.endswith("_value") for key in metric), metric
    # What is told later was named here.
    gateway.announce(serial="more")
    data = await host.count(1, "NDATA")
    known = {m["alias"] for m in found.values() if "alias" in m}
    assert {m["alias"] for m in data["payload"]["metrics"]} <= known


@checks(
    "topics-dbirth-topic", "topics-dbirth-mqtt", "topics-dbirth-timestamp", "payloads-dbirth-timestamp",
    "payloads-dbirth-qos", "payloads-dbirth-retain", "message-flow-device-birth-publish-dbirth-topic",
    "message-flow-device-birth-publish-dbirth-match-edge-node-topic",
    "message-flow-device-birth-publish-dbirth-payload", "message-flow-device-birth-publish-dbirth-qos",
    "message-flow-device-birth-publish-dbirth-retained", "topic-structure-namespace-device-id-associated-message-types",
    "topics-dbirth-metrics", "payloads-name-requirement", "payloads-name-birth-data-requirement",
    "payloads-metric-timestamp-in-UTC", "payloads-metric-datatype-req", "payloads-metric-datatype-value",
    "payloads-metric-datatype-value-type", "operational-behavior-data-publish-dbirth-values",
    "topics-dbirth-metric-reqs", "operational-behavior-data-publish-dbirth",
)  # fmt: skip
async def test_the_birth_of_a_device(plant):
    _, host = plant
    birth = await host.count(1, "DBIRTH", SN)
    assert birth["topic"] == f"spBv1.0/sems/DBIRTH/test-gateway/{SN}"
    assert (birth["qos"], birth["retain"]) == (0, False)
    assert abs(birth["at"] - int(birth["payload"]["timestamp"])) < MINUTE
    found = metrics_of(birth)
    assert found["ac_power"]["double_value"] == 1234.5
    assert found["status"]["string_value"] == "normal"
    assert found["Properties/Model"]["string_value"] == INVERTER.model
    assert found["active_power_limit"]["is_null"]
    for name, metric in found.items():
        assert name
        assert abs(birth["at"] - int(metric["timestamp"])) < MINUTE
        assert metric["datatype"] in (10, 11, 12)
        assert metric.get("is_null", False) is not any(key.endswith("_value") for key in metric), metric
    # All setpoints that may be written are there, and what becomes of commands.
    for setpoint in INVERTER.setpoints:
        assert {setpoint, f"command/{setpoint}/state", f"command/{setpoint}/reason"} <= found.keys()


@checks(
    "payloads-propertyset-keys-array-size", "payloads-propertyset-values-array-size",
    "payloads-metric-propertyvalue-type-type", "payloads-metric-propertyvalue-type-value",
    "payloads-metric-propertyvalue-type-req", "payloads-propertyset-quality-value-type",
    "payloads-propertyset-quality-value-value",
)  # fmt: skip
async def test_units_ranges_and_quality_are_properties(plant):
    _, host = plant
    found = metrics_of(await host.count(1, "DBIRTH", SN))
    power, limit = properties_of(found["ac_power"]), properties_of(found["active_power_limit"])
    assert (power["engUnit"], power["readOnly"], power["Quality"]) == ("W", True, 192)
    assert power["documentation"] == POINTS["ac_power"].description
    assert (limit["engLow"], limit["engHigh"], limit["readOnly"], limit["Quality"]) == (0.0, 100.0, False, 0)
    assert properties_of(found["battery_mode"])["options"] == "idle, charge, discharge, auto"
    for metric in found.values():
        properties = metric.get("properties", {})
        assert len(properties.get("keys", ())) == len(properties.get("values", ()))
        for key, value in zip(properties.get("keys", ()), properties.get("values", ()), strict=True):
            assert value["type"] in (3, 10, 11, 12)
            assert key != "Quality" or (value["type"] == 3 and value["int_value"] in (0, 192, 500))


async def test_only_what_is_permitted_can_be_written(broker, host, node):
    async with node(ControlSettings()) as gateway:
        gateway.announce()
        gateway.publish(active_power_limit=50.0)
        gateway.connect(broker)
        found = metrics_of(await host.count(1, "DBIRTH", SN))
    assert properties_of(found["active_power_limit"])["readOnly"]
    assert "running" not in found
    assert not any(name.startswith("command/") for name in found)


@checks(
    "payloads-alias-uniqueness", "payloads-alias-birth-requirement", "payloads-dbirth-order",
    "message-flow-device-birth-publish-nbirth-wait", "payloads-dbirth-seq", "payloads-dbirth-seq-inc",
    "topics-dbirth-seq", "message-flow-device-birth-publish-dbirth-payload-seq",
    "principles-birth-certificates-order", "topic-structure-namespace-unique-device-id",
)  # fmt: skip
async def test_all_births_come_first_in_one_row_with_aliases_of_their_own(broker, host, node):
    async with node() as gateway:
        for n in range(300):
            gateway.announce(serial=f"inverter-{n}")
            gateway.publish(f"inverter-{n}", ac_power=float(n))
        gateway.connect(broker)
        # Data that come meanwhile wait.
        await until(lambda: host.raw)
        gateway.publish("inverter-0", ac_power=-1.0)
        await host.count(1, "DDATA", "inverter-0")
    kinds = [message["type"] for message in host.raw]
    assert kinds[:301] == ["NBIRTH"] + ["DBIRTH"] * 300
    assert [int(message["payload"]["seq"]) for message in host.raw[:301]] == [n % 256 for n in range(301)]
    assert len({message["device"] for message in host.raw[1:301]}) == 300
    aliases = []
    for message in host.raw[:301]:
        for metric in message["payload"]["metrics"]:
            assert "alias" in metric or metric["name"] == "Node Control/Rebirth"
            aliases += [metric["alias"]] if "alias" in metric else []
    assert len(set(aliases)) == len(aliases)


@checks(
    "intro-group-id-string", "intro-group-id-chars", "intro-edge-node-id-string", "intro-edge-node-id-chars",
    "intro-device-id-string", "intro-device-id-chars", "topic-structure-namespace-valid-device-id",
    "topic-structure-namespace-duplicate-device-id-across-edge-node",
)  # fmt: skip
async def test_ids_are_what_topics_can_carry(broker, host, node, tmp_path):
    odd = "a/b+c#d%e\n\u0000"
    async with node() as gateway, node(directory=tmp_path / "other") as other:
        for each, settings in (
            (gateway, {"group": "Süd 7", "node": "n 1"}),
            (other, {"group": "Süd 7", "node": "n 2"}),
        ):
            each.announce(serial=odd)
            each.publish(odd, ac_power=1.0)
            each.connect(broker, sparkplug=settings, client_id=settings["node"])
        await host.count(2, "DBIRTH", "a%2Fb%2Bc%23d%25e%0A%00")
    topics = {m["topic"] for m in host.raw if m["type"] == "DBIRTH"}
    assert topics == {f"spBv1.0/Süd 7/DBIRTH/n {n}/a%2Fb%2Bc%23d%25e%0A%00" for n in (1, 2)}


@checks("case-sensitivity-metric-names")
async def test_no_two_metrics_differ_by_case_only(broker, host, node):
    async with node() as gateway:
        gateway.announce()
        gateway.publish(**{p.id: p.low or 0.0 for p in POINTS.values() if p.type == "float"})
        gateway.connect(broker)
        names = metrics_of(await host.count(1, "DBIRTH", SN))
        names |= metrics_of(await host.count(1, "NBIRTH"))
    assert len({name.lower() for name in names}) == len(names) > 100


async def test_a_device_without_data_is_not_born_until_it_has_some(broker, host, node):
    async with node() as gateway:
        gateway.announce(serial="plant-1", kind=DeviceKind.PLANT, setpoints={})
        gateway.connect(broker)
        await host.count(1, "NBIRTH")
        gateway.publish("plant-1", pv_power=5.0)
        await host.count(1, "DBIRTH", "plant-1")
        assert len(host.all("DBIRTH", "plant-1")) == 1


async def test_a_point_from_nowhere_has_the_type_of_its_value(broker, host, node):
    async with node() as gateway:
        gateway.announce()
        gateway.publish(odd_number=1, odd_text="a\ud800", odd_flag=True, odd_nothing=None)
        gateway.connect(broker)
        found = metrics_of(await host.count(1, "DBIRTH", SN))
        assert found["odd_number"]["double_value"] == 1.0
        assert found["odd_text"]["string_value"] == "a?"
        assert found["odd_flag"]["boolean_value"] is True
        assert "odd_nothing" not in found
        gateway.publish(odd_number="text", odd_nothing=2.0)
        again = metrics_of(await host.count(2, "DBIRTH", SN))
        assert again["odd_nothing"]["double_value"] == 2.0
