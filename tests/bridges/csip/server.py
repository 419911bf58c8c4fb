"""A 2030.5 server for tests: documents at paths, over mutual TLS, and what was sent to it. No rules of its own."""

import asyncio
import ssl
import time
from contextlib import asynccontextmanager

from gateway.bridges.csip import xml
from gateway.bridges.csip.identity import lfdi_of, sfdi_of
from tests.kit.certificates import Authority

SPACES = 'xmlns="urn:ieee:std:2030.5:ns" xmlns:c="https://csipaus.org/ns"'
PIN = 111115


class Server:
    """What it has and what it got."""

    def __init__(self, lfdi):
        self.lfdi = lfdi
        self.documents = {}
        """Path → document; an int is an HTTP status."""
        self.asked = []
        """Method, path and query of each request."""
        self.sent = []
        """Method, path and root (`xml.Node`) of what was posted and put."""
        self.url = ""
        self.open = set()
        self.down = False
        """True: each connection is closed at once."""
        self.waits = asyncio.Event()
        """Cleared: nothing is answered until it is set."""
        self.waits.set()
        self.ahead = 0
        """Seconds by which its clock is ahead."""
        self.controls, self.default, self.programs = [], "", [("P1", 1)]
        self.serve()

    @property
    def now(self):
        return round(time.time()) + self.ahead

    def serve(self):
        """Make all documents of what is wanted now."""
        self.documents = {
            "/dcap": f'<DeviceCapability {SPACES} href="/dcap" pollRate="1"><TimeLink href="/tm"/>'
            '<EndDeviceListLink href="/edev"/><MirrorUsagePointListLink href="/mup"/></DeviceCapability>',
            "/edev": listed(
                "EndDevice",
                f"<EndDevice><lFDI>{self.lfdi.lower()}</lFDI><sFDI>{sfdi_of(self.lfdi)}</sFDI>"
                '<DERListLink href="/der"/><FunctionSetAssignmentsListLink href="/fsa"/>'
                '<RegistrationLink href="/rg"/><postRate>1</postRate></EndDevice>',
            ),
            "/rg": f"<Registration {SPACES}><pIN>{PIN}</pIN></Registration>",
            "/fsa": listed(
                "FunctionSetAssignments",
                '<FunctionSetAssignments><mRID>FF</mRID><DERProgramListLink href="/derp"/></FunctionSetAssignments>',
            ),
            "/derp": listed(
                "DERProgram",
                *(
                    f'<DERProgram><mRID>{name}</mRID><DefaultDERControlLink href="/{name}/d"/>'
                    f'<DERControlListLink href="/{name}/c"/><primacy>{primacy}</primacy></DERProgram>'
                    for name, primacy in self.programs
                ),
            ),
            "/P1/d": f"<DefaultDERControl {SPACES}><mRID>DD</mRID><DERControlBase>{self.default}</DERControlBase>"
            "</DefaultDERControl>",
            "/P1/c": listed("DERControl", *self.controls),
            "/der": listed(
                "DER",
                '<DER><DERAvailabilityLink href="/der/a"/><DERCapabilityLink href="/der/c"/>'
                '<DERSettingsLink href="/der/g"/><DERStatusLink href="/der/s"/></DER>',
            ),
            "/mup/1": f"<MirrorUsagePoint {SPACES}><mRID>AA</mRID><postRate>1</postRate></MirrorUsagePoint>",
        }

    def control(self, name, start, duration, base, *, status=0, created=0, more=""):
        """Add an event that begins `start` seconds from now, by the server's clock."""
        self.controls.append(
            f'<DERControl replyTo="/rsp" responseRequired="03"><mRID>{name}</mRID>'
            f"<creationTime>{self.now + created}</creationTime>"
            f"<EventStatus><currentStatus>{status}</currentStatus><dateTime>{self.now}</dateTime>"
            "<potentiallySuperseded>false</potentiallySuperseded></EventStatus>"
            f"<interval><duration>{duration}</duration><start>{self.now + start}</start></interval>{more}"
            f"<DERControlBase>{base}</DERControlBase></DERControl>"
        )
        self.serve()

    def responses(self):
        """What was answered of events: mRID and status."""
        roots = [root for _, path, root in self.sent if path == "/rsp"]
        return [(root.string("subject"), root.needed("status")) for root in roots]

    async def __call__(self, reader, writer):
        self.open.add(writer)
        try:
            while not self.down:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, target, _ = head.split(" ", 2)
                size = next((int(v) for k, v in fields(head) if k == "content-length"), 0)
                body = await reader.readexactly(size)
                self.asked.append((method, target))
                await self.waits.wait()
                writer.write(self._answer(method, target.partition("?")[0], target.partition("?")[2], body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open.discard(writer)
            writer.transport.abort()  # a close waits for the other side to say the same

    def _answer(self, method, path, query, body):
        if method != "GET":
            self.sent.append((method, path, xml.read(body)))
            found = self.documents.get(f"{method} {path}", 201)
            where = "Location: /mup/1\r\n" if path == "/mup" else ""
            return f"HTTP/1.1 {found} x\r\n{where}Content-Length: 0\r\n\r\n".encode()
        if path == "/tm":
            found = f"<Time {SPACES}><currentTime>{self.now}</currentTime></Time>"
        else:
            found = self.documents.get(path, 404)
        if isinstance(found, int):
            return f"HTTP/1.1 {found} x\r\nContent-Length: 0\r\n\r\n".encode()
        if callable(found):
            found = found(query)
        raw = found if isinstance(found, bytes) else found.encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(raw), raw)


def fields(head):
    return (
        (name.strip().lower(), value.strip()) for line in head.split("\r\n") for name, _, value in [line.partition(":")]
    )


def listed(name, *items, total=None):
    total = len(items) if total is None else total
    return f'<{name}List {SPACES} pollRate="1" all="{total}" results="{len(items)}">{"".join(items)}</{name}List>'


def watts(mode, value, exponent=0):
    return f"<c:{mode}><multiplier>{exponent}</multiplier><value>{value}</value></c:{mode}>"


@asynccontextmanager
async def running(directory, newest=ssl.TLSVersion.TLSv1_3):
    """Have one; gives it and the settings that reach it."""
    authority = Authority(directory, "utility")
    certificate, key = authority.sign("device")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.sign("server", server=True))
    context.load_verify_locations(authority.pem)
    context.maximum_version = newest
    context.verify_mode = ssl.CERT_REQUIRED
    it = Server(lfdi_of(certificate))
    it.authority = authority
    listener = await asyncio.start_server(it, "127.0.0.1", 0, ssl=context)
    port = listener.sockets[0].getsockname()[1]
    it.url = f"https://127.0.0.1:{port}/dcap"
    tls = {"certificate": certificate, "key": key, "ca": authority.pem}
    try:
        yield it, {"url": it.url, "tls": tls}
    finally:
        listener.close()
        for writer in it.open:
            writer.transport.abort()
        await asyncio.sleep(0.05)  # handshakes under way see that nobody is there any more
