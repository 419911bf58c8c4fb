"""pysunspec2, as tests/clients/protocol.md says: `with_pysunspec2.py HOST PORT UNIT[,UNIT…] [MODEL.POINT=VALUE…]`.

Prints every point of every unit as `UNIT.MODEL.POINT`.
"""

import json
import sys

import sunspec2.modbus.client as sunspec


def main(host, port, units, *writes):
    for unit in units.split(","):
        device = sunspec.SunSpecModbusClientDeviceTCP(slave_id=int(unit), ipaddr=host, ipport=int(port), timeout=60)
        device.scan()
        for write in writes:
            name, _, value = write.partition("=")
            model, _, point = name.partition(".")
            wanted = device.models[int(model)][0].points[point]
            wanted.cvalue = int(value)
            wanted.write()
        for key, models in device.models.items():
            if not isinstance(key, int):
                continue
            if models[0].error_info:
                sys.stdout.write(json.dumps({"what": f"{unit}.{key}", "error": str(models[0].error_info)}) + "\n")
            for name, point in models[0].points.items():
                sys.stdout.write(json.dumps({"what": f"{unit}.{key}.{name}", "value": point.cvalue}) + "\n")
        device.close()


main(*sys.argv[1:])
