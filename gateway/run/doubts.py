"""What a configuration may have and hardly means: told by `check` and at each start, with what to write instead.

And what a check of each bridge alone can't see: two that want the same port, variables that set nothing.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any, Final

from pydantic import BaseModel, HttpUrl, SecretStr

from gateway.api.bridge import BridgeSettings
from gateway.config.document import Document, Problem, dotted, nearest
from gateway.http.addresses import is_loopback

Path = tuple[str | int, ...]

PLACEHOLDER: Final = re.compile(
    r"^(change[-_ ]?me|your[-_ ].*|<.*>|xxx+|\.\.\.)$|(^|[@.])example\.(com|org|net)(:\d+)?$", re.IGNORECASE
)
"""What examples have in place of a user's own. RFC 2606 keeps the example domains for it."""
_VARIABLE: Final = re.compile(r"^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$")
_CUT_SHORT: Final = re.compile(r""":\s+[^\s'"{\[#][^'"]*?\s#[^\s#]""")
"""A value without quotes, and what stands behind a `#` right after it: YAML takes that for a comment."""


def variables(prefix: str) -> dict[Path, str]:
    """Return which variables of the environment set something: path of keys → name."""
    begin = prefix.lower()
    return {
        tuple(name.lower().removeprefix(begin).split("__")): name
        for name in os.environ
        if name.lower().startswith(begin)
    }


def unknown_variables(set_by: Mapping[Path, str], sections: Iterable[str]) -> list[Problem]:
    """Find variables that name no section. One without `__` may be another program's."""
    known = list(sections)
    return [
        Problem(0, "", f"there is no section {path[0]!r}; {nearest(str(path[0]), known)}", variable=name)
        for path, name in set_by.items()
        if len(path) > 1 and path[0] not in known
    ]


def blamed(problem: Problem, document: Document, set_by: Mapping[Path, str]) -> Problem:
    """Return a problem as that of the variable which has set the value, where one has."""
    if problem.variable:
        return problem
    for path, name in sorted(set_by.items(), key=lambda item: -len(item[0])):
        has_set = re.match(rf"{re.escape(dotted(path))}($|[.\[])", problem.where)
        has_made = dotted(path).startswith(f"{problem.where}.") and not document.has(problem.where)
        if has_set or has_made:
            return Problem(0, problem.where, problem.text, variable=name)
    return problem


def unreplaced(document: Document, raw: object, path: Path = ()) -> Iterator[Problem]:
    """Find texts like `${NAME}`, which other programs replace."""
    match raw:
        case str() if found := _VARIABLE.match(raw):
            yield Problem(
                document.line(path),
                dotted(path),
                f"{raw} is not replaced in this file; for a secret write {{env: {found[1]}}}, for anything else leave "
                f"it out and set SEMS_GATEWAY_{'__'.join(map(str, path)).upper()}",
            )
        case dict():
            for key, value in raw.items():
                yield from unreplaced(document, value, (*path, str(key)))
        case list():
            for n, value in enumerate(raw):
                yield from unreplaced(document, value, (*path, n))


def double_claims(
    document: Document, gateway_id: str, bridges: Iterable[tuple[str, BridgeSettings]]
) -> Iterator[Problem]:
    """Find what two bridges want, and one alone can have."""
    claims = [(name, claim) for name, settings in bridges for claim in settings.claims(gateway_id)]
    for (first, one), (second, other) in combinations(claims, 2):
        if first != second and one.meets(other):
            where = f"bridges.{second}.{other.setting}"
            line = document.line(("bridges", second, *other.setting.split(".")))
            yield Problem(line, where, f"{other.what} is that of bridges.{first} already; give each its own")


def doubtful(document: Document, bridges: Iterable[tuple[str, BridgeSettings]]) -> Iterator[Problem]:
    """Find placeholders, secrets that YAML cuts short, and logins that cross a network in clear."""
    for name, settings in bridges:
        for path, value in _leaves(settings, ("bridges", name)):
            for text in _doubts(value, document.source(path)):
                yield Problem(document.line(path), dotted(path), text)


def _doubts(value: object, source: str) -> Iterator[str]:
    secret = isinstance(value, SecretStr)
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(text, str) and PLACEHOLDER.search(text):
        yield "this still is what the example says; write your own"
    if secret and _CUT_SHORT.search(source):
        yield "YAML takes what follows ` #` for a comment; if it belongs to the secret, put all of it in quotes"
    if secret and isinstance(text, str) and text.startswith("{") and text.endswith("}"):
        yield "this is taken for the secret itself; a variable has to have the secret, not {env: …} or {file: …}"
    if isinstance(value, HttpUrl) and value.scheme == "http" and not is_loopback((value.host or "").strip("[]")):
        yield "with http:// the login crosses the network in clear; write https://"


def _leaves(value: object, path: Path) -> Iterator[tuple[Path, Any]]:
    """Yield every setting that is no group of others, with its path."""
    if isinstance(value, BaseModel):
        for key, one in value:
            yield from _leaves(one, (*path, key))
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _leaves(one, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for n, one in enumerate(value):
            yield from _leaves(one, (*path, n))
    else:
        yield path, value
