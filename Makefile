# Everything a newcomer needs: `make demo` to see it, `make test` to trust it.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Takes what a lock names and nothing else, from whatever index pip is set up with.
LOCKED := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Tests at the same time; 0 runs them in one process, as a debugger wants it. Three for each of two cores, for many tests
# wait most of their time: for a gateway to start, a timer to fire, a broker to be back. With four, 40 % of both cores idled.
JOBS   ?= 6
# Containers often set it. Tests start the gateway hundreds of times, and each time would compile it again: half a second.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: acl site bench-batch clients docs help home-assistant imports demo test quick check coverage lint types programs format bench bench-mqtt bench-page bench-realtime bench-scale fleet fleet-beside fleet-day dialects loops soak reliability punctual mutants screenshots lock sbom fuzz audit clean bench-simulator csip year bytes bench-joined bench-start

help:
	@echo "make demo    see it work: simulated SEMS cloud, MQTT broker, Modbus server and gateway"
	@echo "make test    run all tests (under ten minutes on two cores)"
	@echo "make quick   the tests of the rooms below the bridges, for after each change (about a minute on two cores)"
	@echo "make check   ruff, mypy --strict, and the tests; what CI runs"
	@echo "make coverage  the tests' branch coverage (at least 90 %); takes nearly twice as long"
	@echo "make format  format the code"
	@echo "make docs    renew what is generated: tables in docs, the picture of the rooms, golden files"
	@echo "make site    the documentation as pages, into build/site"
	@echo "make imports  who may import whom, and the picture of it in docs/development.md"
	@echo "make bench   speed of Modbus reads beside libmodbus and pymodbus (about a minute; needs libmodbus-dev)"
	@echo "make bench-mqtt  speed of MQTT beside a bare paho loop and Node-RED (some two minutes; needs mosquitto)"
	@echo "make bench-page  how long the page takes for a step of a scroll through 2,000 devices (half a minute)"
	@echo "make bench-realtime  speed of the Real-Time Data bridge beside a bare httpx loop (half a minute)"
	@echo "make bench-scale  how a gateway grows: 10, 1,000 and 10,000 devices (some four minutes; needs mosquitto)"
	@echo "make bench-start  what each command costs, and how soon a gateway answers, beside its libraries alone (three minutes)"
	@echo "make bench-simulator  what a simulated fleet of 10,000 costs, and its longest turn (some four minutes)"
	@echo "make fleet   how 10,000 simulated inverters follow a fleet's targets, each second (some four hours)"
	@echo "make fleet-beside  what OpenEMS' and frequenz' rules give beside ours, where they are installed (see docs/fleet.md)"
	@echo "make fleet-day  one simulated day of it with clouds, night, and a target every 15 minutes (ARGS='--inverters 1000')"
	@echo "make bench-batch  commands through MQTT, Kafka and back (about two minutes; fetches Apache Kafka)"
	@echo "make bench-joined  50,000 devices over three gateways joined by Kafka (a quarter of an hour; fetches Apache Kafka)"
	@echo "make screenshots  pictures of the page into docs/pictures, from the demo's plants (some six minutes)"
	@echo "make dialects  how much of 200 changed clouds learn restores, into docs/reference/dialects.md (some three minutes)"
	@echo "make year    a year of a command a minute on a throttled disk: doors, audit, cut (ten minutes; as root)"
	@echo "make bytes   how much is written in a day at 5, 50 and 500 devices (some 17 minutes; needs mosquitto)"
	@echo "make dialects  how much of 200 changed clouds learn restores, into docs/sems.md (some three minutes)"
	@echo "make loops   the tests whose time is free on asyncio's loop as well (some ten minutes)"
	@echo "make soak    a million Modbus frames cut anywhere, on each event loop; a push burst and a fleet of 2,000; 30 s without Kafka"
	@echo "make reliability  kills a gateway under commands from everywhere 200 times and reconciles what is left (some ten minutes)"
	@echo "make punctual  ten thousand dead-man's timers over a fleet, 100 kills, a failing cloud: how late they fire (half an hour)"
	@echo "make mutants   breaks every promise in a copy of the tree and sees that a test or a kill run finds it (twenty minutes)"
	@echo "make acl     the MQTT tests with a gateway that may do only what the ACL of docs/mqtt.md permits (a few minutes)"
	@echo "make clients  clients and brokers that others wrote, in six languages, against one gateway; a table (some five minutes)"
	@echo "make deb     Debian packages for the Debian this runs on, into dist/ (a minute)"
	@echo "make deb-test  installs, starts, upgrades, removes them on a Debian that systemd has booted (root; some three minutes)"
	@echo "make container  the image, by buildah on a base from Debian's packages: no Docker, no registry (root; two minutes)"
	@echo "make container-test  runs that image: read-only, not as root, self-test, health check (root; some two minutes)"
	@echo "make addon   the folder of Home Assistant's add-on, into dist/"
	@echo "make csip    the bridge csip against envoy, a CSIP-AUS server that others wrote (ENVOY=python; seven minutes)"
	@echo "make fuzz    broken inputs for every parser that meets the outside, a minute each (SECONDS=…; twenty minutes)"
	@echo "make lock    renew requirements*.lock, from which all is installed: newest versions, with hashes"
	@echo "make sbom    bill of materials of what production runs (sbom.cdx.json), and docs/licences.md"
	@echo "make audit   ask PyPI whether any version in requirements.lock has a known weakness"
	@echo "make clean   remove .venv and what tools left behind"

demo: $(VENV)/demo.stamp
	@$(BIN)/sems-gateway demo $(ARGS)

# A file's tests share what it starts, so they stay in one process.
SPREAD := --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

test: $(VENV)/dev.stamp programs
	$(BIN)/python -m tests.again $(SPREAD) $(ARGS)

# The rooms below the bridges: their tests need little time. Those of bridges, and all that start programs, are in `test`.
QUICK := $(addprefix tests/,commands config core docs http journal kit learn sems supply terminal) \
  $(wildcard tests/test_*.py)

quick: $(VENV)/dev.stamp
	$(BIN)/python -m pytest $(SPREAD) -m "not system" $(QUICK) $(ARGS)

# Where both are asked for, as in `make check test`, the tests run once.
check: lint types test

# Not part of `make test`: on CPython 3.11 tracing now and then breaks a thread that begins, and what waits for it hangs.
# Where a test fails here alone, that is why.
coverage: $(VENV)/dev.stamp programs
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(SPREAD) $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# The tests say when something is out of date. Addresses that clients rely on are only added to.
docs: $(VENV)/dev.stamp
	$(BIN)/python -m tests.docs

# Read it from the disk, or by `python -m http.server -d build/site`, which lets it search.
site: $(VENV)/dev.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --clean
	@echo "open build/site/index.html"

# Who may import whom; draws the rooms into docs/development.md.
imports: docs
	$(BIN)/import-linter lint --no-cache

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

bench-joined: $(VENV)/dev.stamp programs
	$(BIN)/python benchmarks/joined/run.py $(ARGS)

bench-mqtt: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/mqtt/run.py $(ARGS)

bench-page: $(VENV)/dev.stamp programs
	$(BIN)/python benchmarks/page/run.py $(ARGS)

bench-realtime: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/realtime/run.py $(ARGS)

bench-scale: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/scale/run.py $(ARGS)

bench-start: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/start/run.py $(ARGS)

bench-simulator: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/simulator/run.py $(ARGS)
year: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/year/run.py $(ARGS)

bytes: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/bytes/run.py $(ARGS)

# `make fleet ARGS='--inverters 1000 --kill 10'`
fleet: $(VENV)/dev.stamp $(VENV)/pygal
	PYTHONPATH=$(VENV)/pygal $(BIN)/python -u benchmarks/fleet/run.py --pictures docs/pictures $(ARGS)

# `make fleet-beside FREQUENZ=PYTHON OPENEMS=FOLDER JAVA=JAVA`: see docs/fleet.md; each may be left out.
fleet-beside: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/fleet/beside.py $(if $(FREQUENZ),--frequenz $(FREQUENZ)) \
	  $(if $(OPENEMS),--openems $(OPENEMS)) $(if $(JAVA),--java $(JAVA))

# `make fleet-day ARGS='--inverters 1000'`
fleet-day: $(VENV)/dev.stamp $(VENV)/pygal
	PYTHONPATH=$(VENV)/pygal $(BIN)/python -u benchmarks/fleet/day.py --pictures docs/pictures $(ARGS)

dialects: $(VENV)/dev.stamp
	$(BIN)/python -m tests.dialects --seeds 200 --write-docs $(ARGS)

screenshots: $(VENV)/dev.stamp programs
	$(BIN)/python -m tests.browser.screenshots $(ARGS)

loops: $(VENV)/dev.stamp
	SEMS_GATEWAY_BOTH_LOOPS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) -k "virtual" tests/bridges tests/sems tests/learn tests/simulator $(ARGS)

# Seconds for one test of those that are long on purpose.
soak reliability: export PYTEST_TIMEOUT = 3600

soak: $(VENV)/dev.stamp
	SEMS_GATEWAY_SOAK_FRAMES=1000000 $(BIN)/python -m pytest -s tests/bridges/modbus/test_fuzz_soak.py
	SEMS_GATEWAY_SOAK_OUTAGE=30 $(BIN)/python -m pytest -s tests/bridges/batch/test_cluster.py -k away_for
	SEMS_GATEWAY_SOAK_RESULTS=100000 $(BIN)/python -m pytest -s tests/bridges/batch/test_hostile.py -k cost_little
	SEMS_GATEWAY_SOAK_PLANTS=503 $(BIN)/python -m pytest tests/system/test_push_burst.py tests/simulator/test_server.py tests/simulator/test_developer.py
	SEMS_GATEWAY_SOAK_FLEET=2000 $(BIN)/python -m pytest tests/bridges/open_api/test_fleet.py tests/bridges/open_api/test_polling.py
	SEMS_GATEWAY_SOAK_PUSHES=2000 $(BIN)/python -m pytest tests/bridges/push/test_burst.py
	SEMS_GATEWAY_SOAK_PAIRS=1 $(BIN)/python -m pytest tests/core/test_limiter.py
	SEMS_GATEWAY_SOAK_SETS=10000 $(BIN)/python -m pytest tests/bridges/mqtt/test_floods.py -k thousands

# Random schedules of the life of a command; 20000 take 7 minutes.
SCHEDULES ?= 2000

reliability: $(VENV)/dev.stamp programs
	$(BIN)/python -m tests.reliability $(ARGS)
	SEMS_GATEWAY_ALL_FAULTS=1 $(BIN)/python -m pytest -q tests/reliability/test_cloud.py
	SEMS_GATEWAY_ALL_DAMAGES=1 $(BIN)/python -m pytest -q tests/reliability/test_damaged_files.py
	SEMS_GATEWAY_SCHEDULES=$(SCHEDULES) $(BIN)/python -m pytest -q -s tests/commands/test_life_machine.py
	SEMS_GATEWAY_WRITES=$(SCHEDULES) $(BIN)/python -m pytest -q tests/bridges/modbus/test_any_writes.py

punctual: $(VENV)/dev.stamp programs
	$(BIN)/python -m tests.reliability --kills 100 --timers 10000 $(ARGS)

# `make mutants ARGS='--only pytest revert'`: those with `revert` in their names, without kill runs.
mutants: $(VENV)/dev.stamp programs
	$(BIN)/python -m tests.reliability.mutate $(ARGS)

# Seconds for each target; `make fuzz SECONDS=10 ARGS='--only push modbus --seed 7'`. `ARGS='--engine atheris'` is guided
# by what each input reaches.
SECONDS ?= 60

fuzz: $(VENV)/dev.stamp $(if $(findstring atheris,$(ARGS)),$(VENV)/atheris)
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

# Every file that is installed, by its hash: what `run` needs (the container has no more), the demo, the tests, and what
# builds the package. Each lock begins with the one before, so they have the same versions; tests/test_lock.py says so.
LOCK := $(VENV)/tools/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header

# Of those bound to the rules: every MQTT test, and of the system tests those whose gateway is at a mosquitto.
acl: $(VENV)/dev.stamp programs
	SEMS_GATEWAY_ACL=1 SEMS_GATEWAY_NO_SKIP=1 $(BIN)/python -m pytest -q tests/bridges/mqtt tests/system/test_main_job.py \
	  tests/system/test_sparkplug.py tests/system/test_home_assistant.py tests/system/test_gaps.py $(ARGS)

# Fetches and compiles them first: go, cargo, Java with Maven, Node.js. `make clients ARGS='--only mqtt --write-docs'`.
clients: $(VENV)/dev.stamp programs
	$(BIN)/python -m tests.clients $(ARGS)

# A CSIP-AUS server that we did not write: bsgip's envoy. `make csip ENVOY=/path/to/python`, one in which it is installed.
# Debian brings PostgreSQL and nginx.
csip: $(VENV)/dev.stamp
	@test -n "$(ENVOY)" || { echo "make csip ENVOY=/path/to/python: one with bsgip's envoy, see docs/csip.md"; exit 1; }
	@command -v nginx >/dev/null && ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { [ "$$(id -u)" = 0 ] && \
	  apt-get install --yes --quiet --no-install-recommends postgresql nginx-light; }
	SEMS_GATEWAY_ENVOY=$(ENVOY) $(BIN)/python -m pytest tests/csip/against_envoy.py $(ARGS)

# The oldest and the newest package of Home Assistant against the tables and the rule of sums that our tests have.
home-assistant: $(VENV)/dev.stamp
	$(BIN)/python -m tests.home_assistant

# What they need they install themselves, on a Debian with nothing but this checkout.
.PHONY: addon container container-test deb deb-test
deb:
	@deploy/debian/build $(ARGS)

deb-test:
	@tests/deploy/deb

container:
	@deploy/container/build

container-test:
	@tests/deploy/container

# The folder to copy to Home Assistant's `addons`.
addon: $(VENV)/demo.stamp
	@deploy/home-assistant/pack

lock: $(VENV)/tools/bin/uv
	$(LOCK) --upgrade pyproject.toml --extra kafka --output-file requirements.lock
	cp requirements.lock requirements-demo.lock
	$(LOCK) pyproject.toml --extra demo --output-file requirements-demo.lock
	cp requirements-demo.lock requirements-dev.lock
	$(LOCK) pyproject.toml --extra demo --group dev --output-file requirements-dev.lock
	cp requirements-dev.lock requirements-build.lock
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	  | $(LOCK) - --output-file requirements-build.lock

# From an environment that has the production lock alone.
sbom: $(VENV)/dev.stamp $(VENV)/tools/bin/uv
	$(BIN)/python -m venv --clear --without-pip $(VENV)/production
	$(LOCKED) --python $(VENV)/production/bin/python install --require-hashes --requirement requirements.lock
	$(VENV)/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible $(VENV)/production/bin/python \
	  | $(BIN)/python -m tests.supply

audit: $(VENV)/tools/bin/uv
	$(VENV)/tools/bin/pip-audit --strict --require-hashes --disable-pip --requirement requirements.lock

$(VENV)/tools/bin/uv: | $(VENV)/bin/python
	$(BIN)/python -m venv $(VENV)/tools
	$(VENV)/tools/bin/python -m pip install --quiet --disable-pip-version-check uv pip-audit cyclonedx-bom

# In no lock: its wheels of CPython 3.11 are of another version than those of 3.12 and 3.13, and there is none for macOS.
$(VENV)/atheris: | $(VENV)/dev.stamp
	$(LOCKED) install --only-binary :all: --target $@ "atheris>=3,<4"

# In no lock: it draws the pictures of `make fleet`, nothing else.
$(VENV)/pygal: | $(VENV)/dev.stamp
	$(LOCKED) install --target $@ "pygal>=3.0,<4"

# Clients and brokers that the tests talk to: with root on Debian they are installed, elsewhere the tests say
# what they skip.
programs:
	@tests/programs

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "on Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"

$(VENV)/%.stamp: requirements-%.lock requirements-build.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV) …"
	@$(LOCKED) install --require-hashes --requirement requirements-build.lock
	@$(LOCKED) install --require-hashes --requirement $<
	@$(LOCKED) install --no-deps --no-build-isolation --editable .
	@touch $@ $(if $(filter dev,$*),$(VENV)/demo.stamp)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* build dist *.egg-info
