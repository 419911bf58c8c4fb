"""A small HTTP server: a JSON document to poll, and InfluxDB's door to write to."""

import asyncio

DOCUMENT = b'{"inverters": [{"power": 1234.5, "soc": "55", "odd": "NaN"}]}'


class Server:
    """As an async context manager, it listens. `busy` times it answers a write with 503."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.busy = 0
        self.lines: list[str] = []
        self.heads: list[str] = []
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "Server":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                length = next((int(h.split(":")[1]) for h in head.lower().split("\r\n") if "content-length" in h), 0)
                body = (await reader.readexactly(length)).decode()
                self.heads.append(head)
                writer.write(self._answer(head, body))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _answer(self, head: str, body: str) -> bytes:
        if head.startswith("GET /data"):
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(DOCUMENT), DOCUMENT)
        if self.busy:
            self.busy -= 1
            return b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
        self.lines += body.split("\n")
        return b"HTTP/1.1 204 No Content\r\n\r\n"
