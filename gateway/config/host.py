"""Hosts as a configuration names them: a name or an address alone."""

import re
from ipaddress import ip_address
from typing import Annotated, Final

from pydantic import AfterValidator, HttpUrl

_WITH_SCHEME: Final = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://([^/:]*)")
_WITH_PORT: Final = re.compile(r"^(?:\[([0-9A-Fa-f:.]+)\]|([^:\s/]*)):(\d+)$")
"""A name or an address, that of IPv6 in brackets, and a port."""
_NO_HOST: Final = re.compile(r"[\s/@#?\[\]$]")


def _alone(host: str) -> str:
    if found := _WITH_SCHEME.match(host):
        raise ValueError(f"write the name or address alone, e.g. `{found[1]}`; port and tls are settings of their own")
    name, port = split(host)
    if name and port is not None:
        raise ValueError(f"write `host: {name}` and `port: {port}`")
    if _NO_HOST.search(host) or (":" in host and not _is_address(host)):
        raise ValueError("this is no name or address of a host; write it alone, e.g. 192.168.1.20 or broker.local")
    return host


def split(text: str) -> tuple[str, int | None]:
    """Return host and port of a text that has both; else all of it, and None."""
    found = _WITH_PORT.match(text)
    return (found[1] or found[2], int(found[3])) if found else (text, None)


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _without_path(url: HttpUrl) -> HttpUrl:
    host = f"[{url.host}]" if ":" in (url.host or "") else url.host
    port = "" if url.port in (None, 80, 443) else f":{url.port}"
    if (url.path or "/") != "/" or url.query or url.fragment:
        raise ValueError(f"write the host alone, {url.scheme}://{host}{port}; each interface's path is added to it")
    if url.username is not None or url.password is not None:
        raise ValueError("the url has a user or a password in it, and is shown in the log; take them out")
    return url


def at(host: str, port: int) -> str:
    """Return both as people write them: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


Host = Annotated[str, AfterValidator(_alone)]
"""Name or address of a host, without scheme, port or path."""
CloudUrl = Annotated[HttpUrl, AfterValidator(_without_path)]
"""Scheme, host and port of a cloud."""
