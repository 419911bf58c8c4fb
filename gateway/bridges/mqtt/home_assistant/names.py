"""Names that Home Assistant knows things by."""

import re
import unicodedata
from typing import Final

# The characters of an object id are [a-zA-Z0-9_-]; the underscore marks an escape here.
_ODD: Final = re.compile("[^A-Za-z0-9-]")
_NO_SLUG: Final = re.compile("[^a-z0-9]+")


MAX_NAME: Final = 100
"""Characters of a device's name: an entity id of it and a point has 255 at most."""
MAX_STATE: Final = 255
"""Characters of a state; Home Assistant takes no longer one, and shows the one before."""


def object_id(gateway_id: str, serial: str | None = None) -> str:
    """Return what stands in the discovery topic, for a device or the gateway itself; no two are alike."""
    if serial is None:
        return gateway_id
    return f"{gateway_id}_{_ODD.sub(_escaped, serial)}"


def _escaped(match: re.Match[str]) -> str:
    return "".join(f"_{byte:02X}" for byte in match[0].encode("utf-8", "replace"))


def slug(text: str) -> str:
    """Return a text as an entity id takes it: `Größe 1` is `grosse_1`; may come out empty. Cut to MAX_NAME."""
    plain = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode()
    return _NO_SLUG.sub("_", plain.lower())[:MAX_NAME].strip("_")
