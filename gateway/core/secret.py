"""Secrets in the configuration: a text, a file or an environment variable. They never print themselves."""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, SecretStr


def _resolve(raw: Any) -> Any:
    match raw:
        case {"file": str(path), **rest} if not rest:
            try:
                return Path(path).read_text("utf-8").rstrip("\r\n")
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


Secret = Annotated[SecretStr, BeforeValidator(_resolve)]
"""Takes `text`, `{file: /run/secrets/name}` or `{env: NAME}`. `get_secret_value()` gives it out."""
