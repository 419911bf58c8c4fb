"""Clients that others wrote: mbpoll (C, libmodbus) and pymodbus'."""

import asyncio

import pytest
from pymodbus.client import AsyncModbusTcpClient

from tests.bridges.modbus.conftest import serving
from tests.kit.bench import INVERTER, until
from tests.kit.mbpoll import mbpoll


async def test_mbpoll_reads_integers_and_floats(served):
    await served.publish(ac_power=-1234, battery_power=500, l1_voltage=230.06, l1_current=4.5, l1_frequency=50.01)
    assert (await mbpoll(served.port, 1020, count=9)).values[0::8] == [-1234, 500]
    for table in ("3:float", "4:float"):
        polled = await mbpoll(served.port, 3050, table=table, count=3)
        assert polled.values == pytest.approx([230.06, 4.5, 50.01], rel=1e-5)


async def test_mbpoll_reads_both_word_orders(tmp_path):
    async with serving(tmp_path, word_order="cdab") as served:
        await served.publish(ac_power=-1234.5)
        assert (await mbpoll(served.port, 3020, table="4:float", swapped=True)).values == [-1234.5]


async def test_mbpoll_writes(served):
    assert (await mbpoll(served.port, 5801, 505, table="4")).error == ""
    await until(lambda: len(served.bench.asked) == 1)
    assert (await mbpoll(served.port, 5502, 33.5, table="4:float")).error == ""
    await until(lambda: len(served.bench.asked) == 2)
    assert (await mbpoll(served.port, 5012, 1, 3000, 950)).error == ""
    await until(lambda: len(served.bench.asked) == 5)
    assert [command.value for command in served.bench.asked] == [50.5, 33.5, "charge", 3000, 95]
    await until(lambda: served.bench.router.state(INVERTER.serial).values.get("battery_target_soc") == 95)
    await served.publish(ac_power=1)
    assert (await mbpoll(served.port, 5002)).values == [335]


@pytest.mark.parametrize(
    ("address", "value", "unit", "complaint"),
    [
        (5801, 1001, 1, "Illegal data value"),
        (5003, 1, 1, "Illegal data value"),
        (1020, 1, 1, "Illegal data address"),
        (5801, 1, 2, "Gateway path unavailable"),
    ],
)
async def test_mbpoll_understands_refusals(served, address, value, unit, complaint):
    assert complaint in (await mbpoll(served.port, address, value, unit=unit, table="4")).error


async def test_mbpoll_is_told_that_data_are_stale(served):
    assert "Target device failed to respond" in (await mbpoll(served.port, 1020)).error


async def test_pymodbus_reads_writes_and_identifies(served):
    await served.publish(ac_power=4321)
    client = AsyncModbusTcpClient("127.0.0.1", port=served.port)
    async with asyncio.timeout(120):
        assert await client.connect()
        for reading in (client.read_holding_registers, client.read_input_registers):
            found = await reading(1020, count=2, device_id=1)
            assert client.convert_from_registers(found.registers, client.DATATYPE.INT32) == 4321
        answers = await asyncio.gather(*(client.read_holding_registers(n, count=1, device_id=1) for n in range(20)))
        assert not any(answer.isError() for answer in answers)
        limit = client.convert_to_registers(12.5, client.DATATYPE.FLOAT32)
        assert not (await client.write_registers(5502, limit, device_id=1)).isError()
        assert not (await client.write_register(5800, 1, device_id=1)).isError()
        await until(lambda: len(served.bench.asked) == 2)
        assert {command.value for command in served.bench.asked} == {12.5, True}
        assert (await client.read_holding_registers(999, count=1, device_id=1)).exception_code == 2
        assert (await client.read_coils(0, count=1, device_id=1)).exception_code == 1
        assert (await client.read_holding_registers(0, count=1, device_id=77)).exception_code == 0x0A
        named = await client.read_device_information(read_code=2, device_id=1)
        assert named.information[0] == b"sems-gateway"
        assert not (await client.diag_query_data(b"\1\2", device_id=1)).isError()
    client.close()
