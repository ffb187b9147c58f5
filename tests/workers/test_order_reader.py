"""The tasks of one packet go to a worker one by one, and the engine can have back the rest."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.workers.local.claim_pipe import ClaimPipe
from asyncflow.workers.local.spool import Spool
from asyncflow.workers.local.worker_process import WorkerProcess
from asyncflow.workers.messages import AttemptKey, CloseRun, StartItems, StartTask
from asyncflow.workers.process.order_reader import OrderReader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Between:
    """A worker's two ends: how the engine sends and takes back, and how the worker reads."""

    def __init__(self, folder: Path) -> None:
        self.back: list[AttemptKey] = []
        nobody: Any = self
        self.engine = WorkerProcess(nobody, 1, (Spool(folder), Spool(folder)))
        self.engine.orders.setblocking(False)
        self.worker = OrderReader(self.engine.taken_back, self.engine.claims.number)
        self.had: list[StartTask] = []
        self.closed = 0
        self._room_wanted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self.engine.orders, self.engine.taken_back, self.engine.claims):
            end.close()
        self.engine.reports.close()

    # what a `WorkerProcess` needs of its pool
    def watch_room(self, worker: WorkerProcess, *, wanted: bool) -> None:
        self._room_wanted = wanted

    def give_back(self, worker: WorkerProcess, attempts: Sequence[AttemptKey]) -> None:
        self.back += attempts

    def waits_for_room(self) -> bool:
        """Whether the engine has kept orders back."""
        return self._room_wanted

    def read(self) -> bool:
        """The worker takes an order if there is one."""
        try:
            order = self.worker.next(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        if isinstance(order, StartTask):
            self.had.append(order)
        else:
            assert isinstance(order, CloseRun)
            self.closed += 1
        return True


def items(first: int, number: int) -> StartItems:
    """A packet with so many tasks from this one on."""
    return StartItems(7, first, number, "work", (3,), first - 1, [20, 90], b"12345678")


ACTS = st.one_of(
    st.tuples(st.just("items"), st.integers(1, 5)),
    st.sampled_from([("task", 1), ("close", 0), ("read", 1), ("read", 3), ("back", 0)]),
)


@given(st.lists(ACTS, max_size=40))
def test_each_task_is_had_by_the_worker_or_by_the_engine(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[str, int]]
) -> None:
    """Whenever the engine takes back: no task is lost, none is had twice, no other order is."""
    with Between(tmp_path_factory.getbasetemp()) as between:
        sent = closes = 0
        for act, number in acts:
            if act == "items":
                between.engine.send(items(sent + 1, number))
                sent += number
            elif act == "task":
                sent += 1
                between.engine.send(
                    StartTask(AttemptKey(7, sent, 0), "work", (), (), b"", (), (), ())
                )
            elif act == "close":
                between.engine.send(CloseRun(1))
                closes += 1
            elif act == "read":
                for _ in range(number):
                    between.read()
            else:
                between.engine.take_back()
                had = len(between.had)
                while between.read():
                    pass
                # what it passed by on its way to a claim may still come, but nothing was left
                assert all(order.inputs == b"" for order in between.had[had:])
        while between.read():
            pass
        assert not between.waits_for_room()
        assert between.closed == closes
        keys = [order.key for order in between.had] + between.back
        assert sorted(keys) == [AttemptKey(7, task, 0) for task in range(1, sent + 1)]


def test_an_order_for_one_of_the_tasks_says_what_a_packet_of_its_own_would(
    tmp_path: Path,
) -> None:
    """The path has the index of its item."""
    with Between(tmp_path) as between:
        between.engine.send(items(5, 3))
        while between.read():
            pass
    assert [order.path for order in between.had] == [(3, 4), (3, 5), (3, 6)]
    expected = StartTask(AttemptKey(7, 6, 0), "work", (3, 5), [20, 90], b"12345678", (), (), [])
    assert between.had[1] == expected


def test_a_task_that_the_worker_has_begun_stays_its_own(tmp_path: Path) -> None:
    """Taking back tells which attempt it is at: all behind it are had back."""
    with Between(tmp_path) as between:
        between.engine.send(items(1, 4))
        between.read()
        between.read()
        between.engine.take_back()
        assert [key.task for key in between.back] == [3, 4]
        assert next(reversed(between.engine.tasks)).task == 2
        between.engine.send(items(5, 2))  # claims for a packet behind the one that it has
        while between.read():
            pass
        assert [order.key.task for order in between.had] == [1, 2, 5, 6]


def test_the_end_of_the_engine_ends_the_reading(tmp_path: Path) -> None:
    """Also if claims are left."""
    with Between(tmp_path) as between:
        between.engine.send(items(1, 4))
        between.read()
        between.engine.orders.close()
        between.engine.claims.take_back()
        assert between.worker.next() is None
    with pytest.raises(OSError, match="Bad file"):
        between.worker.next()


def test_claims_for_which_there_is_no_room_are_kept(tmp_path: Path) -> None:
    """Their packet is not sent before them; all are had when the worker has read some."""
    most = 512  # of their claims a pipe holds 16 times as many, and takes each lot whole or not
    with Between(tmp_path) as between:
        for lot in range(17):
            between.engine.send(items(1 + lot * most, most))
        assert between.waits_for_room()
        while between.read():
            between.engine.flush()
        assert not between.waits_for_room()
        assert [order.key.task for order in between.had] == list(range(1, 1 + 17 * most))


def test_claims_for_which_there_is_no_room_are_taken_back(tmp_path: Path) -> None:
    """With all that the worker has not begun, each once."""
    with Between(tmp_path) as between:
        for lot in range(17):
            between.engine.send(items(1 + lot * 512, 512))
        between.read()
        between.engine.take_back()
        assert not between.waits_for_room()
        assert sorted(key.task for key in between.back) == list(range(2, 1 + 17 * 512))


def test_a_pipe_is_closed_once() -> None:
    """Both of its ends, and no descriptor that has one of their numbers by then."""
    pipe = ClaimPipe()
    numbers = pipe.number, pipe._writing
    pipe.close()
    for number in numbers:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(number)
    reading, writing = os.pipe()
    pipe.close()
    assert pipe.take_back() == []
    del pipe
    os.write(writing, b"open")
    assert os.read(reading, 9) == b"open"
    os.close(reading)
    os.close(writing)


def test_what_a_step_starts_has_no_claims(tmp_path: Path) -> None:
    """It would read some, and nobody would run their tasks."""
    with Between(tmp_path) as between:
        number = between.engine.claims.number
        os.set_inheritable(number, True)  # as what a worker is sent may be
        OrderReader(between.engine.taken_back, number)
        assert not os.get_inheritable(number)


@pytest.mark.parametrize("end", ["taken_back", "claims"])
def test_a_reader_knows_that_a_step_has_closed_an_end_of_it(tmp_path: Path, end: str) -> None:
    """Then the worker ends: what it would read next is somebody else's."""
    with Between(tmp_path) as between:
        assert all(each.is_whole() for each in between.worker.opened)
        getattr(between.engine, end).close()
        assert not all(each.is_whole() for each in between.worker.opened)


def test_a_reader_says_how_many_tasks_came_together(tmp_path: Path) -> None:
    """While some of them may still be claimed."""
    with Between(tmp_path) as between:
        between.engine.send(items(1, 2))
        seen = [repr(between.worker)]
        while between.read():
            seen.append(repr(between.worker))
        assert seen == [f"<OrderReader {number} items>" for number in (0, 2, 0)]
