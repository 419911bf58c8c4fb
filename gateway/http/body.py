"""Reads the body of a request, so much and so long and no more."""

import asyncio

from starlette.requests import ClientDisconnect, Request


class BodyError(Exception):
    """The body was not read. The text is for the sender."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


async def read_body(request: Request, most: int, timeout: float) -> bytes:
    """Return a body of at most `most` bytes that comes within `timeout` seconds. Raises BodyError."""
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > most:
        raise too_large(most)
    raw = bytearray()
    try:
        async with asyncio.timeout(timeout):
            async for chunk in request.stream():
                raw += chunk
                if len(raw) > most:
                    raise too_large(most)
    except TimeoutError:
        raise BodyError(408, f"the body took longer than {timeout:g} s") from None
    except ClientDisconnect:
        raise BodyError(400, "the body was cut off") from None
    return bytes(raw)


def too_large(most: int) -> BodyError:
    """Return what is said of a body of more than `most` bytes."""
    return BodyError(413, f"more than {most} bytes; send it in parts")
