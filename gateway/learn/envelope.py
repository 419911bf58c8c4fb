"""How answers are wrapped: what the code and the data are called, and which code means success."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from gateway.learn.names import squeezed
from gateway.sems.catalogue import Catalogue, Envelope, Json, Use
from gateway.sems.reasons import code_of, reason_of
from gateway.sems.recording import Answer

ALIKE: Final = 3
"""So many answers, of two interfaces or more, have to be wrapped alike."""
CODES: Final = frozenset(
    {"code", "resultcode", "returncode", "retcode", "errorcode", "errcode", "statuscode", "ret", "status"}
)
"""What the code may be called."""


class Wrapping(msgspec.Struct, frozen=True):
    """What was found of it."""

    envelope: Envelope
    good: tuple[Answer, ...]
    """The answers that are a success."""
    refused: Mapping[str, str]
    """Interface → what was said, of those that never succeeded."""
    overrides: Mapping[str, Json]
    evidence: Mapping[str, str]


def unwrap(catalogue: Catalogue, answers: Sequence[Answer]) -> Wrapping:
    """Return which answers are a success, and how they are wrapped."""
    good: list[Answer] = []
    refused: dict[str, str] = {}
    bare = {interface.name for interface in catalogue.interfaces if interface.bare or interface.use is Use.LOGIN}
    wrapped = [answer for answer in answers if answer.interface not in bare]
    envelope, success, overrides = _found(catalogue, wrapped)
    for answer in wrapped:
        body = answer.body
        if isinstance(body, dict) and code_of(body, envelope.code) in success:
            good.append(answer)
        elif isinstance(body, dict):
            refused.setdefault(answer.interface, f"{code_of(body, envelope.code)} {reason_of(body)}".strip())
        else:
            refused.setdefault(answer.interface, f"HTTP {answer.status}, and no JSON")
    for answer in good:
        refused.pop(answer.interface, None)
    evidence = {key: f"{len(good)} answers with something in them are wrapped so" for key in overrides}
    return Wrapping(envelope, tuple(good), refused, overrides, evidence)


def _found(catalogue: Catalogue, answers: Sequence[Answer]) -> tuple[Envelope, tuple[str, ...], dict[str, Json]]:
    """Return how answers are wrapped, which codes are a success, and what `overrides` have to say of it."""
    usual = catalogue.envelope
    bodies = [(answer.interface, answer.body) for answer in answers if isinstance(answer.body, dict)]
    if any(code_of(body, usual.code) in catalogue.success for _, body in bodies):
        return usual, catalogue.success, {}
    data = _only(
        [
            (name, key)
            for name, body in bodies
            for key, value in body.items()
            if isinstance(value, (dict, list)) and value
        ]
    )
    full = [(name, body) for name, body in bodies if data is not None and body.get(data)]
    codes = [(name, key) for name, body in full for key in body if squeezed(key) in CODES and code_of(body, key)]
    key = usual.code if all(usual.code in body for _, body in full) else _only(codes)
    if data is None or key is None:
        return usual, catalogue.success, {}
    code = _only([(name, code_of(body, key)) for name, body in full])
    if code is None or (code not in catalogue.success and catalogue.error_of(code) is not None):
        return usual, catalogue.success, {}
    envelope = Envelope(key, data)
    overrides: dict[str, Json] = {}
    if envelope != usual:
        overrides["envelope"] = {"code": key, "data": data}
    if code not in catalogue.success:
        overrides["success"] = [code, *catalogue.success]
    return envelope, (code, *catalogue.success), overrides


def _only(said: Sequence[tuple[str, str]]) -> str | None:
    """Return the one thing that answers of several interfaces have; None where they have several, or too few."""
    counts = Counter(one for _, one in said)
    if len(counts) != 1:
        return None
    ((one, count),) = counts.items()
    return one if count >= ALIKE and len({name for name, _ in said}) > 1 else None
