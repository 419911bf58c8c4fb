"""Answers in JSON."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.responses import Response

_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] = {}) -> Response:
    """Return an answer that nobody keeps, and no browser takes for anything else."""
    return Response(msgspec.json.encode(body), status, {**_HEADERS, **headers}, "application/json")
