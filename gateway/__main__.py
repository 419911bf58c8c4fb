"""`python -m gateway` is `sems-gateway`."""

from gateway.cli import main

main()
