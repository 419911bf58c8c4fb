"""What a request may do, whoever sends it: a browser on this machine also sends what web pages of others have it send.

So being on loopback proves nothing. What a browser says of a request by itself, and no page can change, is looked at
before anything else, for every path and method:

- `Host`: a page can have its own name lead to us (DNS rebinding), and then is of one origin with us. An address can't
  be made to lead elsewhere.
- `Origin` and `Sec-Fetch-Site`: who made the request. A page of another port of this machine is another origin.
- `Content-Type` of what changes something: a page sends forms and text unasked, and asks first for everything else
  (Fetch, CORS-safelisted request-header); we permit none.

A header that decides comes once: of two, a proxy before us may have judged the other one.
"""

import re
import socket
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""
WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
"""Methods that have a body, be it an empty one."""
OWN_SITES: Final = frozenset({"same-origin", "none"})
"""`Sec-Fetch-Site` of our own pages, and of who typed the address."""
DECIDING: Final = ("host", "origin", "sec-fetch-site", "content-type", "content-encoding", "authorization")
"""Headers of which there may be one."""
SHOWN: Final = 64
"""Characters of a header that an answer or the log repeats."""
_AUTHORITY: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]/@\s]+)(?::(\d{1,5}))?")
_ORIGIN: Final = re.compile(r"(https?)://(.+)")
_PORTS: Final = {"http": "80", "https": "443"}


class ForbiddenError(Exception):
    """A request that nobody of ours makes. The text is for the sender."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        """`doubled_header`, `foreign_host`, `foreign_origin` or `wrong_type`."""


class OriginPolicy:
    """Knows what the listener is called, and what it takes."""

    def __init__(
        self,
        host: str,
        hosts: Iterable[str],
        takes: Callable[[str], bool],
        certificate: Path | None = None,
        secret: str = "",
    ) -> None:
        """`host` is what it listens on, `hosts` what else it is called, and `takes` says which media types it takes.

        The names in its `certificate` are its own too, and `secret` is a header that may hold one. Raises OSError or
        ValueError where the certificate can't be read.
        """
        self._hosts = frozenset(name.lower() for name in hosts)
        self._names = frozenset({host.lower(), *_of_this_machine(), *_in(certificate), *self._hosts})
        self._takes = takes
        self._deciding = (*DECIDING, *([secret.lower()] if secret else ()))

    def check(self, request: Request) -> None:
        """Return if this request may go on. Raises ForbiddenError."""
        for name in self._deciding:
            if len(request.headers.getlist(name)) > 1:
                raise ForbiddenError("doubled_header", f"the header {name} comes twice")
        self._check_host(request)
        self._check_origin(request)
        self._check_type(request)

    def _check_host(self, request: Request) -> None:
        given = request.headers.get("host")
        if given is None:  # HTTP/1.0 may send none, and no browser speaks that
            return
        name, _ = _split(given)
        is_ours = name in self._names or f"*.{name.partition('.')[2]}" in self._names
        if not (_is_address(name) or is_ours):
            raise ForbiddenError("foreign_host", f"this is not {given[:SHOWN]!r}")

    def _check_origin(self, request: Request) -> None:
        headers = request.headers
        origin = headers.get("origin")
        if origin is not None and not self._is_own(origin, headers.get("host", "")):
            raise ForbiddenError("foreign_origin", f"a page of {origin[:SHOWN]!r} asked for this")
        site = headers.get("sec-fetch-site", "none").strip().lower()
        if site not in OWN_SITES and not _is_link(request):
            raise ForbiddenError("foreign_origin", f"a page of another origin ({site[:SHOWN]!r}) asked for this")

    def _check_type(self, request: Request) -> None:
        method, headers = request.method, request.headers
        if method in SAFE:
            return
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if (has_body or method in WITH_BODY) and not self._takes(media_type):
            raise ForbiddenError("wrong_type", f"it says Content-Type: {media_type[:SHOWN] or 'nothing'}")

    def _is_own(self, origin: str, host: str) -> bool:
        """Return whether a page is ours: of the very host and port that are asked, or of a host of the settings.

        The scheme does not count, for a proxy may end TLS.
        """
        found = _ORIGIN.fullmatch(origin.strip().lower())
        if found is None:
            return False
        scheme, authority = found.groups()
        name, port = _split(authority)
        asked, asked_port = _split(host)
        same = (name, port or _PORTS[scheme]) == (asked, asked_port or _PORTS[scheme])
        return bool(name) and (same or name in self._hosts)


class Gated:
    """An application behind a gate (ASGI)."""

    def __init__(self, app: ASGIApp, gate: OriginPolicy, refuse: Callable[[Request, ForbiddenError], Response]) -> None:
        self._app = app
        self._origin_policy = gate
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope)
        try:
            self._origin_policy.check(request)
        except ForbiddenError as error:
            await self._refuse(request, error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _is_link(request: Request) -> bool:
    """Return whether a browser follows a link, and shows what it gets where its user sees whose it is."""
    headers = request.headers
    return (
        request.method in SAFE
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _split(authority: str) -> tuple[str, str]:
    """Return a host's name or address, and the port or ""; "" for what is neither."""
    found = _AUTHORITY.fullmatch(authority.strip().lower())
    return (found[1].removesuffix("."), found[2] or "") if found else ("", "")


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _of_this_machine() -> Iterable[str]:
    name = socket.gethostname().lower()
    label = name.partition(".")[0]
    return "localhost", name, label, f"{label}.local"


def _in(certificate: Path | None) -> list[str]:
    """Return the names that a certificate is for, as they stand there, `*.example.com` among them."""
    if certificate is None:
        return []
    from cryptography import x509  # noqa: PLC0415 - large, and only needed where there is TLS

    ours = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    try:
        names = ours.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in names.get_values_for_type(x509.DNSName)]
