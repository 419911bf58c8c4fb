"""pymodbus, as tests/clients/protocol.md says: `with_pymodbus.py HOST PORT ORDER…`."""

import json
import sys

from pymodbus.client import ModbusTcpClient


def carry_out(client, order, unit, address, *arguments):
    kind = client.DATATYPE.FLOAT32
    match order, arguments:
        case "read", [count]:
            return client.read_holding_registers(address, count=int(count), device_id=unit), None
        case "float", []:
            return client.read_holding_registers(address, count=2, device_id=unit), kind
        case "input", []:
            return client.read_input_registers(address, count=2, device_id=unit), kind
        case "write", [word]:
            return client.write_register(address, int(word), device_id=unit), None
        case "write-float", [number]:
            words = client.convert_to_registers(float(number), kind)
            return client.write_registers(address, words, device_id=unit), None
    raise ValueError(order)


def main(host, port, *orders):
    client = ModbusTcpClient(host, port=int(port), timeout=60)
    client.connect()
    for order in orders:
        name, unit, address, *arguments = order.split(":")
        answer, kind = carry_out(client, name, int(unit), int(address), *arguments)
        if answer.isError():
            line = {"exception": answer.exception_code}
        elif name.startswith("write"):
            line = {"value": None}
        else:
            line = {"value": client.convert_from_registers(answer.registers, kind) if kind else answer.registers}
        sys.stdout.write(json.dumps({"what": order} | line) + "\n")
    client.close()


main(*sys.argv[1:])
