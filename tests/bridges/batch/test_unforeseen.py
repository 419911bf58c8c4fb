"""Nobody waits for ever for a bridge that was stopped, and no message that nobody can digest holds up those behind."""

import asyncio
from types import SimpleNamespace

import pytest
import structlog
from structlog.testing import capture_logs

from gateway.bridges.batch import results as results_module
from gateway.bridges.batch.message import Result
from gateway.bridges.batch.results import Results
from gateway.bridges.batch.sender import Sender
from gateway.bridges.batch.tally import Tally
from gateway.core.clock import SystemClock
from gateway.core.controller import Outcome, ResultEffect
from gateway.core.errors import UnsureError
from gateway.core.model import CommandState
from gateway.core.places import MANY
from tests.kit.bench import until


async def test_a_command_whose_bridge_is_stopped_while_its_request_is_journaled_hears_of_it():
    journaling = asyncio.Event()

    async def keep_receipt(*_):
        journaling.set()
        await asyncio.Event().wait()

    sender = Sender(
        SimpleNamespace(commands="topic"),
        SimpleNamespace(linger_ms=1, items_most=10, send_within=1),
        SimpleNamespace(clock=SystemClock(), keep_receipt=keep_receipt, still_wanted=lambda *_: True),
        SimpleNamespace(partitions=lambda _: 1),
        None,
        None,
    )
    running = asyncio.create_task(sender.run())
    item = SimpleNamespace(command=SimpleNamespace(id="one", serial="a", bulk=False))
    sending = asyncio.create_task(sender.send(item, 30))
    await journaling.wait()
    running.cancel()
    sender.close()
    with pytest.raises(UnsureError, match="stopped"):
        await asyncio.wait_for(sending, 120)
    await asyncio.gather(running, return_exceptions=True)


async def test_a_result_that_nobody_can_digest_is_counted_and_passed_over(monkeypatch):
    def decode(*_):
        raise OverflowError("date value out of range")

    monkeypatch.setattr(results_module, "decode", decode)
    clock = SystemClock()
    tally = Tally(structlog.get_logger("test"), clock)
    context = SimpleNamespace(clock=clock, log=structlog.get_logger("test"))
    interfaces = SimpleNamespace(by_results={"results": SimpleNamespace(interface=None)}, catalogue=None)
    message = SimpleNamespace(topic="results", oversize=0, value=b"{}", partition=3, offset=77)
    with capture_logs() as log:
        await Results(context, None, interfaces, tally).take([message, message])
    assert tally.bad == {"not_understood": 2}
    (line,) = log
    assert "OverflowError" in line["event"]
    assert "offset 77" in line["event"]


async def test_the_result_of_one_device_does_not_wait_for_those_of_a_fleet(monkeypatch):
    told, journaled, batches = [], asyncio.Event(), asyncio.Queue()

    async def result_came(command, _):
        told.append(command)
        if command != "alone":
            await journaled.wait()
        return ResultEffect.TAKEN

    async def read():
        while True:
            yield await batches.get()

    committed = []
    context = SimpleNamespace(clock=SystemClock(), log=structlog.get_logger("test"), result_came=result_came)
    consumer = SimpleNamespace(batches=read, commit=committed.append)
    results = Results(context, consumer, None, Tally(context.log, context.clock))
    outcome = Outcome(CommandState.SUCCEEDED)
    monkeypatch.setattr(results, "_said", lambda message: [Result(message.key, message.key.upper(), outcome)])
    many = [f"child{number}" for number in range(5 * MANY)]
    for serial in [*many, "alone"]:
        command = SimpleNamespace(id=serial, serial=serial, bulk=serial != "alone")
        results.expect(serial, [SimpleNamespace(command=command)])
    running = asyncio.create_task(results.run())
    first, second = ([SimpleNamespace(key=key, value=b"") for key in keys] for keys in (many, ["alone"]))
    batches.put_nowait(first)
    await until(lambda: len(told) == MANY)
    batches.put_nowait(second)
    await until(lambda: "alone" in told)
    assert told == [*many[:MANY], "alone"]
    assert not committed  # an offset says that all before it need not be read again
    journaled.set()
    await until(lambda: len(committed) == 2)
    assert committed == [first, second]
    assert [command for command in told if command != "alone"] == many
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_nobody_waits_for_any_more_is_forgotten():
    now = 0.0
    context = SimpleNamespace(clock=SimpleNamespace(monotonic=lambda: now), log=structlog.get_logger("test"))
    tally = Tally(context.log, context.clock)
    results = Results(context, None, None, tally)

    def expect(request):
        results.expect(request, [SimpleNamespace(command=SimpleNamespace(id=request, serial="A", bulk=False))])

    expect("first")  # its result never comes, and a dead-man's timer ends the wait for it
    expect("second")
    assert tally.waiting == 2
    now = results_module.FORGOTTEN + 1
    expect("third")
    assert tally.waiting == 1
