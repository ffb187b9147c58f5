"""`parallel_map`, `parallel_imap_unordered` and `profile` as a program calls them."""

from __future__ import annotations

import os
import signal
import time

import pytest

from asyncflow import parallel_imap_unordered, parallel_map, profile
from asyncflow.errors import FlowError, ParallelMapError


def test_each_call_has_a_process_of_its_own_and_results_keep_the_order():
    """Whatever their size, and however long each takes."""

    def work(size):
        time.sleep(0.05 if size == 1 else 0)
        return os.getpid(), b"x" * size

    found = parallel_map(work, [1, 300_000, 0], max_parallel=2)
    assert [len(data) for _, data in found] == [1, 300_000, 0]
    assert len({os.getpid(), *(pid for pid, _ in found)}) == 4


def test_items_are_taken_as_there_is_room():
    """A generator without an end will do, and closing the iterator ends what runs."""
    taken = []

    def items():
        number = 0
        while True:
            taken.append(number)
            yield number
            number += 1

    results = parallel_imap_unordered(lambda number: number, items(), max_parallel=2)
    first = {next(results), next(results)}
    results.close()
    assert first <= {0, 1, 2}
    assert len(taken) <= 4
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # none is left


def test_a_call_that_fails_fails_all(capfd):
    """Its traceback is printed, and no other process is left."""

    def work(number):
        if number:
            raise LookupError("on purpose")
        time.sleep(60)

    with pytest.raises(ParallelMapError, match="for item 1 has failed: its traceback"):
        parallel_map(work, [0, 1], max_parallel=2)
    assert "LookupError: on purpose" in capfd.readouterr().err
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (lambda _: os.kill(os.getpid(), signal.SIGKILL), "was killed by SIGKILL"),
        (lambda _: lambda: None, "its traceback"),  # cannot be pickled
        (lambda _: exit(0), "its traceback"),  # noqa: PLR1722 - as users write it
    ],
)
def test_a_call_without_a_result_is_an_error(work, said):
    """Killed, exited, or with a result that cannot be pickled."""
    with pytest.raises(ParallelMapError, match=said):
        parallel_map(work, [1])


@pytest.mark.parametrize("most", [0, -1, True, "2"])
def test_max_parallel_is_a_number_above_zero(most):
    """Anything else is refused."""
    with pytest.raises(FlowError, match="max_parallel is a whole number"):
        parallel_map(abs, [1], max_parallel=most)


def test_profile_adds_up_or_prints(capsys):
    """Whole milliseconds, also if the block raises."""
    times: dict[str, int] = {}
    for _ in range(2):
        with profile("work", times):
            time.sleep(0.002)
    assert times["work"] >= 4
    with pytest.raises(KeyError), profile("shown"):
        raise KeyError
    out = capsys.readouterr().out
    assert out.startswith("PROFILE: shown starting\nPROFILE: shown completed in ")
