"""A plugin of pytest that measures which tests are long, in seconds of processor time.

    python -m pytest -p tests.support.cpu_times -m "not slow and not cluster"

writes `tests/long_tests.txt` anew: the functions that take more than `_ONE` seconds with some
parameters, or more than `_ALL` with all of them together, children included. Processor time, unlike
the time on the wall, is much the same on a busy machine. Functions that did not run stay listed.
"""

from __future__ import annotations

import os
import resource
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

LONG_TESTS: Final = Path(__file__).parents[1] / "long_tests.txt"
_ONE: Final = 0.6
_ALL: Final = 1.5


def long_functions() -> set[str]:
    """The node ids, without parameters, of the functions that the file lists."""
    return set(LONG_TESTS.read_text().split())


def function_of(nodeid: str) -> str:
    """A test's node id without its parameters."""
    return nodeid.partition("[")[0]


def _cpu_seconds() -> float:
    used = 0.0
    for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(whose)
        used += usage.ru_utime + usage.ru_stime
    return used


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note what a test takes, with its fixtures, as one of its properties."""
    before = _cpu_seconds()
    item.user_properties.append(("cpu_before", before))
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Note it when everything but this report is done."""
    result = yield
    before = dict(item.user_properties)["cpu_before"]
    assert isinstance(before, float)
    item.user_properties.append(("cpu_seconds", _cpu_seconds() - before))
    return result


class _Collector:
    def __init__(self) -> None:
        self.each: defaultdict[str, list[float]] = defaultdict(list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            seconds = dict(report.user_properties).get("cpu_seconds")
            if isinstance(seconds, float):
                self.each[function_of(report.nodeid)].append(seconds)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        long = {
            function
            for function, seconds in self.each.items()
            if max(seconds) > _ONE or sum(seconds) > _ALL
        }
        kept = long_functions() - self.each.keys()
        LONG_TESTS.write_text("".join(f"{name}\n" for name in sorted(long | kept)))
        total = sum(map(sum, self.each.values()))
        rest = total - sum(sum(self.each[name]) for name in long)
        terminalreporter.write_line(
            f"{total:.0f} s of processor time, {rest:.0f} of them in tests that are not long"
        )


def pytest_configure(config: pytest.Config) -> None:
    """Collect the reports of all test processes where they come together."""
    if os.environ.get("PYTEST_XDIST_WORKER") is None:
        config.pluginmanager.register(_Collector(), "cpu_times_collector")
