"""What variables of the environment set: `SEMS_GATEWAY_LOG__LEVEL` is `level` of `log`."""

import os
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

ENV_PREFIX: Final = "SEMS_GATEWAY_"


def from_environment(model: type[BaseModel]) -> Mapping[str, Any]:
    """Return what variables set of a model's fields. Raises ValueError where one holds no JSON that should."""
    begin = ENV_PREFIX.lower()
    if not any(name.lower().startswith(begin) for name in os.environ):
        return {}
    from pydantic_settings import EnvSettingsSource  # noqa: PLC0415 - most have no such variable

    # It asks of a class no more than its fields.
    source: Any = EnvSettingsSource
    found: Mapping[str, Any] = source(model, env_prefix=ENV_PREFIX, env_nested_delimiter="__")()
    return found
