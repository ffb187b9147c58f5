"""An engine's own threads."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from asyncflow._support.thread_pool import Threads
from tests.support.raising_handler import SignalError


def alive(name):
    """The threads of this name."""
    return [each for each in threading.enumerate() if each.name.startswith(name)]


def test_results_and_errors_come_back():
    """As from any executor."""
    with Threads(2, "coming-back") as threads:
        assert threads.submit(divmod, 7, 2).result() == (3, 1)
        with pytest.raises(ZeroDivisionError):
            threads.submit(divmod, 7, 0).result()


def test_there_are_only_as_many_as_there_is_work_for():
    """One for works one after another, and never more than the most."""
    gate = threading.Event()
    with Threads(3, "only-as-many") as threads:
        assert not alive("only-as-many")
        for _ in range(5):
            threads.submit(int).result()
        assert len(alive("only-as-many")) == 1
        futures = [threads.submit(gate.wait) for _ in range(10)]
        assert len(alive("only-as-many")) == 3
        gate.set()
        assert all(future.result() for future in futures)


def test_to_shut_down_waits_for_what_was_taken_and_takes_no_more():
    """All of it is done, and the threads are gone."""
    threads = Threads(1, "shut-down")
    futures = [threads.submit(time.sleep, 0.01) for _ in range(5)]
    threads.shutdown()
    assert all(future.done() for future in futures)
    assert not alive("shut-down")
    with pytest.raises(RuntimeError, match="shut down"):
        threads.submit(int)


def test_work_that_was_cancelled_is_not_begun():
    """It had to wait for another."""
    gate = threading.Event()
    begun: list[int] = []
    with Threads(1, "cancelled") as threads:
        threads.submit(gate.wait)
        waiting = threads.submit(begun.append, 1)
        assert waiting.cancel()
        gate.set()
    assert not begun


def test_threads_that_nobody_holds_end():
    """Without having been shut down."""
    threads = Threads(1, "dropped")
    threads.submit(int).result()
    (thread,) = alive("dropped")
    del threads
    gc.collect()
    thread.join(180)
    assert not thread.is_alive()


def raise_while_a_thread_starts(frame, what, _):
    """Trace calls: raise where whoever starts a thread waits until it is there."""
    start = threading.Thread.start.__code__
    is_wait = what == "call" and frame.f_code.co_name == "wait"
    if is_wait and frame.f_back is not None and frame.f_back.f_code is start:
        raise SignalError


def test_all_end_although_the_start_of_one_was_broken_off():
    """A signal handler has raised when the thread was there, and its caller was not told."""
    threads, both = Threads(2, "broken-off"), threading.Barrier(2)
    sys.settrace(raise_while_a_thread_starts)
    try:
        with pytest.raises(SignalError):
            threads.submit(both.wait)
    finally:
        sys.settrace(None)
    threads.submit(both.wait).result(180)
    there = alive("broken-off")
    assert len(there) > 1
    for end in threads.close():
        end.result(180)
    for thread in there:
        thread.join(180)
        assert not thread.is_alive()


PROGRAM = """
import threading, time
import asyncflow
from tests.support.flows import Waiting

def work():
    print(asyncflow.run_sync(Waiting, width=3, seconds=0.5).status)

if __name__ == "__main__":
    thread = threading.Thread(target=work)
    thread.start()
    time.sleep({seconds})
"""


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="no thread can be started once the main thread has ended"
)
@pytest.mark.parametrize("seconds", [0, 0.4])
def test_a_run_in_a_thread_goes_on_when_the_main_thread_has_ended(seconds, store, tmp_path):
    """The interpreter waits for the thread, and the run comes to its end with nothing to tell."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAM.format(seconds=seconds))
    environment = {"PYTHONPATH": ".", "ASYNCFLOW_STORE": str(store)}
    command = ["env", *(f"{name}={value}" for name, value in environment.items()), sys.executable]
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("succeeded\n", "")


def test_a_handler_that_raises_leaves_no_thread_waiting_for_a_future():
    """Wherever it raises in what a caller does with a future, the thread goes on to other work."""
    calls = 0

    def raise_at(number):
        def trace(frame, what, _):
            nonlocal calls
            calls += what in {"call", "return"} and "suppress" not in frame.f_code.co_qualname
            if calls == number:
                sys.settrace(None)
                raise SignalError
            return trace

        return trace

    places = 0
    threads = Threads(1, "going-on")
    threads.submit(int).result()
    while calls >= places:
        places, calls = places + 1, 0
        future = threads.submit(int)
        sys.settrace(raise_at(places))
        with suppress(SignalError):
            future.add_done_callback(str)
            future.done()
            future.cancelled()
        sys.settrace(None)
        assert threads.submit(divmod, 7, 2).result(60) == (3, 1)
    threads.close()
    assert places > 6
