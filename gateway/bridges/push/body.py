"""From a request to the objects in its body, however it is packed. Everything is bounded."""

import zlib
from typing import Final, cast

import msgspec
from starlette.requests import Request

from gateway.bridges.push.refusal import RefusalError
from gateway.http_body import BodyError, read_body, too_large
from gateway.sems.catalogue import Json
from gateway.sems.pushed import Outcome

TYPES: Final = ("", "application/json", "text/json", "text/plain")
"""Content types that are taken for JSON. Nothing public says which one GoodWe sends."""
ENCODINGS: Final = ("", "identity", "gzip")
READ_TIMEOUT: Final = 30.0
"""Seconds that a sender has for a body."""
GZIP: Final = 31
"""zlib's word for gzip, and nothing else."""


async def read(request: Request, max_bytes: int) -> bytes:
    """Return the body of a request, unpacked. Raises RefusalError."""
    content = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    packing = request.headers.get("content-encoding", "").strip().lower()
    if content not in TYPES and not content.endswith("+json"):
        raise RefusalError(415, "send JSON, as application/json", Outcome.BAD)
    if packing not in ENCODINGS:
        raise RefusalError(415, "send it plain, or packed by gzip", Outcome.BAD)
    raw = await _read(request, max_bytes)
    return _unpacked(raw, max_bytes) if packing == "gzip" else raw


def objects(raw: bytes) -> list[Json]:
    """Return what a body holds: the items of its list, or the one object. Raises RefusalError."""
    try:
        data = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusalError(422, f"this is no JSON: {error}", Outcome.BAD) from error
    found = cast("list[Json]", data if isinstance(data, list) else [data])
    if not found:
        raise RefusalError(422, "the list is empty", Outcome.BAD)
    return found


async def _read(request: Request, max_bytes: int) -> bytes:
    try:
        return await read_body(request, max_bytes, READ_TIMEOUT)
    except BodyError as error:
        raise _refusal(error) from None


def _unpacked(raw: bytes, max_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(GZIP)
    try:
        data = unpacker.decompress(raw, max_bytes + 1)
    except zlib.error as error:
        raise RefusalError(422, f"this is no gzip: {error}", Outcome.BAD) from error
    if len(data) > max_bytes:
        raise _refusal(too_large(max_bytes))
    if not unpacker.eof or unpacker.unused_data:
        raise RefusalError(422, "the gzip data are cut off, or something follows them", Outcome.BAD)
    return data


def _refusal(error: BodyError) -> RefusalError:
    return RefusalError(error.status, str(error), Outcome.TOO_LARGE if error.status == 413 else Outcome.BAD)
