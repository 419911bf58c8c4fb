"""The JSON Schema of a configuration, with the bridges that are installed: editors complete and check by it."""

from typing import Any

from gateway.api.bridge import Bridge
from gateway.api.registry import PluginError, Registry
from gateway.run.settings import STEERERS, Root

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(registry: Registry[type[Bridge]]) -> dict[str, Any]:
    """Return the schema. A plug-in that can't be loaded is left out: `sems-gateway plugins` says why."""
    schema: dict[str, Any] = Root.model_json_schema()
    definitions: dict[str, Any] = schema.setdefault("$defs", {})
    types = []
    for type_ in registry.types:
        try:
            settings = registry.settings(type_)
        except PluginError:
            continue
        # Two bridges may have groups of the same name.
        own = settings.model_json_schema(ref_template=f"#/$defs/{type_}/$defs/{{model}}")
        own.pop("title", None)  # else an editor offers it for completion
        own.setdefault("properties", {})["type"] = {"const": type_}
        definitions[type_] = own
        types.append(type_)
    schema["properties"]["bridges"] |= {
        "additionalProperties": {
            "type": "object",
            "required": ["type"],
            "properties": {"type": {"enum": types, "description": "which bridge it is"}},
            "allOf": [
                {"if": {"properties": {"type": {"const": type_}}}, "then": {"$ref": f"#/$defs/{type_}"}}
                for type_ in types
            ],
        },
        "minProperties": 1,
    }
    for section, (_, settings, _where) in STEERERS.items():
        own = settings.model_json_schema(ref_template=f"#/$defs/{section}/$defs/{{model}}")
        own.pop("title", None)
        definitions[section] = own
        schema["properties"][section] |= {"additionalProperties": {"$ref": f"#/$defs/{section}"}}
        schema["properties"][section]["type"] = ["object", "null"]  # null: all of it is commented out
    return {"$schema": DIALECT, "title": "sems-gateway configuration"} | {
        key: value for key, value in schema.items() if key != "title"
    }
