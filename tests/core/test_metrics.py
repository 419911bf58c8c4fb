"""What Prometheus scrapes keeps its names, types and labels: dashboards and alerts of plants hang on them."""

from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

from prometheus_client import generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import REGISTRY

import gateway
from gateway.core.metrics import Metrics, counter, gauge


def test_names_types_and_labels_stay() -> None:
    """All that is declared anywhere is in the list, and the other way round."""
    modules = [import_module(m.name) for m in walk_packages(gateway.__path__, "gateway.") if "__main__" not in m.name]
    objects = {id(value): value for module in modules for value in vars(module).values()}.values()
    tables = [found for found in objects if isinstance(found, Metrics)]
    declared = {
        f"{family.name} {family.type} {','.join(family._labelnames)}".strip()
        for table in tables
        for family in table.describe()
    }
    # Those of prometheus_client itself; a child has its labels' values, and is no metric of its own.
    declared |= {
        f"{found._name} {found._type} {','.join(found._labelnames)}".strip()
        for found in objects
        if isinstance(found, MetricWrapperBase) and found._name.startswith("sems_gateway") and not found._labelvalues
    }
    assert declared == set(Path(__file__).with_name("metrics.txt").read_text(encoding="utf-8").splitlines())


SHOWN = Metrics[dict[str, int]](
    gauge("test_shown", "a number", lambda counts: sum(counts.values())),
    counter(
        "test_of_two", "two labels", lambda counts: {(name, name[0]): n for name, n in counts.items()}, "name", "a"
    ),
)
WHOLE = Metrics[int](gauge("test_whole", "of the gateway", lambda number: number), whole=True)


def scraped() -> list[str]:
    """Return the samples of what is tested here."""
    lines = generate_latest(REGISTRY).decode().splitlines()
    return [line for line in lines if line.startswith("test_") and "_created" not in line]


def test_bridges_of_a_kind_stand_together_and_one_that_stops_is_shown_no_more() -> None:
    """With its name as the first label."""
    SHOWN.watch("one", {"mail": 1})
    SHOWN.watch("two", {"post": 2})
    both = scraped()
    SHOWN.forget("one")
    two = scraped()
    SHOWN.forget("two")
    assert both == [
        'test_shown{bridge="one"} 1.0',
        'test_shown{bridge="two"} 2.0',
        'test_of_two_total{a="m",bridge="one",name="mail"} 1.0',
        'test_of_two_total{a="p",bridge="two",name="post"} 2.0',
    ]
    assert two == ['test_shown{bridge="two"} 2.0', 'test_of_two_total{a="p",bridge="two",name="post"} 2.0']
    assert not scraped()


def test_what_is_of_the_whole_gateway_is_scraped_once_however_many_show_it() -> None:
    """Prometheus takes no two samples of the same name and labels."""
    WHOLE.watch("one", 7)
    WHOLE.watch("two", 7)
    try:
        assert scraped() == ["test_whole 7.0"]
        WHOLE.forget("one")
        assert scraped() == ["test_whole 7.0"]
    finally:
        WHOLE.forget("one")
        WHOLE.forget("two")
    assert not scraped()


LATE = Metrics[dict[str, int]](
    gauge("test_late", "a number for each device", lambda counts: counts.items, "serial"),
    gauge("test_both", "of some at once", lambda counts: counts.items if len(counts) > 1 else counts, "sn"),
)


def test_numbers_of_each_device_are_read_when_they_are_formatted() -> None:
    """And stand together with those of other bridges, whichever way these come."""
    counts = {"SN1": 1}
    LATE.watch("one", counts)
    families = [family for family in REGISTRY.collect() if family.name == "test_late"]
    counts["SN2"] = 2
    assert [sample.value for sample in families[0].samples] == [1, 2]
    LATE.watch("two", {"SN3": 3})
    found = scraped()
    LATE.forget("one")
    LATE.forget("two")
    assert found == [
        'test_late{bridge="one",serial="SN1"} 1.0',
        'test_late{bridge="one",serial="SN2"} 2.0',
        'test_late{bridge="two",serial="SN3"} 3.0',
        'test_both{bridge="one",sn="SN1"} 1.0',
        'test_both{bridge="one",sn="SN2"} 2.0',
        'test_both{bridge="two",sn="SN3"} 3.0',
    ]
