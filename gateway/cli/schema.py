"""`sems-gateway schema`."""

import json

from gateway.api.registry import installed
from gateway.run.schema import json_schema
from gateway.terminal.console import write


def schema() -> None:
    """`sems-gateway schema`."""
    write(json.dumps(json_schema(installed()), indent=2, ensure_ascii=False) + "\n")
