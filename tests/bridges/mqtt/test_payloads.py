import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from gateway.bridges.mqtt import payloads
from gateway.core.model import DeviceState, Quality, iso
from tests.kit.bench import INVERTER

TIMES = [
    None,
    datetime(2026, 6, 21, 12, 0, tzinfo=UTC),
    datetime(2026, 6, 21, 12, 0, 0, 1, tzinfo=UTC),
    datetime(2026, 6, 21, 12, 0, 0, 123_999, tzinfo=UTC),
    datetime(2026, 6, 21, 14, 0, 0, 123_456, tzinfo=timezone(timedelta(hours=2))),
]


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("values", [{}, {"ac_power": 1.5}, {"status": 'say "no"', "ac_power": None, "running": True}])
@pytest.mark.parametrize("source", ["cloud", 'odd "name" ü'])
def test_a_state_put_together_is_what_one_object_would_be(time, values, source):
    state = DeviceState(device=INVERTER, quality=Quality.STALE, time=time, source=source, values=values)
    whole = {"time": iso(time) if time else None, "quality": "stale", "source": source, **values}
    assert payloads.state(state) == json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def test_a_setpoints_step_is_told():
    from gateway.bridges.mqtt.home_assistant import entities
    from gateway.core import shapes
    from gateway.core.model import Range

    limits = Range(20.0, 80.0, 5.0)
    assert shapes.setpoint("active_power_limit", limits)["step"] == 5.0
    assert "step" not in shapes.setpoint("active_power_limit", Range(0, 100))
    number = entities.controls("sems/x", {"active_power_limit": limits}, dated=False)["set_active_power_limit"]
    assert (number["min"], number["max"], number["step"]) == (20.0, 80.0, 5.0)
