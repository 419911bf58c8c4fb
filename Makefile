# Everything a newcomer needs: `make demo` to see it, `make test` to trust it.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Tests at the same time; 0 runs them in one process, as a debugger wants it.
JOBS   ?= 2

.PHONY: help demo test check lint types programs format bench bench-mqtt soak clean

help:
	@echo "make demo    see it work: simulated SEMS cloud, MQTT broker, Modbus server and gateway"
	@echo "make test    run all tests"
	@echo "make check   ruff, mypy --strict, and the tests' branch coverage (at least 90 %)"
	@echo "make format  format the code"
	@echo "make bench   speed of Modbus reads beside libmodbus and pymodbus (about a minute; needs libmodbus-dev)"
	@echo "make bench-mqtt  speed of MQTT beside a bare paho loop and Node-RED (some two minutes; needs mosquitto)"
	@echo "make soak    a million Modbus frames, cut anywhere, from many clients, on each event loop"
	@echo "make clean   remove .venv and what tools left behind"

demo: $(VENV)/demo.stamp
	@$(BIN)/sems-gateway demo $(ARGS)

test: $(VENV)/dev.stamp programs
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Where both are asked for, as in `make check test`, the tests run once.
check: lint types test
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check gateway tests benchmarks
	$(BIN)/ruff format --check gateway tests benchmarks

types: $(VENV)/dev.stamp
	$(BIN)/mypy

format: $(VENV)/dev.stamp
	$(BIN)/ruff format gateway tests benchmarks
	$(BIN)/ruff check --fix gateway tests benchmarks

bench: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/modbus/run.py $(ARGS)

bench-mqtt: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/mqtt/run.py $(ARGS)

soak: $(VENV)/dev.stamp
	SEMS_GATEWAY_SOAK_FRAMES=1000000 $(BIN)/python -m pytest -s tests/bridges/modbus/test_fuzz_soak.py

# Clients and brokers that the tests talk to: with root on Debian they are installed, elsewhere the tests say
# what they skip.
programs:
	@tests/programs

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "on Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"

$(VENV)/demo.stamp: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]' --group dev
	@touch $@ $(VENV)/demo.stamp

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* build dist *.egg-info
