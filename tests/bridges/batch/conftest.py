import os
import shutil

import pytest

import gateway.kafka.thread as thread_module
from tests.kit.kafka import CACHE, mock_kafka


@pytest.fixture(autouse=True)
def _soon_heard(monkeypatch):
    """Hear at once that a connection is there."""
    monkeypatch.setattr(thread_module, "STATISTICS_MS", 50)


@pytest.fixture(scope="module")
def mock():
    with mock_kafka() as cluster:
        yield cluster


@pytest.fixture
def cluster(request):
    """Apache Kafka; where it is missing, the mock serves what it can."""
    there = shutil.which("java") and CACHE.exists()
    must = os.environ.get("SEMS_GATEWAY_NO_SKIP") == "1"
    return request.getfixturevalue("kafka" if there or must else "mock")
