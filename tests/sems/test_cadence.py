"""How long a device may be silent: what was learned of it never grows from silence, whoever was away."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from gateway.sems.readings import AGREEING, MAX_CADENCE_SECONDS, Cadence
from tests.kit.clock import NOON


class Asker:
    """Asks about one device that uploads every `upload` seconds, but for the times it is away."""

    def __init__(self, upload, poll):
        self.upload, self.poll = upload, poll
        self.at, self.newest = 0.0, 0.0
        self.cadence = Cadence()

    def good(self, seconds, poll=None):
        """All is well."""
        self._go(seconds, poll, uploads=True, answers=True)

    def no_answers(self, seconds):
        """The cloud, or the way to it, is away."""
        self._go(seconds, None, uploads=True, answers=False)

    def no_uploads(self, seconds):
        """The device is away; the cloud answers with what it had last."""
        self._go(seconds, None, uploads=False, answers=True)

    def _go(self, seconds, poll, *, uploads, answers):
        poll = poll or self.poll
        end = self.at + seconds
        while self.at < end:
            self.at += poll
            if uploads:
                self.newest = self.at // self.upload * self.upload
            if answers:
                self.cadence.add(NOON + timedelta(seconds=self.newest), self.at, poll)

    @property
    def expected(self):
        return self.cadence.interval(self.poll)


OUTAGE = st.tuples(st.sampled_from(["no_answers", "no_uploads"]), st.floats(1, 50_000), st.floats(1, 5_000))


@given(
    upload=st.sampled_from([1, 5, 60, 120, 300, 600]),
    poll=st.sampled_from([1, 5, 60, 120]),
    outages=st.lists(OUTAGE, max_size=12),
)
def test_no_outage_makes_a_device_seldom(upload, poll, outages):
    asker = Asker(upload, poll)
    asker.good(12 * max(upload, poll))
    usual = asker.expected
    assert usual <= max(upload, poll) + poll
    for kind, away, well in outages:
        getattr(asker, kind)(away)
        assert asker.expected <= max(usual, upload + poll)
        asker.good(well + AGREEING * max(upload, poll))
        assert asker.expected <= max(usual, upload + poll)


@given(away=st.integers(20, 800), times=st.integers(1, 10), well=st.integers(1, 2))
def test_outages_of_one_length_are_no_cadence(away, times, well):
    """Also from the first minute on, when nothing else was learned."""
    asker = Asker(1, 1)
    for _ in range(times):
        asker.no_answers(away)
        asker.good(well)
    assert asker.expected <= 2


@given(st.integers(1, 30), st.sampled_from([60, 300]))
def test_what_was_asked_seldom_because_another_brings_it_is_no_cadence(times, upload):
    asker = Asker(upload, 60)
    asker.good(900 * times, poll=900)
    assert asker.expected <= max(upload, 60) + 60
    asker.good(10 * upload)
    assert asker.expected <= max(upload, 60) + 60


def test_nights_are_no_cadence():
    asker = Asker(300, 60)
    for _ in range(30):
        asker.good(3600)
        asker.no_uploads(10 * 3600)
    assert asker.expected == 300


@given(st.sampled_from([120, 240, 300, 600, 900]))
def test_a_logger_that_uploads_seldom_is_waited_for(upload):
    asker = Asker(upload, 60)
    asker.good(5 * upload)
    assert upload <= asker.expected <= min(MAX_CADENCE_SECONDS, 1.25 * upload)
