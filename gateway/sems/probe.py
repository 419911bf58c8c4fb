"""Whether a cloud can be reached: its name, its certificate, and our clock beside its own. Nobody logs in."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.core.clock import Clock
from gateway.core.model import iso
from gateway.core.probe import Mark, Probe
from gateway.core.text import MAX_REASON, plain
from gateway.sems.unreachable import unreachable
from gateway.sems.wire import trusted

WITHIN: Final = 10.0
"""Seconds for the name, for the connection, and for the answer, each."""
CLOCK_TOLERANCE: Final = timedelta(seconds=30)
"""Of a command's ttl of 60 s half is left then."""
ENDS_SOON: Final = timedelta(days=14)
MAX_HEAD: Final = 16384


async def probe_cloud(url: str, clock: Clock) -> AsyncIterator[Probe]:
    """Look at each step of a call up to the login."""
    parts = urlsplit(url)
    host, tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    try:
        async with asyncio.timeout(WITHIN):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        yield _wrong("dns", url, error, clock)
        return
    addresses = ", ".join(dict.fromkeys(str(one[4][0]) for one in found[:4]))
    yield Probe(Mark.WELL, "dns", f"{host} is {addresses}")
    trust = await asyncio.to_thread(trusted) if tls else None
    try:
        async with asyncio.timeout(WITHIN):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=trust, server_hostname=host if tls else None, limit=MAX_HEAD
            )
    except OSError as error:
        yield _wrong("tls" if isinstance(error, ssl.SSLError) else "connection", url, error, clock)
        return
    try:
        if tls:
            yield _certificate(writer.get_extra_info("ssl_object"), clock.now())
        else:
            yield Probe(Mark.WELL, "connection", f"{host}:{port} accepts connections")
        asked = clock.now()
        writer.write(f"HEAD / HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(WITHIN):
            head = await reader.readuntil(b"\r\n\r\n")
        yield _time(head, asked, clock.now())
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        why = "it did not answer in time" if isinstance(error, TimeoutError) else plain(str(error), MAX_REASON)
        yield Probe(
            Mark.WRONG if isinstance(error, TimeoutError) else Mark.NOTE,
            "clock",
            f"{host} did not say what time it is: {why}",
            "check the url; a proxy or firewall may stand between",
        )
    finally:
        writer.close()


def _wrong(about: str, url: str, error: Exception, clock: Clock) -> Probe:
    found = unreachable(url, error, clock.now())
    return Probe(Mark.WRONG, about, str(found), found.advice)


def _certificate(connection: Any, now: datetime) -> Probe:
    shown = connection.getpeercert()
    until = datetime.fromtimestamp(ssl.cert_time_to_seconds(shown["notAfter"]), UTC)
    names = {key: value for part in shown.get("issuer", ()) for key, value in part}
    issuer = plain(names.get("organizationName") or names.get("commonName") or "nobody", MAX_REASON)
    text = f"{connection.version()}, certificate by {issuer} until {iso(until)[:10]}"
    if until - now < ENDS_SOON:
        return Probe(Mark.NOTE, "tls", text, "it has to be renewed by whoever runs that cloud, or by your proxy")
    return Probe(Mark.WELL, "tls", text)


def _time(head: bytes, asked: datetime, answered: datetime) -> Probe:
    lines = head.decode("latin-1").split("\r\n")
    said = next((line.partition(":")[2].strip() for line in lines if line.lower().startswith("date:")), "")
    try:
        theirs = parsedate_to_datetime(said)
    except ValueError:
        return Probe(Mark.NOTE, "clock", "the cloud does not say what time it is")
    ours = asked + (answered - asked) / 2
    off = ours - (theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC))
    if abs(off) <= CLOCK_TOLERANCE:
        return Probe(Mark.WELL, "clock", "this machine's clock is right, by the cloud's")
    way = "ahead of" if off > timedelta() else "behind"
    return Probe(
        Mark.WRONG,
        "clock",
        f"this machine's clock is {_length(abs(off))} {way} the cloud's: it says {iso(ours)}",
        "set it, and keep it right by NTP (timedatectl set-ntp true): deadlines and ages of data go by it",
    )


def _length(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    for unit, of in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * of:
            return f"{seconds // of} {unit}"
    return f"{seconds} s"
