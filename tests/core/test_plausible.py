"""Powers that can't be: by the rating, and by what the phases carry."""

import pytest

from gateway.core.model import Device, DeviceKind
from gateway.core.plausible import RatingWatch, find

INVERTER = Device(serial="1", kind=DeviceKind.INVERTER, rated_power=25_000.0)
PHASES = {f"l{n}_voltage": 230.0 for n in (1, 2, 3)} | {f"l{n}_current": 30.0 for n in (1, 2, 3)}
"""20.7 kVA."""


@pytest.mark.parametrize(
    ("values", "point"),
    [
        ({"ac_power": 25_000.0, "pv_power": 36_500.0}, None),
        ({"ac_power": 20_000_000.0}, "ac_power"),  # W taken for kW
        ({"ac_power": -80_000.0}, "ac_power"),
        ({"battery_power": -2.0e7}, "battery_power"),
        ({"ac_power": 20.5} | PHASES, "ac_power"),  # kW taken for W
        ({"ac_power": 20_500.0} | PHASES, None),
        ({"ac_power": 0.0} | PHASES, None),  # not measured, or all of it reactive
        ({"ac_power": 20.5}, None),
        ({"ac_power": None, "pv_power": "1", "battery_power": True}, None),
    ],
)
def test_what_can_not_be_is_found(values, point):
    odd = find(INVERTER, values)
    assert (odd.point if odd else None) == point


def test_it_is_said_of_the_second_answer_in_a_row_and_ends_with_one_that_fits():
    watch, odd, even = RatingWatch(), {"ac_power": 2.5e7}, {"ac_power": 25_000.0}
    found = [bool(watch.judge("sems", INVERTER, values)) for values in (odd, odd, odd, even, odd, even, odd, odd)]
    assert found == [False, True, True, False, False, False, False, True]
    assert not watch.judge("other", INVERTER, odd), "another source counts for itself"


def test_without_a_rating_nothing_is_doubted():
    assert find(Device(serial="1", kind=DeviceKind.INVERTER), {"ac_power": 1e12}) is None
    assert find(Device(serial="1", kind=DeviceKind.METER, rated_power=1.0), {"ac_power": 1e12}) is None
