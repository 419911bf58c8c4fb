"""Sets the device's setpoints to what is in force, keeps them so, and lets go of what is in force no more."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

import msgspec

from gateway.api.contexts import OriginContext
from gateway.bridges.csip.mapping import Wish
from gateway.bridges.csip.settings import CsipSettings
from gateway.core.model import Command, CommandEvent, CommandState, Device, Origin, Value, new_command_id
from gateway.core.points import SETPOINTS

RETRY: Final = 30.0
"""Seconds until what failed is tried again; doubled each time."""
RETRY_MOST: Final = 600.0
REFRESHES: Final = 3
"""How often within `hold` a value of an event is sent again, so that one that is lost does no harm."""
MARGIN: Final = 30.0
"""Seconds after an event's end when its dead-man's timer fires, where the bridge has not let go of it by then."""


class _Order(msgspec.Struct):
    """What a setpoint was told last."""

    wish: Wish
    is_release: bool = False
    command: str = ""
    """Id of the command; "" where none is under way."""
    again: float = 0.0
    """When it is to be told again, on the loop's clock."""
    failures: int = 0


class Steering:
    """Of one device."""

    def __init__(
        self, settings: CsipSettings, context: OriginContext, origin: Origin, carried: Callable[[str, bool], None]
    ) -> None:
        """`carried` is told, of each event, that something of it was carried out, or was not."""
        self._settings = settings
        self._context = context
        self._origin = origin
        self._carried = carried
        self._orders: dict[str, _Order] = {}
        self.refused = ""
        """What was not carried out last, and why; "" where all went well since."""

    @property
    def held(self) -> frozenset[str]:
        """Setpoints that it has set and not let go of."""
        return frozenset(self._orders)

    def restore(self, held: frozenset[str]) -> None:
        """Take up, after a restart, the setpoints that were set before: what is not wished any more is let go of."""
        for setpoint in held & SETPOINTS.keys():
            self._orders[setpoint] = _Order(Wish(None), failures=1)

    async def steer(self, device: Device, wishes: Mapping[str, Wish], baseline: Mapping[str, Wish], now: float) -> None:
        """Send what is due. `baseline` is what would be wished without events; `now` is the server's time."""
        for setpoint in {*wishes, *self._orders}:
            wish = wishes.get(setpoint)
            is_release = wish is None
            if wish is None:
                neutral = SETPOINTS[setpoint].neutral
                if neutral is None or setpoint not in device.setpoints:
                    del self._orders[setpoint]  # there is no value that lets go of it; a timer has its own
                    continue
                wish = Wish(neutral)
            order = self._orders.get(setpoint)
            told = (wish.value, wish.events, is_release)
            if order is None or (order.wish.value, order.wish.events, order.is_release) != told:
                order = self._orders[setpoint] = _Order(wish, is_release)
            order.wish = wish
            if self._context.clock.monotonic() >= order.again:
                await self._send(device, setpoint, order, baseline.get(setpoint), now)

    async def _send(self, device: Device, setpoint: str, order: _Order, baseline: Wish | None, now: float) -> None:
        wish, hold, clock = order.wish, self._settings.hold, self._context.clock
        left = hold if wish.until is None else max(0.0, wish.until - now)
        if left <= 0:
            return
        after: float | None = None
        back: Value = None
        if wish.events:
            back = SETPOINTS[setpoint].neutral if baseline is None else baseline.value
            after = min(hold, left + MARGIN) if back is not None else None
            order.again = clock.monotonic() + hold / REFRESHES
        else:
            # A release is told once; a default may be changed by others, and is told now and then.
            order.again = float("inf") if order.is_release else clock.monotonic() + hold
        at = clock.now()
        command = Command(
            id=new_command_id(),
            serial=device.serial,
            setpoint=setpoint,
            value=wish.value,
            origin=self._origin,
            created=at,
            expires=at + timedelta(seconds=min(hold, left)),
            revert_after=after,
            revert_value=back if after is not None else None,
        )
        order.command = command.id
        [event] = await self._context.submit(command)
        self.took(event)

    def took(self, event: CommandEvent) -> None:
        """Take in a step of a command, whoever's."""
        command = event.command
        order = self._orders.get(command.setpoint)
        if order is None or order.command != command.id or not event.state.final:
            return
        order.command = ""
        is_good = event.state is CommandState.SUCCEEDED
        for mrid in order.wish.events:
            self._carried(mrid, is_good)
            if is_good and order.wish.is_short:
                self._carried(mrid, False)
        if is_good:
            order.failures = 0
            self.refused = ""
            if order.is_release:
                del self._orders[command.setpoint]
            return
        refused = f"{command.setpoint} {command.value}: {event.detail or event.reason or event.state}"
        if refused != self.refused:
            self.refused = refused
            self._context.log.warning("what the utility asks for is not carried out; tried again", why=refused)
        wait = min(RETRY_MOST, RETRY * 2 ** min(order.failures, 10))
        order.again = min(order.again, self._context.clock.monotonic() + wait)
        order.failures += 1
