"""The library `goodwe`, as tests/clients/protocol.md says: `with_goodwe.py tcp|udp HOST PORT UNIT [SETTING=VALUE…]`.

The library asks port 8899 by UDP, any other by Modbus TCP; a test has ports of its own.
"""

import asyncio
import json
import sys

import goodwe
import goodwe.inverter


async def main(way, host, port, unit, *writes):
    if way == "udp":
        goodwe.GOODWE_UDP_PORT = goodwe.inverter.GOODWE_UDP_PORT = int(port)
    inverter = await goodwe.connect(host, int(port), "ET", comm_addr=int(unit), timeout=60, retries=1)
    for write in writes:
        name, _, value = write.partition("=")
        await inverter.write_setting(name, int(value))
    found = {"serial_number": inverter.serial_number, "rated_power": inverter.rated_power}
    for name, value in (found | await inverter.read_runtime_data()).items():
        sys.stdout.write(json.dumps({"what": name, "value": value}, default=str) + "\n")


asyncio.run(main(*sys.argv[1:]))
