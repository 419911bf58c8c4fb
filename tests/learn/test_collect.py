"""What is asked: everything that reads, and never what sets."""

from datetime import date

import pytest

from gateway.core.clock import SystemClock
from gateway.learn import infer
from gateway.learn.asker import Asker, LearnError
from gateway.learn.collect import Call, Collector, NotAReadingCallError
from gateway.learn.report import Called
from gateway.sems.budget import Budget
from gateway.sems.catalogue import Use, load
from gateway.sems.errors import LoginHeldError, LoginRefusedError, NoLicenceError, TokenExpiredError
from gateway.sems.session import Credentials, Session
from gateway.simulator.dialect import Dialect
from tests.learn.kit import NOON
from tests.simulator.kit import HandClock, SimulatedCloud

SETS = (Use.CONTROL, Use.DISPATCH, Use.PARAMETERS_TASK)


async def asked(tmp_path, api, dialect=None, wait=None):
    """Let a simulated cloud be asked over HTTP; returns the answers, and the calls that the cloud saw."""
    clock = HandClock()
    async with SimulatedCloud(clock, dialect=dialect) as cloud:
        budget = Budget(3600, clock)
        credentials = Credentials("demo", "demo")
        session = Session(load(api), cloud.simulator.url, credentials, tmp_path / "token", clock, budget)
        await session.start()
        try:
            asker = Asker(session, clock, lambda *_: None)
            answers = await Collector(load(api), asker, clock.now().date()).run(wait)
        finally:
            await session.stop()
        return answers, [call for call in cloud.evidence.calls if call.interface not in ("GetToken", "Token")]


@pytest.mark.parametrize("api", ["open_api", "developer"])
@pytest.mark.parametrize("dialect", [None, 3])
async def test_each_reading_interface_is_asked_and_none_that_sets(tmp_path, api, dialect):
    answers, calls = await asked(tmp_path, api, dialect)
    names = [call.interface for call in calls]
    catalogue = load(api)
    reading = {
        i.name for use in (Use.PLANTS, Use.DETAIL, Use.DEVICES, Use.LIVE, Use.ALARMS, Use.SERIES)
        for i in catalogue.using(use)
    }  # fmt: skip
    assert reading <= set(names)
    setting = {i.name for use in SETS for i in catalogue.using(use)}
    assert not setting & set(names)
    assert [one.interface for one in answers] == names
    assert all(str(one.body["code"]) in catalogue.success for one in answers), "nothing was asked in vain"


async def test_what_grows_is_asked_a_second_time(tmp_path):
    waited = []

    async def wait():
        waited.append(True)

    _, calls = await asked(tmp_path, "open_api", wait=wait)
    names = [call.interface for call in calls]
    assert waited == [True]
    assert names.count("GetPlantPowerFlow") == 2 * (names.count("GetPlantPower") * 3)
    assert names.count("GetUserPlantList") == names.count("GetPlantPower") == 1


@pytest.mark.parametrize("api", ["open_api", "developer"])
async def test_a_call_that_sets_is_refused_wherever_it_comes_from(api):
    """Not even a fault of the collector's gets one out."""
    heard = []

    class Session:
        def listen(self, _):
            pass

        async def call(self, *args, **_):
            heard.append(args)

    asker = Asker(Session(), SystemClock(), lambda *_: None)
    for interface in (i for use in SETS for i in load(api).using(use)):
        with pytest.raises(NotAReadingCallError):
            await asker(interface, {"serial": "X"})
        with pytest.raises(NotAReadingCallError):
            await Collector(load(api), asker, date(2026, 6, 21))._make([Call(interface, {"serial": "X"})], 0)
    assert not heard


class RefusingSession:
    """One interface is refused for ever, and the session says so in one of its ways; the others answer."""

    def __init__(self, error, *, login):
        self.budget = Budget(3600, HandClock())
        self._error, self._login = error, login

    def listen(self, hear):
        self._hear = hear

    async def call(self, name, args, **_):
        catalogue = load("open_api")
        if name != "GetPlantDetail":
            self._hear(catalogue.interface(name), {}, 200, b'{"code": 0, "data": {}}')
            return {}
        if not self._login:
            self._hear(catalogue.interface(name), {}, 200, b'{"code": "C0602", "msg": "Token invalid"}')
        self._hear(next(catalogue.using(Use.LOGIN)), {}, 200, b'{"code": 0, "data": {}}')
        if not self._login:
            self._hear(catalogue.interface(name), {}, 200, b'{"code": "C0602", "msg": "Token invalid"}')
        raise self._error


REFUSALS = [
    LoginRefusedError("no", 60, "wait"),
    LoginHeldError("held", 60),
    NoLicenceError("C0602", "no"),
    TokenExpiredError("C0602"),
]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
async def test_what_refuses_one_interface_is_a_line_of_the_report(error):
    catalogue = load("open_api")
    asker = Asker(RefusingSession(error, login=False), SystemClock(), lambda *_: None)
    said = [await asker(catalogue.interface(name), {}) for name in ("GetPlantDetail", "GetInverterList")]
    called = {one.name: (one.called, one.detail) for one in infer(catalogue, said).interfaces}
    assert called["GetPlantDetail"] == (Called.REFUSED, "C0602 Token invalid")
    assert called["GetInverterList"][0] is Called.EMPTY


@pytest.mark.parametrize("error", REFUSALS[:2], ids=lambda error: type(error).__name__)
async def test_a_login_that_is_refused_ends_it(error):
    asker = Asker(RefusingSession(error, login=True), SystemClock(), lambda *_: None)
    with pytest.raises(LearnError, match="nothing more was asked"):
        await asker(load("open_api").interface("GetPlantDetail"), {})


def test_a_dialect_leaves_what_is_sent_as_it_is():
    """The premise of the tests above: only answers differ."""
    base = load("open_api")
    spoken = Dialect(3, base, lambda: NOON).catalogue
    assert [i.request for i in spoken.interfaces] == [i.request for i in base.interfaces]
