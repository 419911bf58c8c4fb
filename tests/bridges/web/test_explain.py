"""`POST …/explain`: the judgement of the command line, for who may write, and nothing is done."""

import pytest

from gateway.core.shapes import verdict
from tests.bridges.web.conftest import READER, SN, WRITER


async def explained(it, body, token=WRITER, serial=SN):
    return await it.ask("POST", f"/api/v1/devices/{serial}/explain", token, json=body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"active_power_limit": 60}, None),
        ({"active_power_limit": 160}, "out_of_range"),
        ({"active_power_limit": "much"}, "bad_value"),
        ({"export_limit": 1000}, "unknown_setpoint"),
        ({"setpoint": "active_power_limit", "value": 60, "revert_after": 900, "revert_value": 1000}, "out_of_range"),
    ],
)
async def test_it_says_what_the_command_line_says_and_what_set_would(it, body, reason):
    found = (await explained(it, body)).json()
    (each,) = found["commands"]
    name, value = each["setpoint"], body.get("value", next(iter(body.values())))
    command = it.bench.command(
        name, value, origin="web/scada:127.0.0.1",
        revert_after=body.get("revert_after"), revert_value=body.get("revert_value"),
    )  # fmt: skip
    wanted = verdict(it.bench.dispatcher.explain(command))
    assert {key: each[key] for key in ("permitted", "reason", "value")} == {
        key: wanted[key] for key in ("permitted", "reason", "value")
    }
    assert [(c["check"], c["ok"]) for c in each["checks"]] == [(c["check"], c["ok"]) for c in wanted["checks"]]
    assert each["rule"] == (None if name == "export_limit" else 1)
    assert it.controller.sent == []
    answer = await it.set(body)
    assert answer.json().get("reason") == found["reason"]
    assert found["permitted"] is (answer.status_code < 300)
    assert found["reason"] == reason


async def test_several_are_judged_together(it):
    found = (await explained(it, {"active_power_limit": 60, "battery_target_soc": 500})).json()
    assert (found["permitted"], found["reason"]) == (False, "out_of_range")
    assert [each["permitted"] for each in found["commands"]] == [True, False]


async def test_who_only_reads_is_not_told(it):
    assert (await explained(it, {"active_power_limit": 60}, READER)).json()["reason"] == "read_only_token"
    assert (await explained(it, {"active_power_limit": 60}, None)).json()["reason"] == "unauthorized"


async def test_a_halt_is_said(it):
    await it.ask("POST", "/api/v1/halt", WRITER, json={})
    assert (await explained(it, {"active_power_limit": 60})).json()["reason"] == "halted"


async def test_a_device_that_is_not_there(it):
    assert (await explained(it, {"active_power_limit": 60}, serial="nobody")).json()["reason"] == "unknown_device"
