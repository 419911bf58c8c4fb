"""Secrets in the configuration: a text, a file or an environment variable. They never print themselves."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, SecretStr, ValidationInfo, WithJsonSchema

from gateway.config.local_file import beside
from gateway.config.short_form import SECRET_SCHEMA

_read_from: ContextVar[list[Path] | None] = ContextVar("secret files", default=None)


@contextmanager
def noted_files() -> Iterator[list[Path]]:
    """Give out a list to which every file is added from which a secret is read meanwhile."""
    files: list[Path] = []
    token = _read_from.set(files)
    try:
        yield files
    finally:
        _read_from.reset(token)


def _resolve(raw: Any, info: ValidationInfo) -> Any:
    match raw:
        case {"file": str(name), **rest} if not rest:
            path = beside(Path(name), info)
            if (noted := _read_from.get()) is not None:
                noted.append(path)
            try:
                return path.read_text("utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"the secret file {path} can't be read ({error})") from None
        case {"env": str(name), **rest} if not rest:
            if name not in os.environ:
                raise ValueError(f"the environment variable {name} is not set")
            return os.environ[name]
        case dict():
            raise ValueError("a secret is a text, {file: PATH} or {env: NAME}")
        case int():
            raise ValueError('put the secret in quotes: "…"; without them YAML reads a number')
    return raw


Secret = Annotated[SecretStr, BeforeValidator(_resolve), WithJsonSchema(SECRET_SCHEMA, mode="validation")]
"""Takes `text`, `{file: name}`, relative to the configuration, or `{env: NAME}`. `get_secret_value()` gives it out."""
