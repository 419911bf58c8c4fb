"""What holds for all tests."""

import os
import signal
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, settings

# How long drawing an example takes says nothing on a machine that is busy.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# Coverage is of what tests call. Measured too, the programs they start would take half as long again.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)

# A run in a shell's background ignores SIGINT, and so would every program it starts.
with suppress(ValueError):
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory):
    """The Apache Kafka that tests share; tests/kit/kafka.py says how."""
    from tests.kit.kafka import shared  # not for those that do without

    with shared(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


def pytest_collection_modifyitems(items):
    """Let the slow ones begin first, so that none is left to one process alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("system") is None)
