"""`make sbom`: what cyclonedx-py found on standard input → sbom.cdx.json and docs/licences.md."""

import json
import sys

from tests.supply.bom import BOM, LICENCES, LOCK, complete, faults, table
from tests.supply.lock import Lock

lock = Lock(LOCK.read_text())
bom = complete(json.load(sys.stdin), lock)
BOM.write_text(json.dumps(bom, indent=1) + "\n")
LICENCES.write_text(table(bom))
if found := list(faults(bom, lock)):
    sys.exit("\n".join(found))
sys.stdout.write(f"{BOM.name} and docs/{LICENCES.name}: {len(bom['components'])} packages\n")
