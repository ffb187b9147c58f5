"""`parallel_map`, `parallel_imap_unordered` and `profile`, for the code of a step."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
import traceback
from contextlib import contextmanager, suppress
from selectors import EVENT_READ, DefaultSelector
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeVar

from asyncflow.errors import FlowError, ParallelMapError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, MutableMapping

Item = TypeVar("Item")
Result = TypeVar("Result")

_PIPE_BYTES: Final = 1 << 16  # what a pipe holds
_FAILED: Final = 1


class _Child(NamedTuple):
    """A process that works on one item, and writes its result to a pipe."""

    pid: int
    place: int
    received: bytearray


def parallel_map(
    func: Callable[[Item], Result],
    iterable: Iterable[Item],
    max_parallel: int | None = None,
    dir: str | None = None,  # noqa: A002 - Metaflow's
) -> list[Result]:
    """Call the function for each item, each call in a process of its own; return all results.

    A process is forked from the step's for each item, so the function may be a lambda or a closure,
    and sees all that the step has made. Results come back pickled, in the order of the items.

    Args:
        func: What is called.
        iterable: The items.
        max_parallel: How many processes run at a time; as many as there are CPUs if left out.
        dir: Accepted, without effect.

    Raises:
        ParallelMapError: A call has failed, or its process was killed; its traceback is in the
            task's output. The other processes are killed.
        FlowError: `max_parallel` is not a whole number above zero.
    """
    del dir
    found = dict(_results(func, iterable, max_parallel))
    return [found[index] for index in range(len(found))]


def parallel_imap_unordered(
    func: Callable[[Item], Result],
    iterable: Iterable[Item],
    max_parallel: int | None = None,
    dir: str | None = None,  # noqa: A002 - Metaflow's
) -> Generator[Result, None, None]:
    """Yield the results of `parallel_map` as they come, in any order.

    The items are taken as there is room for them. Closing the iterator kills what still runs.

    Raises:
        ParallelMapError: As from `parallel_map`.
        FlowError: As from `parallel_map`.
    """
    del dir
    for _, result in _results(func, iterable, max_parallel):
        yield result


def _results(
    func: Callable[[Item], Result], iterable: Iterable[Item], max_parallel: int | None
) -> Iterator[tuple[int, Result]]:
    """Each index with its result, as they come."""
    most: Any = (os.cpu_count() or 1) if max_parallel is None else max_parallel
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise FlowError(f"max_parallel is a whole number, 1 or more, not {max_parallel!r}")
    items = enumerate(iterable)
    with DefaultSelector() as selector:
        try:
            while True:
                while len(selector.get_map()) < most and (item := next(items, None)) is not None:
                    _start(selector, func, *item)
                if not selector.get_map():
                    return
                for key, _ in selector.select():
                    child: _Child = key.data
                    data = os.read(key.fd, _PIPE_BYTES)
                    child.received.extend(data)
                    if not data:
                        _close(selector, key.fd)
                        yield child.place, _outcome(child)
        finally:
            for key in [*selector.get_map().values()]:
                _close(selector, key.fd)
                with suppress(ProcessLookupError):
                    os.kill(key.data.pid, signal.SIGKILL)
                os.waitpid(key.data.pid, 0)


def _close(selector: DefaultSelector, descriptor: int) -> None:
    selector.unregister(descriptor)
    os.close(descriptor)


def _start(selector: DefaultSelector, func: Callable[[Any], Any], index: int, item: object) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # else the child would write it again
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _work(func, item, writing)
    os.close(writing)
    selector.register(reading, EVENT_READ, _Child(pid, index, bytearray()))


def _work(func: Callable[[Any], Any], item: object, writing: int) -> NoReturn:
    """Call the function in the forked process, and end it, whatever happens."""
    status = _FAILED
    try:
        with open(writing, "wb") as pipe:
            pickle.dump(func(item), pipe, pickle.HIGHEST_PROTOCOL)
        status = 0
    except SystemExit as end:
        print(f"sys.exit({end.code!r}) in a process of parallel_map", file=sys.stderr)  # noqa: T201 - into the task's log
    except BaseException:  # noqa: BLE001 - nothing may go on from here
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _outcome(child: _Child) -> Any:
    _, status = os.waitpid(child.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return pickle.loads(child.received)
    if code < 0:
        how = f"its process was killed by {signal.Signals(-code).name}"
    else:
        how = "its traceback is in the task's output"
    message = f"the call of parallel_map for item {child.place} has failed: {how}"
    raise ParallelMapError(message)


@contextmanager
def profile(label: str, stats_dict: MutableMapping[str, int] | None = None) -> Iterator[None]:
    """Measure how long the block takes.

    Args:
        label: What the block is called.
        stats_dict: The whole milliseconds are added to `stats_dict[label]`; without it, two lines
            are printed, one before the block and one after it.
    """
    if stats_dict is None:
        print(f"PROFILE: {label} starting")  # noqa: T201 - into the task's log
    began = time.perf_counter()
    try:
        yield
    finally:
        took = int(1000 * (time.perf_counter() - began))
        if stats_dict is None:
            print(f"PROFILE: {label} completed in {took}ms")  # noqa: T201 - into the task's log
        else:
            stats_dict[label] = stats_dict.get(label, 0) + took
