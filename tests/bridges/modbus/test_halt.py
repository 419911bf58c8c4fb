"""The gateway's own register that halts control, and roles of listeners."""

import pytest
from pydantic import ValidationError

from gateway.bridges.modbus import ModbusSettings
from gateway.commands.policy.policy import Rule
from gateway.core import files
from gateway.core.model import CommandState, Reason
from tests.bridges.modbus.client import RawClient, write_many, write_one
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import EVERYTHING, until
from tests.kit.mbpoll import mbpoll

LIMIT = 5801  # active_power_limit, see docs/modbus.md
HALTED = 70


async def test_mbpoll_halts_and_may_resume_where_the_configuration_says_so(tmp_path):
    control = EVERYTHING.model_copy(update={"resume": ["modbus"]})
    async with serving(tmp_path, control=control) as served:
        halting = served.bench.halting
        assert (await mbpoll(served.port, HALTED, unit=255, table="4")).values == [0]
        assert not (await mbpoll(served.port, HALTED, 1, unit=255, table="4")).error
        assert halting.current.by.startswith("modbus:127.0.0.1:")
        assert (await mbpoll(served.port, HALTED, unit=255, table="4")).values == [1]
        since = await mbpoll(served.port, HALTED + 1, unit=0, table="4:int")
        assert since.values == [int(halting.current.since.timestamp())]
        refused = await mbpoll(served.port, LIMIT, 500, table="4")
        assert "Illegal function" in refused.error
        assert not (await mbpoll(served.port, HALTED, 0, unit=0, table="4")).error
        assert halting.current is None
        assert not (await mbpoll(served.port, LIMIT, 500, table="4")).error


async def test_to_resume_is_not_for_everybody(tmp_path):
    async with serving(tmp_path) as served, served.client() as client:
        await client.ask(write_one(HALTED, 0), unit=255)  # nothing is halted, so nothing is refused
        await client.ask(write_one(HALTED, 1), unit=255)
        assert await client.words(HALTED, unit=255) == [1]
        assert await client.refused(write_one(HALTED, 0), unit=255) == 0x02
        assert served.bench.halting.current


async def test_what_is_neither_is_refused(served, client):
    assert await client.refused(write_one(HALTED, 2), unit=255) == 0x03
    assert await client.refused(write_one(HALTED + 1, 1), unit=255) == 0x02
    assert await client.refused(write_many(HALTED, bytes(4)), unit=255) == 0x02
    assert await client.refused(write_one(HALTED, 1)) == 0x02, "a device's unit has no such register"
    assert not served.bench.halting.current


async def test_a_listener_that_only_reads_does_not_halt(tmp_path):
    async with serving(tmp_path, read_only=True) as served, served.client() as client:
        assert await client.refused(write_one(HALTED, 1), unit=255) == 0x01
        assert await client.words(HALTED, unit=255) == [0]


async def test_a_halt_that_cannot_be_stored_is_told_and_holds(served, client, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "replace", full)
    assert await client.refused(write_one(HALTED, 1), unit=255) == 0x04
    assert await client.words(HALTED, unit=255) == [1]


async def test_it_shows_at_once_what_others_do(served, client):
    assert await client.words(HALTED, unit=0) == [0]
    await served.bench.halting.halt("cli:me")
    assert await client.words(HALTED, unit=0) == [1]


async def test_the_reason_of_a_refused_write_is_in_the_status_registers(served, client):
    await served.bench.halting.halt("cli:me")
    assert await client.refused(write_one(LIMIT, 500)) == 0x01
    device = served.bridge._devices["9010KETU000W0001"].commands
    await until(lambda: device._last is not None)
    assert (device._last.state, device._last.reason) == (CommandState.REJECTED, Reason.HALTED)


async def test_a_listeners_role_is_the_role_of_all_its_clients(tmp_path):
    rules = [Rule(devices=["*"], setpoints=["active_power_limit"], origins=["modbus/operator"])]
    control = EVERYTHING.model_copy(update={"allow": rules})
    async with serving(tmp_path, control=control, listeners=[{"port": 0, "role": "operator"}]) as served:
        plain, operators = served.bridge.listeners
        async with served.client() as client:
            assert await client.refused(write_one(LIMIT, 500)) == 0x02
        operator = await RawClient.connect(operators.port)
        await operator.ask(write_one(LIMIT, 500))
        await until(lambda: served.bench.controller.sent)
        assert served.bench.controller.sent[0].origin == f"modbus/operator:{operator.name}"
        assert plain.service.policy.role == ""
        await operator.close()


@pytest.mark.parametrize("role", ["", "a b", "a/b", "a:b", "x" * 65])
def test_a_role_is_a_plain_word(role):
    with pytest.raises(ValidationError, match="pattern"):
        ModbusSettings(role=role)


def test_a_bridge_knows_its_roles():
    settings = ModbusSettings(role="site", listeners=[{"port": 1, "role": "operator"}, {"port": 2}])
    assert settings.roles == {"site", "operator"}
    assert ModbusSettings().roles == frozenset()
