"""`make docs`: renew what is generated. Where clients rely on what would go, remove it by hand first."""

import sys

from tests.docs.generated import PARTS

for part in PARTS:
    if part.is_of_today():
        continue
    if lost := part.lost():
        sys.exit(f"{part.name} would lose what clients rely on:\n" + "\n".join(lost))
    part.renew()
    sys.stdout.write(f"{part.name} renewed\n")
