"""From the registers of a write request to commands, and from their refusal to an exception code."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from functools import partial
from typing import Final, NamedTuple

import msgspec
import structlog

from gateway.bridges.modbus.codec import AbsentError, NotAValueError
from gateway.bridges.modbus.codes import ENDINGS, REFUSALS, ExceptionCode
from gateway.bridges.modbus.image import Image, Unit
from gateway.bridges.modbus.joint import worst
from gateway.bridges.modbus.settling import Due, SetpointRequest, Settling, Staged, WriteRefusedError
from gateway.core.clock import Clock
from gateway.core.model import GATEWAY, Command, CommandEvent, CommandState, Origin, Reason, new_command_id
from gateway.core.points import SETPOINTS, Type
from gateway.core.verdict import Refusal

_WHOLE: Final = (Type.BOOLEAN, Type.ENUM, Type.INTEGER)
LONGEST: Final = 10
"""Times `settle` after which writes that never pause are a command all the same, as soon as they are whole."""
OF_THE_VALUE: Final = frozenset(
    {Reason.BAD_VALUE, Reason.OUT_OF_RANGE, Reason.BAD_STEP, Reason.RAMP_LIMITED, Reason.BAD_REQUEST}
)
"""Refusals that a further write of the same sequence may make good."""


def setpoint_requests(image: Image, address: int, payload: bytes) -> list[SetpointRequest]:
    """Return what the registers from `address` on, big-endian in `payload`, ask for.

    What was read may be written back with one value changed. So "not there" is passed over, and so is a register that
    is not writable and says what it says already, or a measured one, which may have changed since it was read.

    Raises WriteRefusedError where none of them, or one that says something else, is not writable (02), a value is cut
    in half (03), is none (03), or "not there" is all that is written (03).
    """
    layout = image.layout
    end = address + len(payload) // 2
    found: list[SetpointRequest] = []
    rows = 0
    at = address
    while at < end:
        row, decode = layout.writable.get(at, (None, None))
        if row is None or decode is None:
            if at in layout.inside:
                raise _half(at)
            if not may_be_written_back(image, at, payload[2 * (at - address) : 2 * (at - address) + 2]):
                raise WriteRefusedError(ExceptionCode.ILLEGAL_DATA_ADDRESS, f"register {at} is not writable")
            at += 1
            continue
        if row.end > end:
            raise _half(at)
        rows += 1
        try:
            value = decode(payload[2 * (at - address) : 2 * (row.end - address)])
        except AbsentError as error:
            if row.count == end - address:
                raise WriteRefusedError(ExceptionCode.ILLEGAL_DATA_VALUE, f"register {at}: {error}") from error
        except NotAValueError as error:
            raise WriteRefusedError(ExceptionCode.ILLEGAL_DATA_VALUE, f"register {at}: {error}") from error
        else:
            whole = row.point is not None and row.point.type in _WHOLE
            if whole and isinstance(value, (int, float)) and float(value).is_integer():
                value = int(value)
            found.append(SetpointRequest(row.field, value))
        at = row.end
    if not rows:
        raise WriteRefusedError(ExceptionCode.ILLEGAL_DATA_ADDRESS, f"register {address} is not writable")
    return found


def _half(at: int) -> WriteRefusedError:
    return WriteRefusedError(
        ExceptionCode.ILLEGAL_DATA_VALUE, f"register {at} is half of a value; write both halves at once"
    )


def may_be_written_back(image: Image, at: int, word: bytes) -> bool:
    """Return whether a register that is not writable may stand among others that are."""
    span = image.layout.spans.get(at)
    if span is None:
        return False
    if at in image.layout.measured:
        return True
    start = 2 * at + span.shift
    return image.data[start : start + 2] == word


def _host(peer: str) -> str:
    """Return the address of `ip:port`."""
    return peer.rpartition(":")[0]


class _Order(NamedTuple):
    """One setpoint of a unit, as a request wants it."""

    whole: Command
    parts: list[Command]
    """What is submitted: itself or, of a plant, the commands to its inverters."""


class _Target:
    """The registers of one device in one map that mean something together, as clients write them."""

    def __init__(self, serial: str, image: Image, controls: Settling) -> None:
        self.serial: Final = serial
        self.map: Final = image.layout.map.name
        self.image = image
        self.controls: Final = controls
        self.lock: Final = asyncio.Lock()
        """Held while a write is taken in."""
        self.session: _Session | None = None
        """Who wrote last."""

    def show(self) -> None:
        """Have reads see what was written."""
        self.image.amend(self.controls.shown())


_Lane = tuple[str, str]
"""Serial, and group of setpoints."""


class _Pending(msgspec.Struct):
    """Writes to a target that have not settled."""

    who: Origin
    since: float
    until: float
    """When they were begun and have settled, by the loop's clock."""
    whole: bool
    models: frozenset[str]
    written: float
    """When the last of them came, monotonic seconds. What is given elsewhere after it is newer."""
    task: asyncio.Task[None] | None = None


class _Session(msgspec.Struct):
    """Who writes to a target: an order is made of what one client has written."""

    role: str
    peer: str
    since: float
    """When the sequence was begun that it may be in the midst of, by the loop's clock."""
    until: float
    is_open: bool
    """It may be in the midst of one."""


class Writer:
    """Turns write requests into commands; all of a request are accepted, or none."""

    def __init__(
        self,
        submit: Callable[..., Awaitable[Sequence[CommandEvent]]],
        judge: Callable[..., Refusal | None],
        clock: Clock,
        log: structlog.stdlib.BoundLogger,
        bridge: str,
        *,
        ttl: float,
        settle: float,
        wait: float | None = None,
        share: Callable[[str, SetpointRequest, Collection[str]], Sequence[tuple[str, SetpointRequest]]],
        join: Callable[[Command, Sequence[Command]], None],
        connected: Callable[[str], bool],
    ) -> None:
        self._submit = submit
        self._judge = judge
        self._clock = clock
        self._log = log
        self._bridge = bridge
        self._ttl = timedelta(seconds=ttl)
        self._settle = settle
        """Seconds without a further write after which writes that belong together are a command."""
        self._wait = wait
        """Seconds to wait for the ends of commands before a write is answered; None: it is answered at once."""
        self._share = share
        """Divides a request among devices: a plant's go to its inverters."""
        self._join = join
        """Called with a command to a plant and those that it is made of, before they are submitted."""
        self._connected = connected
        """Whether a client, by its `ip:port`, still has its connection. Over UDP there is none."""
        self._ends: dict[str, asyncio.Future[CommandEvent | None]] = {}
        """Command id → its end, or None for done, where that is waited for."""
        self._targets: dict[tuple[str, str], _Target] = {}
        """By serial and map."""
        self._pending: dict[_Target, _Pending] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._given: dict[_Lane, float] = {}
        """When the newest order was given that is known to be accepted, through whatever door; monotonic seconds."""
        self._submitted: dict[str, tuple[_Lane, float]] = {}
        """Id of a command of ours of which no step is known yet → for what, and when it was written."""

    async def write(self, unit: Unit, role: str, peer: str, address: int, payload: bytes, waited: float = 0.0) -> None:
        """Request what the registers say. Returns once that is taken or, with `wait`, done.

        `role` is the client's, "" for none, `peer` its `ip:port`; `waited`: seconds since it was received. Raises
        WriteRefusedError.
        """
        at = self._clock.monotonic() - waited
        found = unit.find(address)
        if found is None:
            raise WriteRefusedError(ExceptionCode.ILLEGAL_DATA_ADDRESS, f"register {address} is not writable")
        image, _ = found
        who = Origin.of(self._bridge, role, peer)
        if image.act is not None:
            await image.act(address, payload, who)
        elif image.controls is not None:
            await self._stage(self._target(unit.serial, image, image.controls), who, peer, at, address, payload)
        else:
            orders = self._orders(unit.serial, who, setpoint_requests(image, address, payload))
            await self._execute(self._not_overtaken(orders, at), at)

    async def stop(self) -> None:
        """Send what is whole, forget what is half of a sequence."""
        for target in list(self._pending):
            await self._leave(target, whole=True)
        await asyncio.gather(*self._leaving, return_exceptions=True)

    def _target(self, serial: str, image: Image, controls: Settling) -> _Target:
        key = serial, image.layout.map.name
        target = self._targets.get(key)
        if target is None:
            target = self._targets[key] = _Target(serial, image, controls)
        target.image = image
        return target

    async def _stage(self, target: _Target, who: Origin, peer: str, at: float, address: int, payload: bytes) -> None:
        """Take in a write that belongs to others. Raises WriteRefusedError."""
        async with target.lock:
            await self._begin(target, who.role, peer)
            leaves = await self._take_in(target, who, peer, at, address, payload)
        if leaves:
            # Who waits for the end writes nothing more before it; who never pauses would wait for ever.
            await self._leave(target, answers=True)

    async def _begin(self, target: _Target, role: str, peer: str) -> None:
        """Have another client's writes leave before those of this one.

        Raises WriteRefusedError (06) while that one is in the midst of a sequence.
        """
        session = target.session
        if session is not None:
            if session.role == role and session.peer == peer:
                return
            now = asyncio.get_running_loop().time()
            if (
                session.role == role
                and now < session.until
                and _host(session.peer) == _host(peer)
                and not self._connected(session.peer)
            ):
                session.peer = peer  # it connects anew for each write
                return
            if session.is_open and now < session.until and now - session.since < LONGEST * self._settle:
                raise WriteRefusedError(
                    ExceptionCode.SERVER_DEVICE_BUSY, f"{session.peer} is writing to the same registers; try again"
                )
            target.session = None
            await self._leave(target, whole=True)
        # Without a session, before the bridge was started again, it may have been another client's as well.
        target.controls.hand_over()
        target.show()

    async def _take_in(self, target: _Target, who: Origin, peer: str, at: float, address: int, payload: bytes) -> bool:
        """Stage and latch a write. Returns whether what was written is to leave at once. Raises WriteRefusedError."""
        before, controls = self._pending.get(target), target.controls
        try:
            written = {request.setpoint: request.value for request in setpoint_requests(target.image, address, payload)}
            staged = controls.stage(written)
            if before is not None and before.whole and before.models.isdisjoint(staged.models):
                await self._leave(target)
                staged = controls.stage(written)
            await self._check(target.serial, who, staged)
        except WriteRefusedError:
            end = address + len(payload) // 2
            writable = target.image.layout.writable.items()
            controls.abandon({row.field for at, (row, _) in writable if at < end and address < row.end})
            target.show()
            if target.session:
                target.session.is_open = False
            raise
        controls.latch(written)
        target.show()
        now = asyncio.get_running_loop().time()
        session = target.session
        if session is None:
            session = target.session = _Session(who.role, peer, now, now, is_open=False)
        if not session.is_open or now >= session.until:
            session.since = now
        session.until, session.is_open = now + self._settle, staged.is_open
        if not staged.pending:
            return False
        pending = self._pending.get(target)
        if pending is None:
            pending = self._pending[target] = _Pending(who, now, now, staged.whole, staged.models, at)
        pending.who, pending.whole, pending.models = who, staged.whole, pending.models | staged.models
        pending.until, pending.written = now + self._settle, at
        if staged.whole and (self._wait is not None or now - pending.since >= LONGEST * self._settle):
            return True
        if pending.task is None:
            name = f"writes of {target.serial} settle"
            pending.task = asyncio.create_task(self._when_settled(target, pending), name=name)
            self._leaving.add(pending.task)
            pending.task.add_done_callback(self._leaving.discard)
        return False

    async def _check(self, serial: str, who: Origin, staged: Staged) -> None:
        """Refuse now what would be refused when it has settled. Raises WriteRefusedError."""
        orders = self._orders(serial, who, staged.requests)
        refusal = self._judge(*_commands(orders)) if orders else None
        if refusal is None or (not staged.whole and refusal.reason in OF_THE_VALUE):
            return
        await self._ask(orders)  # refuses them, and journals that

    async def _when_settled(self, target: _Target, pending: _Pending) -> None:
        loop = asyncio.get_running_loop()
        while (left := pending.until - loop.time()) > 0:
            await asyncio.sleep(left)
        if self._pending.get(target) is pending:
            await self._leave(target)

    async def _leave(self, target: _Target, *, whole: bool = False, answers: bool = False) -> None:
        """Make commands of what has settled; `answers`: somebody waits for what becomes of it.

        Raises WriteRefusedError only with `answers`.
        """
        pending = self._pending.pop(target, None)
        if pending is None:
            return
        if pending.task is not None and pending.task is not asyncio.current_task():
            pending.task.cancel()  # it only waits
        controls, log = target.controls, self._log.bind(device=target.serial, map=target.map)
        due, dropped = controls.due(whole=whole)
        target.show()
        for why in dropped:
            log.warning("writes are dropped, they ask for nothing there is", why=why)
        for part in due:
            await self._leave_part(target, pending, part, answers=answers)

    async def _leave_part(self, target: _Target, pending: _Pending, due: Due, *, answers: bool) -> None:
        """Do that for one model. Raises WriteRefusedError only with `answers`."""
        controls, log = target.controls, self._log.bind(device=target.serial, map=target.map)
        ids: dict[str, str] = {}
        ended = False

        def end(*, taken: bool) -> None:
            nonlocal ended
            if not ended:
                ended = True
                if taken:
                    controls.taken(due.model)
                else:
                    controls.dropped(due.model, ids)
                target.show()

        try:
            orders = self._orders(target.serial, pending.who, due.requests)
            orders = self._not_overtaken(orders, pending.written)
            if due.requests and not orders:
                end(taken=False)
                return
            ids |= {order.whole.setpoint: order.whole.id for order in orders}
            controls.leaves(ids)
            await self._execute(orders, pending.written, partial(end, taken=True), waits=answers)
        except WriteRefusedError as error:
            end(taken=error.accepted)
            if answers:
                raise
            log.warning("writes are dropped, they were refused", why=str(error))
        except asyncio.CancelledError:
            end(taken=True)  # what was submitted goes on without us
            raise
        except Exception:
            end(taken=False)
            if answers:
                raise
            log.exception("writes are dropped")

    def _not_overtaken(self, orders: Sequence[_Order], written: float) -> list[_Order]:
        """Leave out what was ordered anew while it settled or waited: an older order must not undo a newer one."""
        newest = dict(self._given)
        for lane, at in self._submitted.values():
            newest[lane] = max(at, newest.get(lane, at))
        found, overtaken = [], []
        for order in orders:
            parts = [part for part in order.parts if newest.get(_lane(part), written) <= written]
            overtaken += [part for part in order.parts if part not in parts]
            if parts:
                found.append(order._replace(parts=parts))
        for part in overtaken:
            self._log.info(
                "a write is dropped: meanwhile its setpoint was set anew",
                device=part.serial, setpoint=part.setpoint, client=str(part.origin),
            )  # fmt: skip
        return found

    async def _execute(
        self, orders: Sequence[_Order], written: float, taken: Callable[[], None] | None = None, *, waits: bool = True
    ) -> None:
        """Submit commands, and wait for their ends where that is wanted. Raises WriteRefusedError."""
        commands = _commands(orders)
        ends = self._expect(commands) if waits else []
        try:
            if orders:
                self._submitted |= {command.id: (_lane(command), written) for command in commands}
                await self._ask(orders)
            if taken is not None:
                taken()
            if ends:
                await self._await_ends(ends)
        except Exception as error:
            if not (isinstance(error, WriteRefusedError) and error.accepted):
                for command in commands:
                    self._submitted.pop(command.id, None)
            raise
        finally:
            for command in commands:
                self._ends.pop(command.id, None)

    def note(self, event: CommandEvent) -> None:
        """Take in a step of any command."""
        _, given = self._submitted.pop(event.command.id, ("", None))
        # What the gateway renews or takes back by itself is no news of what somebody wants.
        if event.state is CommandState.ACCEPTED and not (event.command.is_revert or event.command.origin == GATEWAY):
            if given is None:
                given = self._clock.monotonic() - max(0.0, (self._clock.now() - event.time).total_seconds())
            lane = _lane(event.command)
            self._given[lane] = max(given, self._given.get(lane, given))
        end = self._ends.get(event.command.id)
        if end is not None and event.state.final and not end.done():
            end.set_result(event)

    def done(self, command_id: str) -> None:
        """Take in that the far side says a command is done, while a read-back is waited for.

        That answers a write: it asks whether the cloud has done it, and polling may take longer than a client waits.
        """
        end = self._ends.get(command_id)
        if end is not None and not end.done():
            end.set_result(None)

    def _orders(self, serial: str, who: Origin, wanted: Sequence[SetpointRequest]) -> list[_Order]:
        """Return what is to be submitted. Raises WriteRefusedError where it can't be shared out."""
        along = frozenset(request.setpoint for request in wanted)
        orders = []
        for request in wanted:
            parts = [self._command(taker, who, part) for taker, part in self._share(serial, request, along)]
            mine = parts[0].serial == serial
            # A plant's own command has no timer: those of its inverters have.
            whole = parts[0] if mine else self._command(serial, who, request._replace(revert_after=None))
            orders.append(_Order(whole, parts))
        return orders

    def _command(self, serial: str, who: Origin, request: SetpointRequest) -> Command:
        now = self._clock.now()
        return Command(
            id=new_command_id(),
            serial=serial,
            setpoint=request.setpoint,
            value=request.value,
            origin=who,
            created=now,
            expires=now + self._ttl,
            revert_after=request.revert_after,
            revert_value=request.revert_value,
        )

    def _expect(self, commands: Sequence[Command]) -> list[asyncio.Future[CommandEvent | None]]:
        if self._wait is None:
            return []
        ends = [asyncio.get_running_loop().create_future() for _ in commands]
        self._ends.update(zip((command.id for command in commands), ends, strict=True))
        return ends

    async def _await_ends(self, ends: Sequence[asyncio.Future[CommandEvent | None]]) -> None:
        """Return when all have succeeded. Raises WriteRefusedError."""
        ended, waiting = await asyncio.wait(ends, timeout=self._wait)
        events = [event for end in ended if (event := end.result()) is not None and event.state in ENDINGS]
        if events:  # of a plant's inverters, the worst one speaks
            end = worst(events)
            raise WriteRefusedError(ENDINGS[end.state], end.detail or end.state.value, accepted=True)
        if waiting:
            raise WriteRefusedError(
                ExceptionCode.ACKNOWLEDGE, f"accepted, and not done after {self._wait:g} s", accepted=True
            )

    async def _ask(self, orders: Sequence[_Order]) -> None:
        """Submit commands: all of them, or none. Raises WriteRefusedError."""
        for order in orders:
            if order.whole is not order.parts[0]:
                self._join(*order)
        events = await self._submit(*_commands(orders))
        rejected = [event for event in events if event.state is CommandState.REJECTED]
        if rejected:
            culprit = worst(rejected)
            code = REFUSALS.get(culprit.reason or Reason.BAD_REQUEST, ExceptionCode.SERVER_DEVICE_FAILURE)
            raise WriteRefusedError(code, culprit.detail)


def _lane(command: Command) -> _Lane:
    return command.serial, SETPOINTS[command.setpoint].group or command.setpoint


def _commands(orders: Sequence[_Order]) -> list[Command]:
    return [part for order in orders for part in order.parts]
