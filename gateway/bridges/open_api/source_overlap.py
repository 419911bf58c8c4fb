"""Which devices another bridge brings fresh data of: those need not be asked about as often."""

import heapq
from collections.abc import Collection
from datetime import datetime
from math import inf

from gateway.api.bridge import Context
from gateway.sems.plants import Plants


class SourceOverlap:
    """Devices whose data come from elsewhere."""

    def __init__(self, context: Context, plants: Plants) -> None:
        self._context = context
        self._plants = plants
        self._seen: dict[str, str] = {}
        """Serial → the other bridge that was seen to bring its data."""
        self._fresh: dict[str, datetime] = {}
        """Serial → until when data are fresh that another bridge brings."""
        self._until: list[tuple[datetime, str]] = []

    @property
    def serials(self) -> Collection[str]:
        """Serials of the devices that another bridge brings fresh data of."""
        return self._fresh.keys()

    def look(self, serial: str) -> bool:
        """Find out whether another bridge brings a device's data; True where that is news.

        Two accounts that both poll a device would wait for each other. So of bridges of one type the first by name
        goes on.
        """
        me = self._context.name
        state = self._context.state(serial)
        if state is not None and state.source != me:
            self._seen[serial] = state.source
        other = self._seen.get(serial)
        if other is None or serial in self._fresh:
            return False
        until = self._context.heard_elsewhere(serial)
        if until is None:
            del self._seen[serial]
            return False
        types = {status.name: status.type for status in self._context.bridges()}
        if types.get(other) == types.get(me) and other > me:
            return False
        self._fresh[serial] = until
        heapq.heappush(self._until, (until, serial))
        return True

    def look_for_silence(self) -> bool:
        """Find devices whose data come no more; True where there are some."""
        now, found = self._context.clock.now(), False
        while self._until and self._until[0][0] <= now:
            _, serial = heapq.heappop(self._until)
            until = self._context.heard_elsewhere(serial) if self._plants.get(serial) else None
            if until is None or until <= now:
                self._fresh.pop(serial, None)
                self._seen.pop(serial, None)
                found = True
            else:
                self._fresh[serial] = until
                heapq.heappush(self._until, (until, serial))
        return found

    def next_look(self) -> float:
        """Return the seconds until the next data may turn out to have stopped."""
        if not self._until:
            return inf
        return max(0.0, (self._until[0][0] - self._context.clock.now()).total_seconds())
