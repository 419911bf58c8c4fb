"""Takes out of answers whose plant it is: serials, ids, names, places, addresses, e-mails, phone numbers, tokens.

The same becomes the same everywhere, also inside other texts, so that a recording still fits together. A serial keeps
its length, its letters and where its digits are; the digits are others. What is replaced is what stands in a field
whose name, or whose line in the catalogue, says that it is such a thing, and whatever looks like one elsewhere.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from gateway.learn.names import words
from gateway.sems.catalogue import Catalogue, Interface, Json
from gateway.sems.recording import Answer

MAX_DEEP: Final = 64
MAX_TEXT: Final = 1_000_000
MIN_SOUGHT_CHARS: Final = 4
"""Characters from which a name or a serial is sought inside other texts."""
GLUED: Final = 7
"""Characters from which it is sought inside words too."""

_SERIAL: Final = frozenset({
    "serial", "sn", "sns", "uuid", "guid", "imei", "mac", "iccid", "imsi", "barcode", "plantid", "stationid",
    "pwid", "id", "ids", "uid", "searchkey", "dongle", "collector", "logger", "datalogger", "stick",
})  # fmt: skip
_NAME: Final = frozenset({
    "name", "alias", "owner", "user", "username", "contact", "customer", "installer", "org", "organisation",
    "organization", "company", "account", "nickname", "remark", "remarks", "memo", "note", "title", "operator",
    "agent", "dealer", "email", "mail", "login", "ssid", "host", "hostname", "url", "domain", "avatar",
    "photo", "pic", "picture", "image", "logo", "client", "person", "people", "resident", "tenant", "member",
    "manager", "creator", "updater", "editor", "author", "firstname", "lastname", "surname",
    "family", "given", "fullname", "createby", "createdby", "updateby", "updatedby", "comment", "comments",
})  # fmt: skip
_PLACE: Final = frozenset({
    "address", "addr", "street", "city", "town", "village", "district", "province", "region", "county",
    "postcode", "zip", "zipcode", "postal", "location", "country", "area", "house", "adr", "adress", "houseno",
    "flat", "floor", "building", "suburb",
    "place",
    "loc", "adr1", "adr2", "line1", "line2",
})  # fmt: skip
_COORDINATE: Final = frozenset({
    "lat", "latitude", "lng", "lon", "long", "longitude", "altitude", "coordinate", "coordinates", "gps", "geo",
    "position", "coord", "coords", "latlng", "lnglat", "geometry",
})  # fmt: skip
_SECRET: Final = frozenset({
    "token", "password", "pwd", "passwd", "secret", "key", "authorization", "cookie", "trace", "traceid",
    "phone", "mobile", "tel", "telephone", "fax", "ip", "sim", "checkcode", "verifycode", "pin", "puk",
})  # fmt: skip
_BELOW: Final = ("name", "place", "coordinate", "secret")
"""What is said of all that lies below such a key, too: `user.first`, `coord.x`."""
_PRODUCT: Final = frozenset({"model", "type", "version", "firmware", "software", "function", "code", "product"})
"""What has capitals and digits in it, and names a product."""
_HARMLESS_NAMES: Final = frozenset({
    "model", "function", "interface", "version", "firmware",
})  # fmt: skip
_KEPT_WORDS: Final = frozenset({
    "success", "ok", "fail", "error", "normal", "offline", "waiting", "fault", "null", "none", "unknown",
    "true", "false",
})  # fmt: skip

_MAIL: Final = re.compile(r"[\w.%+'-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64})+")
_UUID: Final = re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b")
_LONG_HEX: Final = re.compile(r"\b(?=[0-9a-zA-Z+/_-]*\d)(?=[0-9a-zA-Z+/_-]*[a-zA-Z])[0-9a-zA-Z+/_-]{24,}={0,2}(?![\w])")
_SERIAL_SHAPE: Final = re.compile(r"(?<![A-Za-z0-9])(?=[A-Z0-9]{10,24}(?![A-Za-z0-9]))\d{2,8}[A-Z]{2,6}[A-Z0-9]{4,16}")
_IDENTIFIER: Final = re.compile(
    r"(?<![A-Za-z0-9])(?!\d+[A-Z]{1,4}(?![A-Za-z0-9]))(?!\d+T\d+Z?(?![A-Za-z0-9]))"
    r"(?=[A-Z0-9]*[A-Z])(?=(?:[A-Z]*\d){2})[A-Z0-9]{8,32}(?![A-Za-z0-9])"
)
"""Capitals and digits; no number with its unit, no time."""
_BASE64: Final = re.compile(r"(?<![A-Za-z0-9+/_-])(?:[A-Za-z0-9+/]{6,}|[A-Za-z0-9_-]{6,})={0,2}(?![A-Za-z0-9+/_=-])")
_IP: Final = re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b")
_MAC: Final = re.compile(r"\b(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\b")
_PHONE: Final = re.compile(r"(?<![\w.:/+-])(?:\+|00)\d[\d ()/-]{6,18}\d(?![\w.])")
_URL: Final = re.compile(r"https?://[^\s\"'<>]{1,500}")
_COORDINATES: Final = re.compile(r"-?\d{1,3}\.\d{3,}\s*°?\s*[NSns]?\s*[,;/ ]\s*-?\d{1,3}\.\d{3,}")
_JSON: Final = re.compile(r"\s*[\[{]")


class Pseudonyms:
    """Replaces, each thing by the same all the time. `salt` must be nobody's to know; it is not kept anywhere."""

    def __init__(self, catalogue: Catalogue, salt: bytes, known: Iterable[str] = ()) -> None:
        """`known` are texts that are to be replaced wherever they stand, such as the account."""
        self._salt = salt
        self._catalogue = catalogue
        self._made: dict[str, str] = {}
        self._used: set[str] = set()
        self._search: re.Pattern[str] | None = None
        for text in known:
            self._learn(text, self._word(text))

    def answers(self, answers: Iterable[Answer]) -> list[Answer]:
        """Return answers without what shows whose they are. All are looked through before the first is changed."""
        every = list(answers)
        for answer in every:
            interface = self._interface(answer.interface)
            self._gather(answer.args, self._sent(interface), 0)
            self._gather(answer.body, self._answered(interface), 0)
        self._search = self._pattern()
        return [self._changed(answer) for answer in every]

    def _changed(self, answer: Answer) -> Answer:
        interface = self._interface(answer.interface)
        return msgspec.structs.replace(
            answer,
            args=self._replace(dict(answer.args), self._sent(interface), "", 0),
            body=self._replace(answer.body, self._answered(interface), "", 0),
        )

    def _interface(self, name: str) -> Interface | None:
        return next((interface for interface in self._catalogue.interfaces if interface.name == name), None)

    @staticmethod
    def _sent(interface: Interface | None) -> Mapping[str, str]:
        """Return the last names of fields that are sent → what they are."""
        rows = interface.request if interface is not None else ()
        kinds = {"serial": "serial", "serials": "serial", "plant": "serial", "plants": "serial", "account": "secret",
                 "password_md5": "secret", "receipt": "secret"}  # fmt: skip
        return {row.field.rpartition(".")[2]: kinds[row.arg] for row in rows if row.arg in kinds}

    @staticmethod
    def _answered(interface: Interface | None) -> Mapping[str, str]:
        rows = interface.response if interface is not None else ()
        kinds = {"serial": "serial", "plant": "serial", "name": "name", "token": "secret", "receipt": "secret"}
        return {row.field.rpartition(".")[2]: kinds[row.attribute] for row in rows if row.attribute in kinds}

    # What there is to replace

    def _gather(self, node: Any, rows: Mapping[str, str], deep: int, key: str = "", above: str = "") -> None:
        if deep > MAX_DEEP:
            return
        if isinstance(node, dict):
            for name, value in node.items():
                for match in _identifiers(name):
                    self._learn(match, self._serial(match))
                self._gather(value, rows, deep + 1, name, _below(key, rows, above))
        elif isinstance(node, list):
            for item in node:
                self._gather(item, rows, deep + 1, key, above)
        elif isinstance(node, (str, int)) and not isinstance(node, bool):
            text = str(node)
            kind = _kind(key, rows) or above
            if isinstance(node, str) and _JSON.match(text) and (inner := _json(text)) is not None:
                self._gather(inner, rows, deep + 1, key, above)
            elif kind == "serial" and len(text) > 1 and text.lower() not in _KEPT_WORDS:
                self._learn(text, self._serial(text))
            elif above and not _kind(key, rows) and len(text) < MIN_SOUGHT_CHARS:
                pass  # `1` is somebody's here alone; see `_text`
            elif kind in ("name", "place", "secret") and isinstance(node, str) and text.strip():
                self._learn(text, self._word(text) if kind != "secret" else self._serial(text))
            elif isinstance(node, str):
                for found in _identifiers(text[:MAX_TEXT], key):
                    self._learn(found, self._serial(found))
            if isinstance(node, str):
                for inner in _decoded(text[:MAX_TEXT]):
                    self._gather(inner, rows, deep + 1, "", above)

    def _learn(self, text: str, instead: str) -> None:
        """Note what is to be replaced. No two become the same."""
        if not text or text in self._made:
            return
        made = instead
        for more in range(100):
            if made not in self._used:
                break
            made = self._serial(text, more) if made[:5] != "name-" else self._word(text, more)
        self._made[text] = made
        self._used.add(made)

    def _pattern(self) -> re.Pattern[str] | None:
        """Return what finds all that is to be replaced inside other texts, the longest first."""
        long = sorted((text for text in self._made if len(text) >= MIN_SOUGHT_CHARS), key=len, reverse=True)
        found = "|".join(
            re.escape(text) if len(text) >= GLUED else rf"(?<![^\W_]){re.escape(text)}(?![^\W_])" for text in long
        )
        return re.compile(found, re.IGNORECASE) if found else None

    # Replacing

    def _replace(self, node: Any, rows: Mapping[str, str], key: str, deep: int, above: str = "") -> Any:
        if deep > MAX_DEEP:
            return None
        if isinstance(node, dict):
            below = _below(key, rows, above)
            return {self._key(name): self._replace(value, rows, name, deep + 1, below) for name, value in node.items()}
        if isinstance(node, list):
            return [self._replace(item, rows, key, deep + 1, above) for item in node]
        kind = _kind(key, rows) or above
        if isinstance(node, bool) or node is None:
            return node
        if isinstance(node, (int, float)):
            return self._number(node, kind)
        if _JSON.match(node) and (inner := _json(node)) is not None:
            return msgspec.json.encode(self._replace(inner, rows, key, deep + 1, above)).decode()
        return self._text(node, kind)

    def _key(self, name: str) -> str:
        """Return a field's name: a serial may be one, or be in one."""
        if name in self._made and any(char.isdigit() for char in name):
            return self._made[name]
        return "".join(part if is_done else self._key_part(part) for part, is_done in self._parts(name))

    def _key_part(self, name: str) -> str:
        for found in _identifiers(name):
            name = name.replace(found, self._made.get(found) or self._unmade(found))
        if self._search is not None and sum(char.isdigit() for char in name) >= MIN_SOUGHT_CHARS:
            name = self._search.sub(lambda match: self._known(match[0]), name)
        return name

    def _number(self, number: float, kind: str) -> Json:
        if kind in ("coordinate", "place"):
            return 0
        if kind in ("serial", "secret") and isinstance(number, int) and abs(number) > 9:
            return int(self._made.get(str(number)) or self._serial(str(number)))
        if str(number) in self._made and len(str(number)) >= 8:
            return int(self._made[str(number)]) if isinstance(number, int) else 0.0
        return number

    def _text(self, text: str, kind: str) -> str:
        if kind == "coordinate":
            return "0.0" if text.strip() else text
        parts = list(self._parts(text[:MAX_TEXT]))
        if len(parts) == 1 and text in self._made:
            return self._made[text]
        if kind == "secret" and text.strip():
            return self._serial(text)
        if kind in ("name", "place") and text.strip():
            return self._word(text)
        return "".join(part if is_done else self._rest(part) for part, is_done in parts)

    def _rest(self, text: str) -> str:
        if self._search is not None:
            text = self._search.sub(lambda match: self._known(match[0]), text)
        text = _COORDINATES.sub("0.0, 0.0", text)
        text = _URL.sub("https://sems.invalid/", text)
        text = _MAIL.sub(lambda match: f"{self._digest(match[0].lower())[:6]}@example.invalid", text)
        text = _UUID.sub(lambda match: self._serial(match[0]), text)
        text = _LONG_HEX.sub(lambda match: self._unmade(match[0]), text)
        text = _MAC.sub("02:00:00:00:00:00", text)
        text = _IP.sub("192.0.2.1", text)
        text = _PHONE.sub("+00 000000", text)
        return _SERIAL_SHAPE.sub(lambda match: self._unmade(match[0]), text)

    def _parts(self, text: str) -> Iterator[tuple[str, bool]]:
        """Yield a text in parts: base64 of what is replaced, which is made anew and done with; and the rest."""
        end = 0
        for match in _BASE64.finditer(text):
            inner = _inside(match[0])
            changed = inner if inner is None else str(self._replace(inner, {}, "", 1))
            if inner is None or changed is None or changed == inner:
                continue
            yield text[end : match.start()], False
            end = match.end()
            altchars = b"-_" if "-" in match[0] or "_" in match[0] else b"+/"
            made = base64.b64encode(changed.encode(), altchars).decode()
            yield made if len(match[0]) % 4 == 0 else made.rstrip("="), True
        yield text[end:], False

    def _known(self, text: str) -> str:
        if text in self._made:
            return self._made[text]
        return next((new for old, new in self._made.items() if old.lower() == text.lower()), "name")

    def _unmade(self, text: str) -> str:
        """Return another for what looks like a serial, unless it is one that was made already."""
        return text if text in self._used else self._serial(text)

    def _digest(self, text: str) -> str:
        return hashlib.blake2b(text.encode(), key=self._salt[:64], digest_size=32).hexdigest()

    def _serial(self, text: str, more: int = 0) -> str:
        """Return other digits in the places of digits. Letters stay, for they are a model's, unless digits are few."""
        digest = bytes.fromhex(self._digest(f"{text}{more or ''}"))
        lone = sum(char.isdigit() for char in text) < MIN_SOUGHT_CHARS or bool(_UUID.fullmatch(text)) or len(text) > 24
        made: list[str] = []
        for position, char in enumerate(text):
            value = digest[position % len(digest)] + position // len(digest)
            if char.isdigit():
                made.append(str(value % 10) if made else str(1 + value % 9))
            elif lone and char.isalpha():
                letters = "abcdef" if char.islower() else "ABCDEF"
                made.append(letters[value % 6])
            else:
                made.append(char)
        new = "".join(made)
        return new if new != text else new[:-1] + ("0" if new[-1] != "0" else "1")

    def _word(self, text: str, more: int = 0) -> str:
        return f"name-{self._digest(f'{text}{more or str()}')[:8]}"


def names_a_serial(field: str) -> bool:
    """Return whether a path has what looks like a serial among its parts."""
    return bool(_identifiers(field))


def _identifiers(text: str, key: str = "") -> list[str]:
    """Return what looks like a serial, or like another number of a thing, in a text of such a field."""
    found = [match[0] for match in _SERIAL_SHAPE.finditer(text)]
    if not set(words(key)) & _PRODUCT:
        found += [match[0] for match in _IDENTIFIER.finditer(text)]
    return list(dict.fromkeys(found))


def _decoded(text: str) -> Iterator[str]:
    """Yield the texts that stand in a text as base64."""
    for match in _BASE64.finditer(text):
        if (inner := _inside(match[0])) is not None:
            yield inner


def _inside(text: str) -> str | None:
    """Return the text that another is the base64 of, in either alphabet, padded or not; None where it is of none."""
    bare = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        inner = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return inner if len(inner) >= MIN_SOUGHT_CHARS and inner.isprintable() else None


def _below(key: str, rows: Mapping[str, str], above: str) -> str:
    """Return what all is that lies below a key."""
    kind = _kind(key, rows)
    return kind if kind in _BELOW else above


def _kind(key: str, rows: Mapping[str, str]) -> str:
    """Return what stands in a field by its name; empty for nothing that shows whose it is."""
    if key in rows:
        return rows[key]
    parts = set(words(key)) | {key.lower(), "".join(words(key))}
    if parts & _COORDINATE:
        return "coordinate"
    if parts & _SECRET:
        return "secret"
    if parts & _PLACE and "load" not in parts:
        return "place"
    if parts & _NAME and not parts & _HARMLESS_NAMES:
        return "name"
    if parts & _SERIAL or key.lower().endswith("sn"):
        return "serial"
    return ""


def _json(text: str) -> Any:
    """Return the JSON that a text is; None where it is none."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, (dict, list)) else None
