"""Answers a request for a device's past: what it means, who has it, and the pages."""

from collections.abc import AsyncGenerator
from datetime import UTC, date, datetime, timedelta, tzinfo
from difflib import get_close_matches

from gateway.api.bridge import HistoryProvider
from gateway.api.contexts import SinkContext
from gateway.bridges.local.protocol import (
    Failed,
    History,
    HistoryEnd,
    HistoryPage,
    HistoryPlanned,
    HistoryWait,
    Refused,
    Reply,
)
from gateway.core.errors import GatewayError, RefusedError
from gateway.core.model import Device, Page, iso
from gateway.core.zones import zone_named


class BadRequestError(Exception):
    """The request can't be answered. The message says what to ask instead."""


async def answer(context: SinkContext, request: History) -> AsyncGenerator[Reply, None]:
    """Yield an outline, pages and pauses, and the end; or how it failed."""
    try:
        device = _device(context, request.serial)
        history_provider = _history_provider(context, device)
        start, end = _period(request, _zone(context, device), context.clock.now())
        if request.since is not None:
            start = max(start, request.since)
        history_plan = history_provider.history_plan(device.serial, start, end, request.resolution)
    except (BadRequestError, RefusedError) as error:
        yield Refused(str(error))
        return
    yield HistoryPlanned(history_plan)
    try:
        async for part in history_provider.history(device.serial, start, end, request.resolution):
            yield HistoryPage(part) if isinstance(part, Page) else HistoryWait(part)
    except GatewayError as error:
        yield Failed(str(error))
        return
    yield HistoryEnd()


def _device(context: SinkContext, serial: str) -> Device:
    state = context.state(serial)
    if state is not None:
        return state.device
    known = [state.device.serial for state in context.announced()]
    near = get_close_matches(serial, known, 3)
    if near:
        hint = f"the nearest: {', '.join(near)}"
    elif known:
        hint = "`sems-gateway devices` lists those there are"
    else:
        down = [f"{status.name} is down: {status.detail}" for status in context.bridges() if not status.up]
        hint = "none is known yet" + "".join(f"; {line}" for line in down)
    raise BadRequestError(f"there is no device {serial!r}; {hint}")


def _history_provider(context: SinkContext, device: Device) -> HistoryProvider:
    history_provider = context.history_provider(device.serial)
    if history_provider is not None:
        return history_provider
    kinds = sorted(
        {state.device.kind for state in context.announced() if context.history_provider(state.device.serial)}
    )
    which = f"; there is one of: {', '.join(kinds).replace('_', ' ')}" if kinds else ""
    raise BadRequestError(f"there is no history of {device.serial} ({device.kind.replace('_', ' ')}){which}")


def _zone(context: SinkContext, device: Device) -> tzinfo:
    """Return the zone that the device's dates are in."""
    plant = context.state(device.plant)
    return zone_named(device.time_zone or (plant.device.time_zone if plant is not None else "")) or UTC


def _period(request: History, zone: tzinfo, now: datetime) -> tuple[datetime, datetime]:
    """Return what is asked for, UTC; not past now."""
    start = _moment("--from", request.start, zone, timedelta())
    end = _moment("--to", request.end, zone, timedelta(days=1))
    if start >= end:
        raise BadRequestError(f"--from {request.start} is not before --to {request.end}")
    today = now.astimezone(zone).date()
    if start > now or end > _midnight(today + timedelta(days=1), zone):
        which = f"--from {request.start}" if start > now else f"--to {request.end}"
        raise BadRequestError(f"{which} is in the future; where the plant is, it is {today}, {iso(now)}")
    return start, min(end, now)


def _moment(option: str, text: str, zone: tzinfo, of_a_date: timedelta) -> datetime:
    """Read a local date, `of_a_date` added, or an RFC 3339 time."""
    try:
        if len(text) == len("2026-06-21"):
            return _midnight(date.fromisoformat(text) + of_a_date, zone)
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise BadRequestError(f"{option} {text!r} is no date like 2026-06-21, and no time like 2026-06-21T04:00:00Z")


def _midnight(day: date, zone: tzinfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
