"""A Modbus client that sends bytes as told, and takes answers apart by hand."""

import asyncio
import struct

import pytest


class ModbusError(Exception):
    def __init__(self, function, code):
        super().__init__(f"exception {code:#04x} for function {function}")
        self.function = function
        self.code = code


def read(address, count, function=3):
    return struct.pack(">BHH", function, address, count)


def write_one(address, value):
    return struct.pack(">BHH", 6, address, value)


def write_many(address, payload):
    return struct.pack(">BHHB", 16, address, len(payload) // 2, len(payload)) + payload


def frame(pdu, *, unit=1, transaction=1, protocol=0, length=None):
    return struct.pack(">HHHB", transaction, protocol, len(pdu) + 1 if length is None else length, unit) + pdu


class RawClient:
    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self._transaction = 0

    @classmethod
    async def connect(cls, port):
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 24))

    @property
    def name(self):
        host, port = self.writer.get_extra_info("sockname")
        return f"{host}:{port}"

    async def close(self):
        self.writer.close()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)

    def send(self, data):
        self.writer.write(data)

    async def answer(self):
        """Return the next answer: transaction id, unit, PDU."""
        async with asyncio.timeout(120):
            transaction, protocol, length = struct.unpack(">HHH", await self.reader.readexactly(6))
            assert protocol == 0
            body = await self.reader.readexactly(length)
        return transaction, body[0], body[1:]

    async def closed(self):
        """Wait until the server closes the connection; return what came before."""
        async with asyncio.timeout(120):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def ask(self, pdu, *, unit=1):
        """Return the answer's PDU. Raises ModbusError."""
        self._transaction = (self._transaction + 1) % 0x10000
        self.send(frame(pdu, unit=unit, transaction=self._transaction))
        transaction, answered, answer = await self.answer()
        assert (transaction, answered) == (self._transaction, unit)
        if answer[0] & 0x80:
            raise ModbusError(answer[0] & 0x7F, answer[1])
        assert answer[0] == pdu[0]
        return answer

    async def raw(self, address, count, *, unit=1, function=3):
        answer = await self.ask(read(address, count, function), unit=unit)
        assert answer[1] == 2 * count == len(answer) - 2
        return answer[2:]

    async def words(self, address, count=1, **where):
        return list(struct.unpack(f">{count}H", await self.raw(address, count, **where)))

    async def number(self, code, address, **where):
        return struct.unpack(f">{code}", await self.raw(address, struct.calcsize(code) // 2, **where))[0]

    async def text(self, address, count, **where):
        return (await self.raw(address, count, **where)).rstrip(b"\0").decode()

    async def refused(self, pdu, *, unit=1):
        """Return the exception code with which the request is refused."""
        with pytest.raises(ModbusError) as caught:
            await self.ask(pdu, unit=unit)
        assert caught.value.function == pdu[0] & 0x7F
        return caught.value.code
