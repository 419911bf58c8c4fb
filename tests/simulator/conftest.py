import pytest

from tests.simulator.kit import HandClock, SimulatedCloud


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
async def cloud(clock):
    async with SimulatedCloud(clock) as cloud:
        await cloud.log_in()
        yield cloud
