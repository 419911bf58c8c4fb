"""What is told of devices while they live, and when they do not."""

from tests.bridges.mqtt.sparkplug.statements import checks
from tests.kit.bench import INVERTER, until
from tests.kit.sparkplug import metrics_of, properties_of

SN = INVERTER.serial


def aliases_of(birth):
    return {m["alias"]: m["name"] for m in birth["payload"]["metrics"] if "alias" in m}


@checks(
    "topics-ddata-topic", "topics-ddata-mqtt", "topics-ddata-timestamp", "topics-ddata-payload",
    "payloads-ddata-timestamp", "payloads-ddata-qos", "payloads-ddata-retain",
    "payloads-alias-data-cmd-requirement", "payloads-metric-datatype-not-req", "principles-rbe-recommended",
    "operational-behavior-data-publish-dbirth-change",
)  # fmt: skip
async def test_only_what_changed_is_told_by_alias_alone(plant):
    gateway, host = plant
    birth = await host.count(1, "DBIRTH", SN)
    gateway.publish(ac_power=1234.5, status="normal")
    gateway.publish(ac_power=99.0, status="normal")
    data = await host.count(1, "DDATA", SN)
    assert data["topic"] == f"spBv1.0/sems/DDATA/test-gateway/{SN}"
    assert (data["qos"], data["retain"]) == (0, False)
    assert abs(data["at"] - int(data["payload"]["timestamp"])) < 60_000
    (metric,) = data["payload"]["metrics"]
    assert aliases_of(birth)[metric["alias"]] == "ac_power"
    assert metric.keys() == {"alias", "timestamp", "double_value"}
    assert host.values("DDATA", SN) == [{"ac_power": 99.0}]


@checks(
    "payloads-sequence-num-always-included", "payloads-sequence-num-incrementing", "topics-ddata-seq-num",
    "payloads-ddata-seq", "payloads-ddata-seq-inc", "payloads-ddata-order",
)  # fmt: skip
async def test_numbers_run_on_over_255_and_all_messages(plant):
    gateway, host = plant
    gateway.announce(serial="other")
    for n in range(300):
        seen = len(host.raw)
        gateway.publish(ac_power=float(n))
        gateway.publish("other", ac_power=float(n))
        await until(lambda seen=seen: len(host.raw) >= seen + 2)
        if n % 100 == 50:
            gateway.publish("other", status="offline")
            await host.count(n // 100 + 1, "DDEATH", "other")
    numbers = [int(m["payload"].get("seq", -1)) for m in host.raw]
    assert numbers == [n % 256 for n in range(len(numbers))]
    assert len(numbers) > 512
    assert not host.errors


@checks("operational-behavior-data-publish-dbirth-order")
async def test_metrics_of_one_message_are_in_the_order_of_their_times(broker, host, node):
    async with node() as gateway:
        gateway.announce()
        gateway.publish(ac_power=1.0, age=20.0)
        gateway.connect(broker)
        birth = await host.count(1, "DBIRTH", SN)
        gateway.publish(ac_power=2.0, status="normal", temperature=3.0, age=10.0)
        again = await host.count(2, "DBIRTH", SN)
    for message in (birth, again):
        times = [int(m["timestamp"]) for m in message["payload"]["metrics"]]
        assert times == sorted(times)
        assert times[-1] - times[0] > 5_000


async def test_what_is_not_there_is_null_with_bad_quality_until_it_is_there_again(plant):
    gateway, host = plant
    birth = await host.count(1, "DBIRTH", SN)
    gateway.publish(ac_power=None, status="normal")
    gone = (await host.count(1, "DDATA", SN))["payload"]["metrics"][0]
    assert aliases_of(birth)[gone["alias"]] == "ac_power"
    assert gone["is_null"]
    assert not any(key.endswith("_value") for key in gone)
    assert properties_of(gone) == {"Quality": 0}
    gateway.publish(status="normal")  # not even named: still not there, so nothing is told
    gateway.publish(ac_power=5.0, status="normal")
    back = (await host.count(2, "DDATA", SN))["payload"]["metrics"][0]
    assert back["double_value"] == 5.0
    assert properties_of(back) == {"Quality": 192}


async def test_a_new_point_is_born_with_its_device_and_keeps_the_aliases(plant):
    gateway, host = plant
    before = aliases_of(await host.count(1, "DBIRTH", SN))
    gateway.publish(ac_power=1.0, pv_power=2.0)
    birth = await host.count(2, "DBIRTH", SN)
    assert metrics_of(birth)["pv_power"]["double_value"] == 2.0
    after = aliases_of(birth)
    assert before.items() <= after.items()
    assert metrics_of(birth)["status"]["is_null"], "it was known, and is not there any more"


async def test_a_new_setpoint_is_born_with_its_device(plant):
    gateway, host = plant
    assert "work_mode" not in metrics_of(await host.count(1, "DBIRTH", SN))
    gateway.announce(model="GW20K")
    birth = await host.count(2, "DBIRTH", SN)
    assert metrics_of(birth)["Properties/Model"]["string_value"] == "GW20K"


@checks(
    "topics-ddeath-topic", "topics-ddeath-mqtt", "topics-ddeath-seq-num", "payloads-ddeath-timestamp",
    "payloads-ddeath-seq", "payloads-ddeath-seq-inc", "payloads-ddeath-seq-number",
    "operational-behavior-device-ddeath",
)  # fmt: skip
async def test_a_device_that_is_offline_is_dead_and_born_again_when_it_is_back(plant):
    gateway, host = plant
    gateway.publish(status="offline")
    death = await host.count(1, "DDEATH", SN)
    assert death["topic"] == f"spBv1.0/sems/DDEATH/test-gateway/{SN}"
    assert (death["qos"], death["retain"]) == (0, False)
    assert death["payload"]["seq"] == "2"
    assert abs(death["at"] - int(death["payload"]["timestamp"])) < 60_000
    assert "metrics" not in death["payload"]
    gateway.publish(status="offline", ac_power=0.0)
    gateway.publish(status="normal", ac_power=7.0)
    birth = await host.count(2, "DBIRTH", SN)
    assert metrics_of(birth)["ac_power"]["double_value"] == 7.0
    assert len(host.all("DDEATH", SN)) == 1
    assert not host.all("DDATA", SN)


async def test_a_device_whose_data_are_stale_is_dead(broker, host, node):
    async with node() as gateway:
        gateway.announce()
        gateway.publish(ac_power=1.0, interval=0.3)
        gateway.connect(broker)
        await host.count(1, "DBIRTH", SN)
        await gateway.stale()
        await host.count(1, "DDEATH", SN)
        gateway.publish(ac_power=1.0)
        await host.count(2, "DBIRTH", SN)


async def test_a_device_that_goes_is_dead_and_its_aliases_are_not_given_again(plant):
    gateway, host = plant
    before = aliases_of(await host.count(1, "DBIRTH", SN))
    gateway.router.withdraw("scripted", SN)
    await host.count(1, "DDEATH", SN)
    gateway.announce()
    gateway.publish(ac_power=1.0)
    after = aliases_of(await host.count(2, "DBIRTH", SN))
    assert not before.keys() & after.keys()


@checks(
    "topics-ndata-topic", "topics-ndata-mqtt", "topics-ndata-seq-num", "topics-ndata-timestamp",
    "topics-ndata-payload", "payloads-ndata-timestamp", "payloads-ndata-seq", "payloads-ndata-seq-inc",
    "payloads-ndata-order", "payloads-ndata-qos", "payloads-ndata-retain",
    "operational-behavior-data-publish-nbirth-change", "operational-behavior-data-publish-nbirth-order",
)  # fmt: skip
async def test_how_the_gateway_does_is_the_nodes_data(plant):
    gateway, host = plant
    birth = await host.count(1, "NBIRTH")
    gateway.publish(status="offline")
    data = await host.count(1, "NDATA")
    assert data["topic"] == "spBv1.0/sems/NDATA/test-gateway"
    assert (data["qos"], data["retain"], data["payload"]["seq"]) == (0, False, "3")
    assert abs(data["at"] - int(data["payload"]["timestamp"])) < 60_000
    assert all(m.keys() == {"alias", "timestamp", "long_value"} for m in data["payload"]["metrics"])
    assert host.values("NDATA")[0] == {"devices/good": 0, "devices/offline": 1}
    for message in (birth, data):
        times = [int(m["timestamp"]) for m in message["payload"]["metrics"]]
        assert times == sorted(times)


async def test_a_bridge_that_comes_later_is_in_a_birth_of_its_own(plant):
    gateway, host = plant
    from gateway.core.model import BridgeStatus

    gateway.router.bridge_status(
        BridgeStatus(name="late", type="modbus", up=False, detail="port in use", since=gateway.clock.now())
    )
    birth = await host.count(2, "NBIRTH")
    assert metrics_of(birth)["bridges/late/detail"]["string_value"] == "port in use"
    await host.count(2, "DBIRTH", SN)
