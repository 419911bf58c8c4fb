"""mbpoll, as tests/clients/protocol.md says: `with_mbpoll.py HOST PORT ORDER…`. It is run once for each order."""

import json
import re
import subprocess
import sys

EXCEPTIONS = {
    "Illegal function": 1,
    "Illegal data address": 2,
    "Illegal data value": 3,
    "Slave device or server failure": 4,
    "Slave device or server is busy": 6,
    "Gateway path unavailable": 10,
    "Target device failed to respond": 11,
}
TRIES = 6
"""Until one is answered: mbpoll waits 10 s at most, and the machine may be busy for longer."""
TABLES = {"read": "4:hex", "float": "4:float", "input": "3:float", "write": "4", "write-float": "4:float"}


def carry_out(host, port, order, unit, address, *arguments):
    options = f"-m tcp -p {port} -a {unit} -0 -r {address} -t {TABLES[order]} -B -1 -o 10".split()
    options += ["-c", *arguments] if order == "read" else []
    values = ["--", *arguments] if order.startswith("write") else []
    for _ in range(TRIES):
        done = subprocess.run(["mbpoll", *options, host, *values], capture_output=True, text=True, check=False)
        if "timed out" not in done.stderr:
            break
    if done.returncode:
        complaint = done.stderr.strip()
        code = next((code for text, code in EXCEPTIONS.items() if text in complaint), None)
        return {"exception": code} if code else {"error": complaint}
    found = re.findall(r"^\[\d+\]:\s+(\S+)", done.stdout, re.MULTILINE)
    if order == "read":
        return {"value": [int(word, 16) for word in found]}
    return {"value": None if order.startswith("write") else float(found[0])}


def main(host, port, *orders):
    for order in orders:
        line = {"what": order} | carry_out(host, port, *order.split(":"))
        sys.stdout.write(json.dumps(line) + "\n")


main(*sys.argv[1:])
