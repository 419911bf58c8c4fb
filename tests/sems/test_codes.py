"""What SEMS's codes mean at the login and at other calls, and the reasons it gives, over real HTTP."""

import pytest
import structlog.testing

from gateway.sems.catalogue import SemsError, load
from gateway.sems.errors import (
    LoginRefusedError,
    NotDoneError,
    SemsRefusedError,
    TokenExpiredError,
    UnreachableError,
    WrongParameterError,
)
from tests.sems.kit import Clock, http, serving, session

TOKENS = {"open_api": ("GetToken", {"code": 0, "data": {"token": "T"}})}
NEWER = ("Token", http({"access_token": "T", "expires_in": 1800}))
CALLS = {
    "open_api": ("GetInverterBySN", {"serial": "9010KETU218W0001"}, {"code": 0, "data": {"pac": 1}}),
    "developer": ("StationList", {"page": 1, "page_size": 9}, {"code": "00000", "data": {"list": []}}),
    "realtime": ("inverter", {"serials": ["9010KETU218W0001"]}, {"code": "00000", "data": {"deviceData": []}}),
}
APIS = pytest.mark.parametrize("api", list(CALLS))
REFUSED_LOGINS = ["100001", 100005, "C0501"]
NO_TOKEN = ["100001", "100002", "C0602", "C0607", "Z0100"]


@pytest.fixture
def clock():
    return Clock()


def scripted(server, api, *answers):
    login, token = TOKENS.get(api, NEWER)
    name, args, well = CALLS[api]
    server.scripts = {login: [token], name: [*answers] or [well]}
    return name, args, well


@APIS
@pytest.mark.parametrize("code", NO_TOKEN)
async def test_a_call_without_a_valid_token_is_one_login_and_one_repeat(tmp_path, clock, api, code):
    async with serving(api) as (server, url), session(url, tmp_path, clock, api=api) as it:
        name, args, well = scripted(server, api)
        refusal = {"code": code, "description": "no access, please log in"}
        server.scripts[name] = [refusal, well]
        await it.call(name, args)
        login = next(iter(server.scripts))
        assert server.names() == [login, name, login, name]
        server.scripts[name] = [refusal]
        with pytest.raises(TokenExpiredError, match=rf"{code}: no access, please log in"):
            await it.call(name, args)
        assert server.names()[4:] == [name, login, name], "one login, one repeat, then an error"


@APIS
@pytest.mark.parametrize("code", REFUSED_LOGINS)
async def test_a_login_that_is_refused_is_not_tried_again_soon_nor_after_a_restart(tmp_path, clock, api, code):
    async with serving(api) as (server, url):
        name, args, _ = scripted(server, api)
        login = next(iter(server.scripts))
        server.scripts[login] = [{"code": code, "errorMsg": "wrong name or password"}]
        for _ in range(2):
            async with session(url, tmp_path, clock, api=api) as it:
                for _ in range(3):
                    with pytest.raises(LoginRefusedError, match=r"wrong name or password|last login") as met:
                        await it.call(name, args)
                    assert met.value.retry_after == 60
        assert server.names() == [login]


@APIS
async def test_a_login_with_wrong_parameters_backs_off_and_blames_no_password(tmp_path, clock, api):
    async with serving(api) as (server, url), session(url, tmp_path, clock, api=api) as it:
        name, args, _ = scripted(server, api)
        login = next(iter(server.scripts))
        server.scripts[login] = [{"code": "100004", "msg": "parameter error"}]
        with pytest.raises(LoginRefusedError, match="100004: parameter error") as met:
            await it.call(name, args)
        assert "do not open this account" not in str(met.value)
        with pytest.raises(LoginRefusedError):
            await it.call(name, args)
        assert server.names() == [login]


async def test_a_system_error_at_the_login_is_no_word_on_the_password(tmp_path, clock):
    async with serving() as (server, url), session(url, tmp_path, clock) as it:
        name, args, _ = scripted(server, "open_api")
        server.scripts["GetToken"] = [{"code": "100000", "msg": "system error"}, {"code": 0, "data": {"token": "T"}}]
        with pytest.raises(UnreachableError, match="100000"):
            await it.call(name, args)
        await it.call(name, args)


@APIS
@pytest.mark.parametrize("code", ["100004", "P0214", "S0327"])
async def test_a_wrong_parameter_names_what_was_sent_and_holds_nothing(tmp_path, clock, api, code):
    async with serving(api) as (server, url), session(url, tmp_path, clock, api=api) as it:
        name, args, well = scripted(server, api)
        server.scripts[name] = [{"code": code, "description": "parameter error."}, well]
        with pytest.raises(WrongParameterError) as met:
            await it.call(name, args)
        assert f"SEMS said {code}: parameter error. ({name} was sent " in str(met.value)
        sent = {row.field for row in load(api).interface(name).request}
        assert all(field in str(met.value) for field in sent)
        assert "9010KETU" not in str(met.value), "names, not what was in them"
        assert it.budget.wait() == 0
        await it.call(name, args)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"msg": "no"}, "X1: no"),
        ({"msg": "", "description": "parameter error.", "errorMsg": None}, "X1: parameter error."),
        ({"description": "parameter error.", "errorMsg": "sn is empty"}, "X1: parameter error.; sn is empty"),
        ({"errorMsg": "same", "msg": "same", "translationCode": "E_1"}, "X1: same; E_1"),
        ({"translationCode": "RPC_TIMEOUT", "traceId": "ab12"}, "X1: RPC_TIMEOUT (traceId ab12)"),
        ({"traceId": "ab12"}, "X1: traceId ab12"),
        ({"error_description": "bad client"}, "X1: bad client"),
        ({"msg": {"a": 1}, "errorMsg": ["x"]}, "X1: no reason given"),
        ({"msg": "\x1b[2J\u202ered\r\nline"}, "X1: [2Jred line"),
    ],
)
async def test_the_reason_of_a_refusal_is_shown(tmp_path, clock, said, reason):
    async with serving() as (server, url), session(url, tmp_path, clock) as it:
        name, args, _ = scripted(server, "open_api")
        server.scripts[name] = [{"code": "X1", **said}]
        with pytest.raises(SemsRefusedError) as met:
            await it.call(name, args)
        assert str(met.value) == f"SEMS said {reason}"


async def test_a_code_and_a_reason_of_megabytes_are_cut_before_they_go_anywhere(tmp_path, clock):
    with structlog.testing.capture_logs() as log:
        async with serving() as (server, url), session(url, tmp_path, clock) as it:
            name, args, _ = scripted(server, "open_api")
            big = "\u202e" + "x" * 2_000_000
            server.scripts[name] = [{"code": big, "msg": big, "description": "y" * 500_000, "traceId": big}]
            with pytest.raises(SemsRefusedError) as met:
                await it.call(name, args)
            server.scripts[name] = [{"code": [big], "msg": big}]
            with pytest.raises(Exception, match="without a code") as other:
                await it.call(name, args)
    assert len(str(met.value)) < 450
    assert len(str(other.value)) < 450
    assert sum(len(str(entry)) for entry in log) < 4000
    assert "\u202e" not in str(log)


def test_what_a_code_means_depends_on_the_call_it_answers():
    for api in CALLS:
        catalogue = load(api)
        assert catalogue.error_of("100001", login=True) is SemsError.LOGIN_REFUSED
        assert catalogue.error_of("100001") is SemsError.TOKEN_EXPIRED
        assert catalogue.error_of("C0602", login=True) is None
        assert catalogue.error_of("GY0429", login=True) is catalogue.error_of("GY0429") is SemsError.RATE_LIMITED


@pytest.mark.parametrize("code", ["R0305", "P0215"])
async def test_what_was_not_done_is_an_error_of_its_own(tmp_path, clock, code):
    async with serving() as (server, url), session(url, tmp_path, clock) as it:
        name, args, _ = scripted(server, "open_api")
        server.scripts[name] = [{"code": code, "msg": "device offline"}]
        with pytest.raises(NotDoneError, match=f"{code}: device offline"):
            await it.call(name, args)
