"""`answer_writes: done`: a write is answered when its command has ended, or its time is over."""

import asyncio

import pytest

from gateway.core.controller import Outcome
from gateway.core.errors import RefusedError
from gateway.core.model import CommandState
from tests.bridges.modbus.client import frame, read, write_many, write_one
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import until


@pytest.fixture
async def patient(tmp_path):
    async with serving(tmp_path, answer_writes="done", answer_timeout=0.5) as served:
        yield served


async def test_the_answer_comes_when_the_command_has_succeeded_and_registers_show_it(patient):
    patient.bench.controller.gate.clear()
    async with patient.client() as client, patient.client() as other:
        client.send(frame(write_one(5801, 500)) + frame(read(6103, 1), transaction=2) + frame(read(5801, 1)))
        await until(lambda: patient.bench.controller.sent)
        assert await other.words(6103 + 1) != [3]  # others go on meanwhile
        patient.bench.controller.gate.set()
        assert await client.answer() == (1, 1, write_one(5801, 500))
        await client.answer()
        assert (await client.answer())[2] == b"\x03\x02\x01\xf4"
        assert await client.words(6104) == [3]


async def test_a_command_that_fails_is_answered_with_04(patient):
    patient.bench.controller.answers = [RefusedError("not your device")]
    async with patient.client() as client:
        assert await client.refused(write_one(5801, 500)) == 0x04


async def test_a_command_of_which_nobody_knows_the_end_is_answered_with_0b(patient):
    patient.bench.controller.outcomes = [Outcome(CommandState.UNKNOWN, "no answer")]
    async with patient.client() as client:
        assert await client.refused(write_one(5801, 500)) == 0x0B


async def test_what_takes_longer_is_acknowledged_with_05_and_goes_on(patient):
    patient.bench.controller.gate.clear()
    async with patient.client() as client:
        async with asyncio.timeout(120):
            assert await client.refused(write_one(5801, 500)) == 0x05
        assert await client.words(6104) == [2]
        patient.bench.controller.gate.set()
        await until(lambda: patient.bridge._devices[patient.bench.controller.sent[0].serial].commands)
        async with asyncio.timeout(120):
            while await client.words(6104) != [3]:
                await asyncio.sleep(0)
    assert patient.bridge._writer._ends == {}


async def test_of_several_commands_one_that_fails_decides(patient):
    patient.bench.controller.answers = [None, RefusedError("no")]
    async with patient.client() as client:
        assert await client.refused(write_many(5800, b"\0\1\1\xf4")) == 0x04
        assert len(patient.bench.controller.sent) == 1


async def test_a_rejected_write_does_not_wait(patient):
    async with patient.client() as client:
        assert await client.refused(write_one(5801, 2000)) == 0x03
    assert patient.bridge._writer._ends == {}


async def test_one_that_is_superseded_is_answered_with_04_and_the_newer_one_succeeds(patient):
    patient.bench.controller.gate.clear()
    async with patient.client() as one, patient.client() as two, patient.client() as three:
        one.send(frame(write_one(5801, 100)))
        await until(lambda: patient.bench.controller.sent)
        two.send(frame(write_one(5801, 200)))
        await until(lambda: len(patient.bridge._writer._ends) == 2)
        await until(lambda: len(patient.bench.dispatcher._open) == 2)
        three.send(frame(write_one(5801, 300)))
        await until(lambda: len(patient.bench.dispatcher._open) == 3)
        patient.bench.controller.gate.set()
        assert (await one.answer())[2] == write_one(5801, 100)
        assert (await two.answer())[2] == b"\x86\x04"
        assert (await three.answer())[2] == write_one(5801, 300)
