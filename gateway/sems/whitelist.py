"""The serial numbers that an account of a third-party supplier may read or command."""

import re
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import PrivateAttr, ValidationInfo, model_validator

from gateway.config.local_file import beside
from gateway.config.short_form import ShortForm

EVERYTHING: Final = "*"
HEADERS: Final = frozenset({"sn", "serial", "serial number", "serial_number", "serialnumber", "devicesn", "device_sn"})
"""First lines that are no number."""
_FIRST_COLUMN: Final = re.compile(r"[#,;\t]")
MAX_SERIAL_CHARS: Final = 64
WHITELIST_HELP: Final = (
    'serial numbers that GoodWe has whitelisted for you: a list, {file: PATH} with one a line, or "*"'
)


class Whitelist(ShortForm):
    """A list of serial numbers, `{file: PATH}`, or `"*"` for all there are.

    A file has one number a line, `#` begins a comment; of CSV the first column counts. A relative path starts at the
    configuration's directory. As a field: `whitelist: Whitelist = Field(description=WHITELIST_HELP)`.
    """

    LONG: ClassVar = False
    SHORT: ClassVar = {
        "anyOf": [
            {"const": "*"},
            {"type": "array", "items": {"type": ["string", "integer"]}},
            {"type": "object", "properties": {"file": {"type": "string"}}, "additionalProperties": False},
        ]
    }

    everything: bool = False
    numbers: tuple[str, ...] = ()
    """Each once, in order; none with `everything`."""
    file: Path | None = None
    """Where they come from, if it is a file."""
    _set: frozenset[str] = PrivateAttr(default=frozenset())

    def __contains__(self, serial: object) -> bool:
        """Return whether a serial number may be addressed."""
        return self.everything or serial in self._set

    def model_post_init(self, _: Any) -> None:
        """Make looking up quick: there may be thousands, and every command asks."""
        self._set = frozenset(self.numbers)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, raw: Any, info: ValidationInfo) -> Any:
        match raw:
            case "*":
                return {"everything": True}
            case {"file": str(path), **rest} if not rest:
                file = beside(Path(path), info)
                return {"numbers": read_numbers(file), "file": file}
            case list():
                return {"numbers": _checked(raw)}
            case Whitelist():
                return raw
        raise ValueError('write a list of serial numbers, {file: PATH} with one a line, or "*" for all')


def read_numbers(file: Path) -> list[str]:
    """Return the serial numbers of a file: one a line, or the first column of a CSV file with or without a header.

    Raises ValueError, which says what to do.
    """
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the whitelist {file} can't be read ({error})") from None
    found = [number for line in text.splitlines() if (number := _FIRST_COLUMN.split(line, 1)[0].strip(' \t"'))]
    return _checked(found[1:] if found and found[0].casefold() in HEADERS else found)


def _checked(numbers: list[Any]) -> list[str]:
    if not numbers:
        raise ValueError('no serial number is listed; add some, or write "*" for all')
    for number in numbers:
        if not isinstance(number, str):
            raise ValueError(  # noqa: TRY004 - pydantic takes no other
                f'put the serial number {number} in quotes: "…"; without them YAML reads a number'
            )
        if not 0 < len(number) <= MAX_SERIAL_CHARS or not number.isprintable():
            raise ValueError(f"{number!r} is no serial number")
        if EVERYTHING in number:
            raise ValueError(f'{number!r} is no serial number; write "*" alone for all, patterns are not taken')
    return list(dict.fromkeys(numbers))
