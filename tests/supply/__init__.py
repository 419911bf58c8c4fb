"""What the gateway is delivered with: locks, bill of materials, licences. `make sbom` writes the last two."""
