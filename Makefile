# Everything a newcomer needs: `make demo` to see it, `make test` to trust it.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Tests at the same time; 0 runs them in one process, as a debugger wants it.
JOBS   ?= 3

.PHONY: bench-batch help demo test check lint types programs format bench bench-mqtt bench-realtime soak reliability lock audit clean

help:
	@echo "make demo    see it work: simulated SEMS cloud, MQTT broker, Modbus server and gateway"
	@echo "make test    run all tests"
	@echo "make check   ruff, mypy --strict, and the tests' branch coverage (at least 90 %)"
	@echo "make format  format the code"
	@echo "make bench   speed of Modbus reads beside libmodbus and pymodbus (about a minute; needs libmodbus-dev)"
	@echo "make bench-mqtt  speed of MQTT beside a bare paho loop and Node-RED (some two minutes; needs mosquitto)"
	@echo "make bench-realtime  speed of the Real-Time Data bridge beside a bare httpx loop (half a minute)"
	@echo "make bench-batch  commands through MQTT, Kafka and back (about two minutes; fetches Apache Kafka)"
	@echo "make soak    a million Modbus frames cut anywhere, on each event loop; a push burst and a fleet of 2,000; 30 s without Kafka"
	@echo "make reliability  kills a gateway under commands from everywhere 200 times and reconciles what is left (some ten minutes)"
	@echo "make lock    renew requirements*.lock, from which the container is built: newest versions, with hashes"
	@echo "make audit   ask PyPI whether any version in requirements.lock has a known weakness"
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

bench-batch: $(VENV)/dev.stamp programs
	$(BIN)/python benchmarks/batch/run.py $(ARGS)

bench-mqtt: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/mqtt/run.py $(ARGS)

bench-realtime: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/realtime/run.py $(ARGS)

soak: $(VENV)/dev.stamp
	SEMS_GATEWAY_SOAK_FRAMES=1000000 $(BIN)/python -m pytest -s tests/bridges/modbus/test_fuzz_soak.py
	SEMS_GATEWAY_SOAK_OUTAGE=30 $(BIN)/python -m pytest -s tests/bridges/batch/test_cluster.py -k away_for
	SEMS_GATEWAY_SOAK_PLANTS=503 $(BIN)/python -m pytest tests/system/test_push_burst.py
	SEMS_GATEWAY_SOAK_FLEET=2000 $(BIN)/python -m pytest tests/bridges/open_api/test_fleet.py -k classic
	SEMS_GATEWAY_SOAK_SETS=10000 $(BIN)/python -m pytest tests/bridges/mqtt/test_floods.py -k thousands

# Random schedules of the life of a command; 20000 take 7 minutes.
SCHEDULES ?= 2000

reliability: $(VENV)/dev.stamp programs
	$(BIN)/python -m tests.reliability $(ARGS)
	SEMS_GATEWAY_ALL_FAULTS=1 $(BIN)/python -m pytest -q tests/reliability/test_cloud.py
	SEMS_GATEWAY_SCHEDULES=$(SCHEDULES) $(BIN)/python -m pytest -q -s tests/core/control/test_life_machine.py

# Every file that the container installs, by its hash; tests/test_lock.py has it agree with pyproject.toml.
LOCK := $(VENV)/tools/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade

lock: $(VENV)/tools/bin/uv
	$(LOCK) pyproject.toml --extra demo --output-file requirements.lock
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' \
	  | $(LOCK) - --output-file requirements-build.lock

audit: $(VENV)/tools/bin/uv
	$(VENV)/tools/bin/pip-audit --strict --require-hashes --disable-pip --requirement requirements.lock

$(VENV)/tools/bin/uv: | $(VENV)/bin/python
	$(BIN)/python -m venv $(VENV)/tools
	$(VENV)/tools/bin/python -m pip install --quiet --disable-pip-version-check uv pip-audit

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
