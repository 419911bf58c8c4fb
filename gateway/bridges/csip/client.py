"""Asks a 2030.5 server over mutual TLS. What it answers is bounded, and no link leads to another server."""

import asyncio
import ssl
from datetime import datetime
from typing import Final
from urllib.parse import urljoin, urlsplit

import httpx

from gateway.bridges.csip import xml
from gateway.bridges.csip.settings import CsipSettings
from gateway.core.clock import Clock
from gateway.core.errors import GatewayError
from gateway.core.model import iso
from gateway.core.text import MAX_REASON, plain
from gateway.sems.unreachable import causes, meaning
from gateway.sems.wire import Transport

PAGE: Final = 100
"""Items asked for at once of a list."""
MAX_ITEMS: Final = 5_000
"""Of a list."""
_UNTRUSTED: Final = frozenset({7, 18, 19, 20})
"""X509_V_ERR_… of a certificate whose CA is not known, or has the name of a known one and another key."""

_OWN: Final = "see that tls.certificate is the one that the utility has signed or registered, and is valid today"


class ServerError(GatewayError):
    """The server did not do what it was asked for, or could not be reached."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status
        """Of HTTP; 0 where there was no answer, or none that can be used."""

    @property
    def is_final(self) -> bool:
        """Whether the server would say the same again."""
        return 400 <= self.status < 500 and self.status not in {401, 403, 408, 425, 429}


class Client:
    """One server."""

    def __init__(self, settings: CsipSettings, context: ssl.SSLContext, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._origin = urlsplit(settings.url)[:2]
        self._http = httpx.AsyncClient(
            transport=Transport(verify=context, trust_env=False, limits=httpx.Limits(max_connections=2)),
            trust_env=False,
            timeout=settings.timeout,
            # Nothing packed: what comes is bounded as it comes.
            headers={"Accept": xml.MEDIA_TYPE, "Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        """End all connections."""
        await self._http.aclose()

    async def get(self, href: str) -> xml.Node:
        """Return a resource. Raises ServerError."""
        _, raw = await self._ask("GET", href)
        try:
            return xml.read(raw)
        except xml.BadXmlError as error:
            raise ServerError(f"what {href} holds can't be used: {error}") from None

    async def get_list(self, href: str) -> xml.Node:
        """Return a list with the items of all its pages. Raises ServerError."""
        whole: xml.Node | None = None
        items = 0
        while True:
            page = await self.get(_with_query(href, f"s={items}&l={PAGE}"))
            try:
                total = xml.whole(page.attributes.get("all", "0"), "all")
            except xml.BadXmlError as error:
                raise ServerError(f"what {href} holds can't be used: {error}") from None
            if whole is None:
                whole = page
            else:
                whole.children += page.children
            items = len(whole.children)
            if items >= total or not page.children:
                return whole
            if items >= MAX_ITEMS:
                raise ServerError(f"{href} has {total} items, more than {MAX_ITEMS}")

    async def post(self, href: str, root: str, content: xml.Content) -> str:
        """Post a new thing; return where it is, "" where that is not said. Raises ServerError."""
        headers, _ = await self._ask("POST", href, xml.write(root, content))
        return str(headers.get("location", ""))

    async def put(self, href: str, root: str, content: xml.Content) -> None:
        """Replace a resource. Raises ServerError."""
        await self._ask("PUT", href, xml.write(root, content))

    async def _ask(self, method: str, href: str, body: bytes | None = None) -> tuple[httpx.Headers, bytes]:
        url = urljoin(self._settings.url, href)
        if urlsplit(url)[:2] != self._origin:
            raise ServerError(f"a link leads to {plain(url, MAX_REASON)}, another server, and is not followed")
        headers = {"Content-Type": xml.MEDIA_TYPE} if body is not None else {}
        try:
            async with (
                asyncio.timeout(2 * self._settings.timeout),  # httpx's own is for each read, however many there are
                self._http.stream(method, url, content=body, headers=headers) as response,
            ):
                raw = await self._body(response)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
            raise ServerError(unreachable(self._settings.url, error, self._clock.now())) from error
        if not response.is_success:
            said = plain(raw[:MAX_REASON].decode("utf-8", "replace"), MAX_REASON)
            raise ServerError(
                f"the server answers {method} {plain(href, MAX_REASON)} with {response.status_code}"
                f"{f' ({said})' if said else ''}",
                response.status_code,
            )
        return response.headers, raw

    async def _body(self, response: httpx.Response) -> bytes:
        raw = bytearray()
        async for chunk in response.aiter_raw():
            raw += chunk
            if len(raw) > self._settings.max_bytes:
                raise ServerError(f"an answer is longer than max_bytes ({self._settings.max_bytes})")
        return bytes(raw)


def _with_query(href: str, query: str) -> str:
    return f"{href}{'&' if '?' in href else '?'}{query}"


def unreachable(url: str, error: BaseException, now: datetime) -> str:
    """Return in words why a server can't be reached, and what to do."""
    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code in _UNTRUSTED:
            return f"{url} can't be reached: it shows a certificate of an unknown CA; name the utility's in tls.ca"
        if isinstance(cause, ssl.SSLError) and "ALERT" in (cause.reason or ""):
            said = (cause.reason or "").rpartition("ALERT_")[2].replace("_", " ").lower()
            return f"{url} refuses our certificate, or TLS itself ({said}); {_OWN}"
        if isinstance(cause, httpx.RemoteProtocolError | ssl.SSLEOFError):
            # Some say no more than this; with TLS 1.3 none sees our certificate before we take the connection for made.
            return f"{url} ends the connection without an answer, as one does that refuses our certificate; {_OWN}"
    cause, what, advice = meaning(error)
    said = plain(str(cause), MAX_REASON) or type(cause).__name__
    because = ": it ".join(filter(None, ("can't be reached", what)))
    return f"{url} {because} ({said}); {advice.format(now=iso(now))}"
