"""Whether the Kafka clients of a bridge do their work: one line when a trouble begins, one when it is over."""

from collections import Counter
from collections.abc import Iterable
from typing import Final, Protocol

from gateway.core.metrics import Metrics, counter

CONNECTION: Final = ""
"""The subject of troubles with the cluster as a whole."""


class Report(Protocol):
    """`Context.report`."""

    def __call__(self, *, up: bool | None, detail: str = "") -> None:
        """See `Context.report`."""
        ...


class Health:
    """Adds up what the clients say, and reports it when it changes."""

    def __init__(self, report: Report) -> None:
        self.counts: Counter[str] = Counter()
        """Kind of trouble → how often it was met."""
        self._report = report
        self._connected: dict[str, bool] = {}
        self._open: dict[tuple[str, str], str] = {}

    def expect(self, client: str) -> None:
        """Be down until this client is connected."""
        self._connected.setdefault(client, False)
        self._tell()

    def connected(self, client: str) -> None:
        """Take in that a client has a connection."""
        if not self._connected.get(client) or (client, CONNECTION) in self._open:
            self._connected[client] = True
            self._open.pop((client, CONNECTION), None)
            self._tell()

    def met(self, client: str, kind: str, text: str, subject: str = CONNECTION) -> None:
        """Take in that a client has a trouble, with the cluster or with one of its topics."""
        self.counts[kind] += 1
        known = self._open.get((client, subject))
        # A login that fails is followed by words about a connection that was lost, which say less.
        if known is None or (kind != "away" and known != text):
            self._open[client, subject] = text
            self._tell()

    def well(self, client: str, subject: str) -> None:
        """Take in that a client has no trouble with this topic any more."""
        if self._open.pop((client, subject), None) is not None:
            self._tell()

    def forget(self, clients: Iterable[str]) -> None:
        """Take in that these clients are no more."""
        for client in clients:
            self._connected.pop(client, None)
            for key in [key for key in self._open if key[0] == client]:
                del self._open[key]

    def trouble(self, client: str, *subjects: str) -> str:
        """Return what is the matter with a client's connection or these topics of it; "" where nothing is."""
        if not self._open:  # as nearly always, and each command asks
            return ""
        found = (self._open.get((client, subject)) for subject in (CONNECTION, *subjects))
        return next((text for text in found if text), "")

    def _tell(self) -> None:
        if self._open:
            self._report(up=False, detail="; ".join(dict.fromkeys(self._open.values())))
        elif all(self._connected.values()):
            self._report(up=True)
        else:
            self._report(up=None, detail="connecting to the Kafka cluster")


TROUBLES: Final = Metrics[Health](
    counter("sems_gateway_kafka_troubles", "errors, by kind", lambda health: health.counts, "kind"),
)
