"""librdkafka's own log. It tells each of its tries, so it is for debugging; `Health` says once what matters."""

from typing import Any, Final

import structlog


class RdLog:
    """What librdkafka's bindings take for a logger."""

    def __init__(self, log: structlog.stdlib.BoundLogger, client: str) -> None:
        self._log = log
        self._client = client

    def log(self, _level: int, text: str, *args: Any) -> None:
        """Take a line; called in the thread that polls."""
        self._log.debug("librdkafka", client=self._client, text=text % args if args else text)


class _Nowhere:
    def log(self, *_: Any) -> None:
        """Take a line, and drop it."""


NO_LOG: Final = _Nowhere()
