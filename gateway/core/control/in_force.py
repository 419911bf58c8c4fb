"""What is known to be in force, so that a setpoint written again unchanged need not be sent again.

Who else can set a device, e.g. the manufacturer's app, does not tell the gateway. So a value is taken to be in force
only while all of this holds; in every other case the command is sent:

- the last command handed to a controller for this setpoint succeeded, with this value;
- no call for another setpoint of its group has carried another value since (one call sets them all);
- no source has read back another value since (beyond the setpoint's tolerance), and the device's data are good;
- that success, or a read-back of the value since, is not older than `control.refresh_within`.

After a restart nothing is known.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from gateway.core.clock import Clock
from gateway.core.model import Command, Quality, Value
from gateway.core.points import SETPOINTS
from gateway.core.policy.policy import Policy
from gateway.core.router import Router


class InForce:
    """Remembers what commands have set, and compares with what sources read."""

    def __init__(self, router: Router, policy: Policy, clock: Clock) -> None:
        self._router = router
        self._policy = policy
        self._clock = clock
        self._set: dict[tuple[str, str], tuple[datetime, float, Value]] = {}
        """Serial and setpoint → when its last command succeeded, on both clocks, and with what value."""

    def succeeded(self, command: Command) -> None:
        """Take in that a command which was sent has succeeded."""
        key = command.serial, command.setpoint
        self._set[key] = self._clock.now(), self._clock.monotonic(), command.value

    def leaves(self, command: Command, carried: Mapping[str, Value]) -> None:
        """Take in that a command is about to be sent, with these values for the others of its group.

        Until it has succeeded nothing is known of its setpoint, nor of one that it carries another value for.
        """
        self._set.pop((command.serial, command.setpoint), None)
        for setpoint, value in carried.items():
            key = command.serial, setpoint
            if key in self._set and self._set[key][2] != value:
                del self._set[key]

    def holds(self, command: Command) -> bool:
        """Return whether what the command asks for is known to be in force."""
        known = self._set.get((command.serial, command.setpoint))
        state = self._router.state(command.serial)
        if known is None or known[2] != command.value or state is None or state.quality is not Quality.GOOD:
            return False
        set_at, set_monotonic, _ = known
        age = self._clock.monotonic() - set_monotonic
        read_back = self._router.read_back(command.serial, command.setpoint)
        if read_back is not None and read_back[0] > set_at:
            time, value = read_back
            if not SETPOINTS[command.setpoint].same(value, command.value):
                return False
            age = min(age, max(timedelta(0), self._clock.now() - time).total_seconds())
        return age < self._policy.refresh_within
