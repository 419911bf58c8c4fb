"""What can be made to go wrong."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from starlette.responses import HTMLResponse, Response

from gateway.sems.catalogue import Catalogue, SemsError
from gateway.simulator.controls import Obedience
from gateway.simulator.requests import code_of

JSON: Final = "application/json; charset=utf-8"
_PAGE: Final = "<!DOCTYPE html><html><head><title>SEMS Portal</title></head><body>Please wait…</body></html>"
_ERROR_PAGE: Final = "<html><body><h1>Server Error</h1></body></html>"


class Spoil(StrEnum):
    """What becomes of an answer."""

    HTTP_500 = "http_500"
    HTTP_503 = "http_503"
    HTTP_429 = "http_429"
    HTML = "html"
    """A web page, with HTTP 200."""
    TRUNCATED = "truncated"
    EMPTY = "empty"
    NULL_DATA = "null_data"
    """Success without data, with HTTP 200."""
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - the name of a fault
    RATE_LIMITED = "rate_limited"


def _refused(catalogue: Catalogue, error: SemsError) -> Response:
    envelope = {"code": code_of(catalogue, error), "msg": error.value, "data": None}
    return Response(msgspec.json.encode(envelope), media_type=JSON)


SPOILT: Final[Mapping[Spoil, Callable[[bytes, Catalogue], Response]]] = {
    Spoil.HTTP_500: lambda _, __: HTMLResponse(_ERROR_PAGE, 500),
    Spoil.HTTP_503: lambda _, __: HTMLResponse(_ERROR_PAGE, 503),
    Spoil.HTTP_429: lambda _, __: HTMLResponse(_ERROR_PAGE, 429, headers={"Retry-After": "60"}),
    Spoil.HTML: lambda _, __: HTMLResponse(_PAGE),
    Spoil.TRUNCATED: lambda body, _: Response(body[: len(body) // 2], media_type=JSON),
    Spoil.EMPTY: lambda _, __: Response(b"", media_type=JSON),
    Spoil.NULL_DATA: lambda _, __: Response(b'{"code":0,"msg":"success","data":null}', media_type=JSON),
    Spoil.TOKEN_EXPIRED: lambda _, catalogue: _refused(catalogue, SemsError.TOKEN_EXPIRED),
    Spoil.RATE_LIMITED: lambda _, catalogue: _refused(catalogue, SemsError.RATE_LIMITED),
}
"""Fault → the answer, given the body that would have been."""

Delay = Annotated[float, msgspec.Meta(ge=0, le=3600)]


class AnswerFault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How answers are spoilt."""

    answer: Spoil
    interfaces: tuple[str, ...] = ()
    """Names of those it concerns; empty for all."""
    times: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """How many answers; None: until told otherwise."""
    executed: bool = False
    """Whether the call is carried out all the same, and only its answer lost."""

    def concerns(self, interface: str) -> bool:
        """Return whether it spoils this answer, and count it."""
        if self.times == 0 or (self.interfaces and interface not in self.interfaces):
            return False
        if self.times is not None:
            self.times -= 1
        return True


class DeviceFault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is the matter with a device; a field left out stays as it is."""

    offline: bool | None = None
    """The cloud does not hear it: status -1, its last values, and commands fail."""
    tripped: bool | None = None
    """It stands still with a fault code: status 2."""
    obedience: Obedience | None = None


class FaultOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to go wrong from now on; a field left out stays as it is."""

    clear: bool = False
    """First make everything well again."""
    devices: Mapping[str, DeviceFault] = {}
    """By serial number."""
    answers: tuple[AnswerFault, ...] | None = None
    """The first that concerns a call spoils its answer. An empty list ends it."""
    answer_delay: Delay | None = None
    """Seconds before each answer."""
    device_delay: Delay | None = None
    """Seconds until devices obey; from the next command on."""
    refuse_logins: bool | None = None
    revoke_tokens: bool = False
