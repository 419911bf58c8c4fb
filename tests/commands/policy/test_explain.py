"""What explain says is what submit does; and a person can read why."""

import asyncio

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.model import CommandState, DeviceKind, Reason
from tests.kit.bench import INVERTER, Bench
from tests.kit.clock import FakeClock, virtual, virtually

LIMIT = "active_power_limit"
RULES = [
    Rule(devices=["*"], setpoints=[LIMIT], origins=["a"], min=20, max=80, step=5, ramp=30),
    Rule(kinds=["storage"], setpoints=["running", "battery_mode"], origins=["a/x", "b"]),
    Rule(plants=["plant-1"], setpoints=["battery_target_soc"], max=90),
    Rule(devices=["*"], setpoints=[LIMIT, "export_limit"], origins=["b"]),
]
ASKED = st.fixed_dictionaries(
    {
        "serial": st.sampled_from([INVERTER.serial] * 6 + ["nobody"]),
        "setpoint": st.sampled_from(
            [LIMIT] * 6 + ["running", "battery_mode", "battery_target_soc", "export_limit", "?"]
        ),
        "value": st.sampled_from([0, 20, 50, 55, 52, 80, 100, 101, "50", "on", "charge", "x", True, None]),
        "origin": st.sampled_from(["a", "a/x:1", "b", "c:me"]),
        "ttl": st.sampled_from([60.0, 60.0, 60.0, -1.0]),
        "revert_after": st.sampled_from([None, None, 60.0]),
        "revert_value": st.sampled_from([None, None, 50, 53, "x"]),
    }
)


@given(
    st.lists(st.tuples(st.sampled_from([0.5, 1, 30, 61]), ASKED), max_size=12),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_it_says_is_what_submit_does(tmp_path_factory, wishes, enabled, halted, carried):
    control = ControlSettings(enabled=enabled or not halted, allow=RULES, max_per_minute=3, rates={"b": 2})

    @virtually
    async def run():
        async with Bench(tmp_path_factory.mktemp("x"), control, FakeClock()) as bench:
            bench.announce()
            bench.dispatcher.use({"scripted": bench.controller} if carried or not halted else {})
            if halted and wishes and wishes[0][0] == 30:
                await bench.halting.halt("cli:me")
            for pause, requested in wishes:
                await asyncio.sleep(pause)
                command = bench.command(**requested)
                verdict = bench.dispatcher.explain(command)
                (event,) = await bench.dispatcher.submit(command)
                refusal = verdict.refusal
                if refusal is None:
                    assert event.state is CommandState.ACCEPTED
                    assert event.command.value == verdict.value
                else:
                    assert (event.state, event.reason) == (CommandState.REJECTED, refusal.reason)
                    assert refusal.detail.startswith(event.detail)

    run()


@virtual
async def test_every_check_is_there_with_its_words(tmp_path):
    control = ControlSettings(enabled=True, allow=RULES, rates={"a": 10})
    async with Bench(tmp_path, control, FakeClock()) as bench:
        bench.announce()
        bench.announce(serial="plant-1", kind=DeviceKind.PLANT, name="Hill", plant="", setpoints={})
        bench.publish(active_power_limit=60.0)
        verdict = bench.dispatcher.explain(bench.command(value="50", origin="a:me", revert_after=60.0))
        assert [(check.name, check.text) for check in verdict.checks] == [
            ("enabled", "control.enabled: true"),
            ("halt", "control is not halted"),
            ("device", f"{INVERTER.serial} is known: storage of Hill"),
            ("setpoint", f"{INVERTER.serial} takes active_power_limit"),
            ("rule", "rule 1 of control.allow lets a set it"),
            ("value", "it is 50 %"),
            ("range", "20 to 80 % may be written"),
            ("step", "a multiple of 5 %"),
            ("ramp", "it may move by 30 % within a minute, so 30 to 80 % now"),
            ("rate of the device", "0 of 30 a minute for this device (control.max_per_minute)"),
            ("rate of the origin", "0 of 10 a minute for a (control.rates)"),
            ("time", "it expires in 60 s"),
            ("controller", "scripted would carry it out"),
            ("dead-man's timer", "after 60 s it is set back to its neutral value, 100.0"),
            ("writes of the device", "0 of 200 writes today (control.writes_per_day)"),
        ]
        assert (verdict.value, verdict.rule, verdict.refusal) == (50.0, 0, None)
        assert msgspec.json.decode(verdict.rule_text)["ramp"] == 30


@virtual
async def test_it_goes_on_after_a_refusal_as_far_as_that_makes_sense(tmp_path):
    control = ControlSettings(allow=RULES, max_per_minute=1)
    async with Bench(tmp_path, control, FakeClock()) as bench:
        bench.announce()
        bench.dispatcher.use({})
        await bench.halting.halt("cli:me")
        checks = bench.dispatcher.explain(bench.command(value=12, origin="a", ttl=-5)).checks
        assert [check.reason for check in checks if check.reason] == [
            Reason.CONTROL_DISABLED, Reason.HALTED, Reason.OUT_OF_RANGE, Reason.BAD_STEP, Reason.RAMP_LIMITED,
            Reason.EXPIRED, Reason.NO_CONTROLLER,
        ]  # fmt: skip
        unknown = bench.dispatcher.explain(bench.command(serial="nobody", origin="a")).checks
        assert unknown[-1].reason is Reason.UNKNOWN_DEVICE


@virtual
async def test_it_says_why_no_rule_fits_and_what_rules_name_that_is_not_there(tmp_path):
    control = ControlSettings(
        enabled=True, allow=[RULES[0], RULES[1], Rule(devices=["gone"], setpoints=["running"], origins=["a"])]
    )
    async with Bench(tmp_path, control, FakeClock()) as bench:
        bench.announce()
        verdict = bench.dispatcher.explain(bench.command("running", True, origin="a"))
        assert verdict.refusal.detail.endswith(
            "of 9010KETU000W0001: rule 1 is not for this setpoint; rule 2 is not for this origin; "
            "rule 3 is not for this device"
        )
        assert [(unmet.rule, unmet.name) for unmet in verdict.unmet] == [(2, "gone")]
        nothing = bench.dispatcher.explain(bench.command("battery_target_soc", 5, origin="c"))
        assert "rule 3 is not for this device, setpoint and origin" in nothing.refusal.detail
