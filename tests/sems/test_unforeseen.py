"""What nobody foresaw ends the call it came from, as an error of its own class, and not the bridge."""

import asyncio
from contextlib import suppress
from datetime import datetime

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.bridges.open_api import OpenApiBridge, OpenApiSettings
from gateway.core.errors import GatewayError, UnsureError
from gateway.sems import exchange
from gateway.sems.budget import Budget
from gateway.sems.catalogue import load
from gateway.sems.errors import NotUnderstoodError, RateLimitedError, UnreachableError
from gateway.sems.exchange import MAX_RATE_LIMIT_SECONDS, MIN_RATE_LIMIT_SECONDS, Exchange, _Answer
from gateway.sems.readings import Readings
from tests.bridges.open_api.kit import CLASSIC, HOUSE, cloud, connected, status
from tests.kit.bench import Bench, until
from tests.kit.loops import BOTH_LOOPS, run_on
from tests.sems.kit import Clock, http, serving, session

RETRY_AFTERS = [
    "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
    "Mon, 01 Jan 2026 99999999999:00:00 GMT",
    "Mon, 01 Jan 2026 00:00:00 +99999999",
    "Fri, 31 Dec 9999 23:59:59 -2359",
    "Mon, 01 Jan 0001 00:00:00 +2359",
    "Wed, 21 Jun 2126 12:00:00 GMT",
    "9" * 400,
    "9" * 9000,
    "-5",
    "+5",
    "0",
    "1e400",
    "NaN",
    "inf",
    "5, 7",
    "\xb2",
    "",
]


@pytest.mark.parametrize("date", ["", "Date: Mon, 01 Jan 99999999999999999999 00:00:00 GMT\r\n"], ids=["", "odd date"])
@pytest.mark.parametrize("text", RETRY_AFTERS, ids=lambda text: repr(text[:40]))
async def test_a_retry_after_of_any_shape_is_bounded(tmp_path, text, date):
    async with serving() as (server, url), session(url, tmp_path, Clock()) as sems:
        server.scripts["GetToken"] = [http(b"", 429, f"{date}Retry-After: {text}\r\n")]
        with pytest.raises(RateLimitedError) as met:
            await sems.call("GetPlantDetail", {"plant": "p"})
        assert MIN_RATE_LIMIT_SECONDS <= met.value.retry_after <= MAX_RATE_LIMIT_SECONDS


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**400), max_value=10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["code", "msg", "data", "x"]), inner),
    max_leaves=8,
)


@given(
    status=st.sampled_from([200, 204, 302, 400, 401, 429, 500, 999]),
    headers=st.dictionaries(st.sampled_from(["retry-after", "date"]), st.text(max_size=40)),
    body=st.binary(max_size=60) | ANYTHING.map(msgspec.json.encode),
)
def test_any_answer_is_data_or_an_error_by_what_is_done_next(status, headers, body):
    clock = Clock()
    made = Exchange(load("open_api"), "http://sems.test", clock, Budget(100, clock))
    interface = load("open_api").interface("GetPlantDetail")
    packed = httpx.Headers([(name, text.encode("utf-8")) for name, text in headers.items()])
    with suppress(GatewayError):
        made._understand(interface, _Answer(status, packed, body), {})


async def test_a_token_for_ever_is_taken_for_a_while(tmp_path):
    clock = Clock()
    async with serving("developer") as (server, url), session(url, tmp_path, clock, api="developer") as sems:
        server.scripts["Token"] = [{"access_token": "t", "expires_in": 1e300}]
        server.scripts["StationList"] = [{"code": "00000", "data": []}]
        await sems.call("StationList", {"page": 1, "page_size": 10})
        kept = msgspec.json.decode((tmp_path / "s.json").read_bytes())
        assert (datetime.fromisoformat(kept["expires"]) - clock.now()).days <= 90


async def test_what_fails_in_our_own_code_is_unsure_for_a_command_and_unsent_for_who_waits_for_the_login(
    tmp_path, monkeypatch
):
    def fail(*_):
        raise OverflowError("date value out of range")

    async with serving() as (server, url), session(url, tmp_path, Clock()) as sems:
        server.scripts["GetToken"] = [{"code": 0, "data": {"token": "t"}}]
        server.scripts["GetPlantDetail"] = [{"code": 0, "data": {}}]
        with monkeypatch.context() as patch:
            patch.setattr("gateway.sems.login.Login._read", fail)
            with pytest.raises(UnreachableError, match="OverflowError: date value"):
                await sems.call("GetPlantDetail", {"plant": "p"})
        with monkeypatch.context() as patch:
            patch.setattr(Exchange, "_understand", fail)
            with pytest.raises(UnreachableError):
                await sems.call("GetPlantDetail", {"plant": "p"})
        await sems.call("GetPlantDetail", {"plant": "p"})
        with monkeypatch.context() as patch:
            patch.setattr(Exchange, "_understand", fail)
            with pytest.raises(NotUnderstoodError) as met:
                await sems.call("GetPlantDetail", {"plant": "p"})
        assert isinstance(met.value, UnsureError)
        assert sems._troubles.counts["not_understood"] == 3


# the bridge as a whole


class Counted(OpenApiBridge):
    """The real bridge, and how often it was started."""

    starts = 0

    async def start(self):
        type(self).starts += 1
        await super().start()


@BOTH_LOOPS
def test_a_bridge_that_is_told_to_come_back_in_a_far_year_stays_up_and_says_why(tmp_path, monkeypatch, loop):
    calls = []

    def answer(request):
        calls.append(request.url.path)
        return httpx.Response(429, headers={"Retry-After": RETRY_AFTERS[0]}, stream=httpx.ByteStream(b""))

    monkeypatch.setattr(exchange, "client", lambda *_, **__: httpx.AsyncClient(transport=httpx.MockTransport(answer)))

    async def test():
        Counted.starts = 0
        async with Bench(tmp_path) as bench:
            runner = bench.run(Counted, OpenApiSettings(**CLASSIC, url="http://sems.test"), "sems")
            await until(lambda: status(bench) and "limits this account's calls" in status(bench).detail)
            await asyncio.sleep(5 if loop == "virtual" else 0)
            assert Counted.starts == 1
            assert len(calls) == 1
            assert runner.bridge._session.budget.wait() > 200

    run_on(loop, test())


async def test_one_device_whose_data_nobody_can_digest_spoils_no_other(tmp_path, monkeypatch):
    taken, real = [], Readings.take

    def take(self, target, *args, **kwargs):
        if target.serial == HOUSE:
            raise RecursionError("maximum recursion depth exceeded")
        taken.append(target.serial)
        return real(self, target, *args, **kwargs)

    # Without capturing, the traceback with all its variables is drawn for the eye, which takes seconds.
    with capture_logs() as log:
        await spoilt(tmp_path, monkeypatch, taken, take)
    lines = [entry for entry in log if entry.get("error") == "not_understood"]
    assert {entry["log_level"] for entry in lines} == {"warning"}
    assert len(lines) <= 3, "once for each interface, not at every try"


async def spoilt(tmp_path, monkeypatch, taken, take):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        (runner,) = bench.runners
        monkeypatch.setattr(Readings, "take", take)
        troubles = runner.bridge._session._troubles
        await until(lambda: troubles.counts["not_understood"] >= 3)
        count = len(taken)
        await until(lambda: len(taken) > count + 30)
        assert status(bench).up
        assert {s.device.serial for s in bench.router.states() if s.values} >= set(taken)
