"""A setpoint that did not reach its device is sent again a few times, and only while it may be."""

import pytest

from gateway.bridges.open_api.control import REPEAT_AFTER, REPEATS
from gateway.core.errors import NotSentError
from gateway.core.model import CommandState
from gateway.sems.catalogue import Use
from gateway.sems.errors import BudgetSpentError, NotDoneError, SystemFailureError, WrongParameterError
from tests.bridges.open_api.kit import CLASSIC, DEVELOPER, HOUSE, called, cloud, connected, ended, order
from tests.bridges.open_api.test_control import Bench
from tests.kit.clock import virtual

NOT_REACHED = NotDoneError("R0305", "not reached")
SYSTEM = SystemFailureError("SEMS said 100000")
RECEIPTS = {"open_api": {"task_id": "t"}, "developer": {"taskId": "t"}}
APIS = pytest.mark.parametrize("api", list(RECEIPTS))


def times(bench):
    found = [call[0] for call in bench.asked(Use.CONTROL)]
    return [time - found[0] for time in found]


@virtual
@APIS
@pytest.mark.parametrize("error", [NOT_REACHED, SYSTEM])
async def test_a_device_that_is_reached_at_last_has_its_setpoint(api, error):
    bench = await Bench(api).ready()
    bench.script(control=[error, error, error, RECEIPTS[api]])
    assert await bench.control.send(bench.command(), {}, 30) == "t"
    assert len(times(bench)) == 1 + REPEATS
    assert all(b - a >= REPEAT_AFTER for a, b in zip(times(bench), times(bench)[1:], strict=False))


@virtual
@APIS
@pytest.mark.parametrize("error", [NOT_REACHED, SYSTEM])
async def test_one_that_is_never_reached_is_given_up(api, error):
    bench = await Bench(api).ready()
    bench.script(control=error)
    with pytest.raises(type(error)):
        await bench.control.send(bench.command(), {}, 30)
    assert len(times(bench)) == 1 + REPEATS


@virtual
@APIS
async def test_nothing_is_repeated_past_the_deadline_nor_where_it_may_not_leave(api, monkeypatch):
    bench = await Bench(api).ready()
    bench.script(control=NOT_REACHED)
    with pytest.raises(NotDoneError):
        await bench.control.send(bench.command(), {}, 3)
    assert len(times(bench)) == 2
    bench.world.sems.calls.clear()
    monkeypatch.setattr(bench.world.desk, "still_wanted", lambda *_: False)
    with pytest.raises(NotDoneError):
        await bench.control.send(bench.command(id="2"), {}, 30)
    assert len(times(bench)) == 1


@virtual
@APIS
async def test_what_was_sent_once_is_never_taken_for_unsent(api):
    bench = await Bench(api).ready()
    bench.script(control=[SYSTEM, BudgetSpentError("used up")])
    with pytest.raises(SystemFailureError):
        await bench.control.send(bench.command(), {}, 30)
    bench.script(control=BudgetSpentError("used up"))
    with pytest.raises(NotSentError):
        await bench.control.send(bench.command(id="2"), {}, 30)


@virtual
@APIS
async def test_a_wrong_parameter_is_not_sent_again(api):
    bench = await Bench(api).ready()
    bench.script(control=WrongParameterError("100004", "", "X", ["sn"]))
    with pytest.raises(WrongParameterError):
        await bench.control.send(bench.command(), {}, 30)
    assert len(times(bench)) == 1


@pytest.mark.parametrize("login", [CLASSIC, DEVELOPER], ids=["classic", "developer"])
@pytest.mark.parametrize("answer", ["not_reached", "system_error"])
async def test_over_http_it_succeeds_by_the_second_call(tmp_path, login, answer, monkeypatch):
    monkeypatch.setattr("gateway.bridges.open_api.control.REPEAT_AFTER", 0.05)
    name = "SetActivePowerLimit" if login is CLASSIC else "ControlTask.ActivePowerLimit"
    async with cloud() as simulator, connected(tmp_path, simulator, login) as bench:
        simulator.cloud.spoil(order({"answers": [{"answer": answer, "interfaces": [name], "times": 1}]}))
        (event,) = await ended(bench, bench.command(value=44, serial=HOUSE))
        assert event.state is CommandState.SUCCEEDED
        assert called(simulator).count(name) == 2
