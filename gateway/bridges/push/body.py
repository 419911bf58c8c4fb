"""From a request to the objects in its body, however it is packed. Everything is bounded."""

import codecs
import re
import zlib
from contextlib import suppress
from typing import Final, cast

import msgspec
from starlette.requests import Request

from gateway.bridges.push.refusal import RefusalError
from gateway.http.body import BodyError, read_body, too_large
from gateway.sems.catalogue import Json
from gateway.sems.pushed import Outcome

TYPES: Final = ("application/json", "text/json")
"""Nothing public says which one GoodWe sends. Text and none at all are what a web page can have a browser send."""
PLAIN: Final = frozenset({"", "identity"})
CONTAINERS: Final = {"gzip": (31,), "x-gzip": (31,), "deflate": (15, -15)}
"""Content coding → zlib's numbers for it, in the order they are tried (RFC 9110, 8.4.1).

`deflate` is the zlib format; many send the bare one instead, and the RFC names both.
"""
MAX_GZIP_MEMBERS: Final = 100
"""Parts of one gzip body, one after another (RFC 1952, 2.2)."""
CHARSETS: Final = {
    "utf-16": "utf-16",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
    "utf-32": "utf-32",
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
    "windows-1252": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "gb18030": "gb18030",
}
"""`charset` of a sender → codec. Only what is not UTF-8 is read by it, for JSON is UTF-8 (RFC 8259, 8.1)."""
_MARKS: Final = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
"""Byte order marks, which a reader may pass over (RFC 8259, 8.1)."""
GZIP_MAGIC: Final = b"\x1f\x8b"
_CHARSET: Final = re.compile(r";\s*charset\s*=\s*[\"']?([a-z0-9_.:-]+)")
READ_TIMEOUT: Final = 30.0
"""Seconds that a sender has for a body."""


def takes(media_type: str) -> bool:
    """Return whether a body of this type is taken for JSON."""
    return media_type in TYPES or media_type.endswith("+json")


async def read(request: Request, max_bytes: int) -> bytes:
    """Return the body of a request, unpacked, in UTF-8. Raises RefusalError."""
    codings = [name.strip().lower() for name in request.headers.get("content-encoding", "").split(",")]
    packed = [name for name in codings if name not in PLAIN]
    if len(packed) > 1 or not CONTAINERS.keys() >= set(packed):
        raise RefusalError(415, "send it plain, or packed once by gzip or deflate", Outcome.BAD)
    raw = await _read(request, max_bytes)
    for name in packed:
        raw = _unpacked(raw, name, max_bytes)
    return _in_utf8(raw, request.headers.get("content-type", ""))


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


def _unpacked(raw: bytes, name: str, max_bytes: int) -> bytes:
    """Unpack a body. Raises RefusalError."""
    first, *others = CONTAINERS[name]
    for window in others:
        with suppress(zlib.error):
            zlib.decompressobj(first).decompress(raw, 1)
            break
        first = window
    parts: list[bytes] = []
    left = max_bytes
    for _ in range(MAX_GZIP_MEMBERS):
        unpacker = zlib.decompressobj(first)
        try:
            parts.append(unpacker.decompress(raw, left + 1))
        except zlib.error as error:
            raise RefusalError(422, f"this is no {name}: {error}", Outcome.BAD) from error
        left -= len(parts[-1])
        if left < 0:
            raise _refusal(too_large(max_bytes))
        raw = unpacker.unused_data.lstrip(b"\0")  # what fills up a block, as gzip itself has it
        if not unpacker.eof or (raw and not raw.startswith(GZIP_MAGIC)):
            raise RefusalError(422, f"the {name} data are cut off, or something follows them", Outcome.BAD)
        if not raw:
            return b"".join(parts)
    raise RefusalError(422, f"the {name} data have more than {MAX_GZIP_MEMBERS} parts", Outcome.BAD)


def _in_utf8(raw: bytes, content_type: str) -> bytes:
    """Return a text in UTF-8 without a byte order mark; as it is where nothing tells what it is written in."""
    charset = next((codec for mark, codec in _MARKS if raw.startswith(mark)), "")
    if not charset:
        try:
            raw.decode()
        except UnicodeDecodeError:
            found = _CHARSET.search(content_type.lower())
            charset = CHARSETS.get(found[1], "") if found else ""
        else:
            if b"\0" not in raw[:2]:
                return raw
            charset = "utf-16-be" if raw[:1] == b"\0" else "utf-16-le"
    try:
        return raw.decode(charset).encode() if charset else raw
    except UnicodeError as error:
        raise RefusalError(422, f"it can't be read as {charset}: {error}"[:200], Outcome.BAD) from error


def _refusal(error: BodyError) -> RefusalError:
    return RefusalError(error.status, str(error), Outcome.TOO_LARGE if error.status == 413 else Outcome.BAD)
