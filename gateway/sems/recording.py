"""A recording of what SEMS answered: JSON lines, of which the first says what it is and each further one is an answer.

    {"sems_recording": 1, "api": "open_api", "made": "2026-06-21T12:00:00Z", "gateway": "1.0.0"}
    {"interface": "GetInverterBySN", "args": {"invertersn": "…"}, "time": "…Z", "status": 200, "body": {…}}

`args` are the request's fields as they were sent. `body` is the whole answer with its envelope, or text where it is no
JSON. Who writes one replaces what shows whose plant it is; see `gateway.learn.pseudonyms`.
"""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, Any, Final, Self

import msgspec

VERSION: Final = 1
APIS: Final = ("open_api", "developer", "realtime")
MAX_BYTES: Final = 256 * 1024 * 1024
MAX_LINE: Final = 16 * 1024 * 1024
MAX_ANSWERS: Final = 20_000
"""More than any `learn` makes; what is beyond makes the file refused, for it is none of ours."""

Aware = Annotated[datetime, msgspec.Meta(tz=True)]


class RecordingError(Exception):
    """A recording that can't be read, or not be written. The message names file and line, and what to do."""


class Answer(msgspec.Struct, frozen=True):
    """One answer of SEMS."""

    interface: str
    """By its name in the catalogue."""
    args: Mapping[str, Any]
    """The request's fields as they were sent: JSON."""
    time: Aware
    """When it came, UTC."""
    status: int
    """Of HTTP."""
    body: Any
    """All of it, with its envelope: JSON, or text where it is none."""


class Recording(msgspec.Struct, frozen=True):
    """What a file holds."""

    api: str
    """Name of the catalogue."""
    made: Aware
    gateway: str
    """Version of the gateway that made it."""
    answers: tuple[Answer, ...]
    """In the order they came."""


class _Head(msgspec.Struct, frozen=True):
    sems_recording: int
    api: str
    made: Aware
    gateway: str


def read(path: Path) -> Recording:
    """Return what a file holds. Raises RecordingError."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise RecordingError(f"{path} is longer than {MAX_BYTES >> 20} MiB; record fewer plants")
            return _read(path, file)
    except FileNotFoundError:
        raise RecordingError(f"there is no file {path}; make one with `sems-gateway learn CONFIG --record`") from None
    except OSError as error:
        raise RecordingError(f"{path} can't be read: {error.strerror}") from error


def _read(path: Path, file: IO[bytes]) -> Recording:
    head = _head(path, file.readline(MAX_LINE))
    answers: list[Answer] = []
    number = 1
    while line := file.readline(MAX_LINE):
        number += 1
        if not line.strip():
            continue
        if len(answers) == MAX_ANSWERS:
            raise RecordingError(f"{path}:{number}: there are more than {MAX_ANSWERS} answers; take the rest out")
        try:
            answers.append(msgspec.json.decode(line, type=Answer))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RecordingError(f"{path}:{number}: this is no answer ({error}); take the line out") from None
    return Recording(head.api, head.made, head.gateway, tuple(answers))


def _head(path: Path, line: bytes) -> _Head:
    try:
        head = msgspec.json.decode(line, type=_Head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise RecordingError(
            f'{path}:1: this is no recording: the first line is to be {{"sems_recording": {VERSION}, "api": …}}; make '
            "one with `sems-gateway learn CONFIG --record`"
        ) from None
    if head.sems_recording != VERSION:
        raise RecordingError(
            f"{path}:1: this is a recording of version {head.sems_recording}, and {VERSION} is known; use the gateway "
            f"that made it ({head.gateway[:20]})"
        )
    if head.api not in APIS:
        raise RecordingError(f"{path}:1: there is no API {head.api[:40]!r}; known: {', '.join(APIS)}")
    return head


class Writer:
    """Writes a recording, answer by answer. What is there of one already is replaced when the first line is written."""

    def __init__(self, path: Path, api: str, made: datetime, gateway: str) -> None:
        self._path = path
        self._head = _Head(VERSION, api, made, gateway)
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError as error:
            raise RecordingError(f"{self._path} can't be written: {error.strerror}") from error
        self._file = os.fdopen(descriptor, "wb")
        self._line(self._head)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def write(self, answer: Answer) -> None:
        """Add an answer. Raises RecordingError."""
        self._line(answer)

    def _line(self, line: msgspec.Struct) -> None:
        if self._file is None:
            raise RecordingError(f"{self._path} is not open")
        try:
            self._file.write(msgspec.json.encode(line) + b"\n")
            self._file.flush()
        except OSError as error:
            raise RecordingError(f"{self._path} can't be written: {error.strerror}") from error
