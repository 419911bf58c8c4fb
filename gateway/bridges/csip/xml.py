"""XML of IEEE 2030.5: read safely and with bounds, and written in the order in which it is given."""

from collections.abc import Iterator, Sequence
from typing import Final, Self
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

import msgspec

CORE: Final = "urn:ieee:std:2030.5:ns"
EXTENSION: Final = "https://csipaus.org/ns"
"""Of CSIP-AUS up to 1.2; later versions have theirs below it, e.g. `https://csipaus.org/ns/v1.3`."""
PREFIX: Final = "csipaus"
MEDIA_TYPE: Final = "application/sep+xml"
MAX_DEPTH: Final = 32
MAX_ELEMENTS: Final = 10_000
MAX_NUMBER: Final = 20
"""Digits of a number: the longest there is has 48 bits."""

Content = str | int | Sequence["Element"]
Element = tuple[str, Content]
"""Name and content of an element to be written. A name with the prefix `csipaus:` is of the extension."""


class BadXmlError(Exception):
    """What came can't be used. The text says why."""


class Node(msgspec.Struct):
    """An element that was read, of one of the two namespaces; others are passed over with all in them."""

    name: str
    attributes: dict[str, str]
    text: str = ""
    children: list[Self] = []

    def all(self, name: str) -> Iterator[Self]:
        """Yield the children of that name."""
        return (child for child in self.children if child.name == name)

    def one(self, name: str) -> Self | None:
        """Return the first child of that name."""
        return next(self.all(name), None)

    def string(self, name: str) -> str:
        """Return the text of a child; "" where there is none."""
        found = self.one(name)
        return found.text.strip() if found is not None else ""

    def href(self, name: str) -> str:
        """Return where a child leads; "" where there is none."""
        found = self.one(name)
        return found.attributes.get("href", "") if found is not None else ""

    def number(self, name: str) -> int | None:
        """Return a child's whole number; None where there is no child. Raises BadXmlError."""
        text = self.string(name)
        return whole(text, name) if text else None

    def needed(self, name: str) -> int:
        """Return a child's whole number. Raises BadXmlError where there is none."""
        found = self.number(name)
        if found is None:
            raise BadXmlError(f"{self.name} has no {name}")
        return found

    def hexadecimal(self, name: str) -> int:
        """Return a child's bits; 0 where there is none. Raises BadXmlError."""
        return bits(self.string(name), name)

    def flag(self, name: str) -> bool | None:
        """Return a child's truth; None where there is none. Raises BadXmlError."""
        text = self.string(name)
        if not text:
            return None
        if text not in {"true", "false", "1", "0"}:
            raise BadXmlError(f"{name} is neither true nor false: {text[:40]!r}")
        return text in {"true", "1"}


def whole(text: str, name: str) -> int:
    """Return a whole number. Raises BadXmlError."""
    digits = text[1:] if text[:1] in {"-", "+"} else text
    if not (digits.isascii() and digits.isdigit()) or len(digits) > MAX_NUMBER:
        raise BadXmlError(f"{name} is no whole number: {text[:40]!r}")
    return int(text)


def bits(text: str, name: str) -> int:
    """Return a hexadecimal number; 0 for an empty text. Raises BadXmlError."""
    if len(text) > MAX_NUMBER or not set(text) <= set("0123456789abcdefABCDEF"):
        raise BadXmlError(f"{name} is no hexadecimal number: {text[:40]!r}")
    return int(text, 16) if text else 0


def read(raw: bytes) -> Node:
    """Return the root of a document. Raises BadXmlError.

    A document type is refused: there entities are declared, which can grow to any size or lead to files.
    """
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True  # or a text is added to line by line
    parser.StartDoctypeDeclHandler = reader.refuse_doctype
    parser.StartElementHandler = reader.begin
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(raw, True)
    except expat.ExpatError as error:
        raise BadXmlError(f"it is no XML: {error}") from None
    except (LookupError, ValueError) as error:  # an encoding that nobody knows
        raise BadXmlError(f"it can't be read: {error}") from None
    if reader.root is None:
        raise BadXmlError(f"its root is not of {CORE}")
    return reader.root


class _Reader:
    """Takes what expat finds."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self._open: list[Node | None] = []
        """Those under way, outermost first; None for one that is passed over."""
        self._count = 0

    def refuse_doctype(self, *_: object) -> None:
        raise BadXmlError("it has a document type, which is not read")

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS or len(self._open) >= MAX_DEPTH:
            raise BadXmlError(f"it has more than {MAX_ELEMENTS} elements, or more than {MAX_DEPTH} in one another")
        space, _, local = name.rpartition(" ")
        known = space in {CORE, EXTENSION} or space.startswith(f"{EXTENSION}/")
        node = Node(local, attributes, children=[]) if known else None
        if self._open:
            outer = self._open[-1]
            if outer is None:
                node = None
            elif node is not None:
                outer.children.append(node)
        else:
            self.root = node
        self._open.append(node)

    def end(self, _: str) -> None:
        self._open.pop()

    def text(self, data: str) -> None:
        node = self._open[-1]
        if node is not None:
            node.text += data


def write(root: str, content: Content) -> bytes:
    """Return a document. A list says how many it has, as each list of 2030.5 does."""
    spaces = f" xmlns={quoteattr(CORE)} xmlns:{PREFIX}={quoteattr(EXTENSION)}"
    if root.endswith("List") and not isinstance(content, str | int):
        spaces += f' all="{len(content)}" results="{len(content)}"'
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{_written(root, content, spaces)}'.encode()


def _written(name: str, content: Content, attributes: str = "") -> str:
    inside = escape(str(content)) if isinstance(content, str | int) else "".join(_written(*each) for each in content)
    return f"<{name}{attributes}>{inside}</{name}>"
