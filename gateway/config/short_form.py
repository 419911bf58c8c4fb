"""Settings that may be written in a shorter way than as `key: value` lines; the JSON Schema says so too."""

from typing import Any, ClassVar, Final

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from gateway.config.settings import Settings

SECRET_SCHEMA: Final[JsonSchemaValue] = {
    "anyOf": [
        {"type": "string"},
        *(
            {
                "type": "object",
                "properties": {name: {"type": "string", "description": text}},
                "required": [name],
                "additionalProperties": False,
            }
            for name, text in (
                ("file", "a file with the secret in it; relative to the configuration"),
                ("env", "the variable of the environment that has it"),
            )
        ),
    ]
}


class ShortForm(Settings):
    """The root of such a group. A validator of its own makes the long form of the short one."""

    SHORT: ClassVar[JsonSchemaValue]
    """JSON Schema of the short form."""
    LONG: ClassVar[bool] = True
    """Whether it may be written in `key: value` lines at all."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """See pydantic."""
        found = handler(core)
        schema: dict[str, Any] = handler.resolve_ref_schema(found)
        forms = [cls.SHORT, dict(schema)] if cls.LONG else [cls.SHORT]
        schema.clear()
        schema["anyOf"] = forms
        return found
