"""What every test may ask for."""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from asyncflow import Engine

_HANGING_SECONDS: Final = float(os.environ.get("HANGING_SECONDS", "280"))
"""A test that takes longer hangs; below pytest's own limit, which ends the whole process."""

_SIGNALS: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGALRM,
    signal.SIGCHLD,
    signal.SIGUSR1,
    signal.SIGUSR2,
)

_VARIABLES: Final = frozenset(name for name in os.environ if not name.startswith("PYTEST_"))

# In the background of a script Ctrl-C is ignored, and under nohup the end of the terminal: what a
# test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Have a test that hangs fail where it hangs, so that the others go on.

    An async one is cancelled, in order: all async tests share an event loop.
    """
    test = pyfuncitem.obj
    if pyfuncitem.get_closest_marker("slow"):
        return (yield)
    if inspect.iscoroutinefunction(test):
        pyfuncitem.obj = _within_time(test)
        return (yield)
    before = signal.signal(signal.SIGALRM, _tell_that_it_hangs)
    signal.setitimer(signal.ITIMER_REAL, _HANGING_SECONDS)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `long_tests.txt` lists; `tests/support/cpu_times.py` measures them."""
    from tests.support.cpu_times import function_of, long_functions

    long = long_functions()
    for item in items:
        if function_of(item.nodeid) in long:
            item.add_marker("long")


def _within_time(test: Any) -> Any:
    @functools.wraps(test)
    async def bounded(**fixtures: Any) -> None:
        with anyio.fail_after(_HANGING_SECONDS):
            await test(**fixtures)

    return bounded


def _tell_that_it_hangs(*_: object) -> None:
    message = f"the test hangs: it has taken {_HANGING_SECONDS:g} s"
    raise TimeoutError(message)


@pytest.hookimpl(optionalhook=True)  # of xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of one cluster together, see `tests.support.cluster_schedule`."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from tests.support.cluster_schedule import ClusterScheduling

    return ClusterScheduling(config, log)


@pytest.fixture(autouse=True)
def _leaves_its_process_as_it_was(
    anyio_backend: str, request: pytest.FixtureRequest
) -> Generator[None]:
    """Fail a test that leaves a change of what all tests of its process share.

    Whether the next ones pass would depend on their order, which differs from run to run. For the
    same reason each test asks for the event loop: one that is not async would find the async
    fixtures of its file only if an async test came before it.
    """
    path, before = sys.path.copy(), _shared()
    yield
    sys.path[:] = path  # whoever loads a flow's file, as a command does, puts its folder there
    if request.node.get_closest_marker("cluster") is None:  # Ray has handlers and hooks of its own
        assert _shared() == before


def _shared() -> dict[str, object]:
    return {
        "environment": {  # libraries add some when they are imported
            name: word
            for name, word in os.environ.items()
            if name in _VARIABLES or name.startswith("ASYNCFLOW")
        },
        "folder": os.getcwd(),  # noqa: PTH109 - as text, which is quicker
        "handlers": [signal.getsignal(number) for number in _SIGNALS],
        "arguments": sys.argv.copy(),
        "recursion": sys.getrecursionlimit(),
        "hooks": (sys.excepthook, sys.displayhook, sys.breakpointhook, threading.excepthook),
    }


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop under all tests; session-wide, so that a fixture of any scope may be async."""
    return "asyncio"


@pytest.fixture(scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Engine, None]:
    """An open engine with two workers and a store of its own, for all tests of a file.

    A file whose tests stop workers, or look at all that is in the store, has one for each test.
    """
    from asyncflow import Engine

    async with Engine(store=tmp_path_factory.mktemp("engine") / "store", workers=2) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's store will be, for this process and its children; nothing is there yet."""
    directory = tmp_path / "store"
    monkeypatch.setenv("ASYNCFLOW_STORE", str(directory))
    return directory
