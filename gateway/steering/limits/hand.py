"""What one device is told: the same again until it has done it, later and later."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from gateway.api.contexts import Context
from gateway.core.findings import FindingCode
from gateway.core.model import Command, CommandEvent, CommandState, Origin, Value, new_command_id
from gateway.steering.fleet.goals import SUPERSEDED

CHILD_TTL: Final = 120.0
"""Seconds until a command to the device expires unsent; then it is given anew."""
AGAIN: Final = 10.0
"""Seconds after a refusal until the device is told again, doubling each time."""
AGAIN_MOST: Final = 600.0
HALTED: Final = "control is halted"
RESUME: Final = {HALTED: "sems-gateway resume CONFIG"}
"""Why no command leaves → what to do about it."""
OVERTAKEN: Final = (SUPERSEDED, CommandState.SUPERSEDED)
"""What is said of a command that a newer one came before."""
PARTIAL: Final = "partial"
"""What the text begins with of a fleet's end that is a success only in part."""

Orders = Mapping[str, Value]
"""Setpoint → value."""


class Hand:
    """One device."""

    def __init__(self, context: Context, origin: Origin, serial: str) -> None:
        self._context = context
        self._origin = origin
        self.serial = serial
        self.done: Orders | None = None
        """What it was told last, and did."""
        self.since: datetime | None = None
        """When it had done so."""
        self.why = ""
        """Why it does not do what it is told; "" where it does."""
        self.partial = ""
        """What a fleet says that did as much of it as it can; "" where it is done."""
        self._asked: Orders = {}
        self._open: set[str] = set()
        """Ids of the commands that are under way."""
        self._bad = ""
        self._told = 0.0
        """When it was told something last, on the monotonic clock."""
        self._again = 0.0
        self._pause = AGAIN
        self._doubt = AGAIN
        """Seconds after it was told until it is told the same again where it reads otherwise, doubling each time."""

    @property
    def busy(self) -> bool:
        """Whether something is under way."""
        return bool(self._open)

    @property
    def resting(self) -> bool:
        """Whether it has refused, and is not told the same again yet."""
        return self._context.clock.monotonic() < self._again

    @property
    def closed(self) -> str:
        """Why no command leaves now, whoever it is for; "" where they do."""
        if self._context.halted is not None:
            return HALTED
        return f"control is closed: {trouble}" if (trouble := self._context.journal_trouble) else ""

    def may_be_told(self, orders: Orders) -> bool:
        """Return whether it is told this now: what differs from what is under way, or was refused, does not wait."""
        if self.closed:
            return False
        if orders != self._asked:
            return True
        return not self._open and not self.resting

    async def tell(self, orders: Orders) -> None:
        """Have it do something, all or nothing."""
        now = self._context.clock.now()
        commands = [
            Command(
                id=new_command_id(),
                serial=self.serial,
                setpoint=setpoint,
                value=value,
                origin=self._origin,
                created=now,
                expires=now + timedelta(seconds=CHILD_TTL),
            )
            for setpoint, value in orders.items()
        ]
        self._asked, self._open, self._bad, self.partial = dict(orders), set(), "", ""
        self._told = self._context.clock.monotonic()
        if (refusal := self._context.judge(*commands)) is not None:
            self.fail(refusal.detail, next(iter(orders)))
            return
        self._open, self.done = {command.id for command in commands}, None
        for event in await self._context.submit(*commands):
            self.took(event)

    def took(self, event: CommandEvent) -> bool:
        """Take in a step of anybody's command; return whether what this device was told has come to its end by it."""
        if event.command.id not in self._open or not event.state.final:
            return False
        self._open.remove(event.command.id)
        if event.state is not CommandState.SUCCEEDED:
            is_overtaken = event.state is CommandState.SUPERSEDED
            self._bad = event.state if is_overtaken else event.detail or event.state
        elif not event.verified and event.detail.startswith(PARTIAL):
            self.partial = event.detail
        if self._open:
            return False
        if self._bad in OVERTAKEN:  # by somebody else: that is no refusal
            self._again = self._context.clock.monotonic() + AGAIN
        elif self._bad:
            self.fail(self._bad, event.command.setpoint)
        else:
            self.done, self._pause, self.why = self._asked, AGAIN, ""
            self.since = self._context.clock.now()
            self._context.settle(FindingCode.NOT_STEERABLE, self.serial)
        return True

    def undone(self) -> None:
        """Take in that somebody else has set it otherwise: it is told again soon, whatever it said before."""
        self.done, self._pause, self._again = None, AGAIN, self._told + AGAIN

    def covered(self, orders: Orders) -> None:
        """Take in that somebody else has set it to what permits no more than this: that may stay."""
        self.done, self._asked, self._open, self.why = dict(orders), dict(orders), set(), ""
        self.since = self._context.clock.now()
        self._context.settle(FindingCode.NOT_STEERABLE, self.serial)

    def contradicted(self) -> None:
        """Take in that it reads otherwise, although it said it was done: it is told again, later and later."""
        if self._context.clock.monotonic() - self._told > 2 * AGAIN_MOST:
            self._doubt = AGAIN
        self.done, self._again = None, self._told + self._doubt
        self._doubt = min(2 * self._doubt, AGAIN_MOST)

    def fail(self, why: str, setpoint: str) -> None:
        """Take in that it is not done: say so, and wait a while."""
        self.why = why
        if not self.closed:  # else it was no refusal of its own
            self._again, self._pause = self._context.clock.monotonic() + self._pause, min(2 * self._pause, AGAIN_MOST)
        self._context.find(
            FindingCode.NOT_STEERABLE, self.serial, f"the limit can't be written to it: {why}",
            f"sems-gateway explain CONFIG {self.serial} {setpoint} {self._asked.get(setpoint, 0)} --as {self._origin}",
        )  # fmt: skip
