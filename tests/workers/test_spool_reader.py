"""What a worker has printed becomes reports: each attempt's output, before its end is told."""

from __future__ import annotations

import os
import signal

import pytest

from asyncflow.values import Outcome
from asyncflow.workers.local import spool_reader
from asyncflow.workers.local.pool import WorkerPool
from asyncflow.workers.local.spool import Spool
from asyncflow.workers.local.spool_reader import PIECE_BYTES, SpoolReader
from asyncflow.workers.messages import (
    AttemptKey,
    Logged,
    Started,
    StartTask,
    Succeeded,
    pack_report,
)
from tests.support.pool_listener import Listener
from tests.support.waiting import until

FIRST, SECOND = AttemptKey(1, 1, 0), AttemptKey(1, 2, 0)


@pytest.fixture
def spools(tmp_path):
    """Two files that a worker would print into."""
    made = Spool(tmp_path), Spool(tmp_path)
    yield made
    for spool in made:
        spool.close()


def told(reader, attempt=FIRST, *, is_end=False):
    """All that the reader has to report of what is there now: stream and bytes of each report."""
    pieces = []
    while (piece := reader.next_piece(attempt, reader.sizes(), is_end=is_end)) is not None:
        assert piece.key == attempt
        pieces.append((piece.stream, piece.data))
    return pieces


def test_nothing_is_reported_twice_and_each_stream_for_itself(spools):
    """What comes later is reported later."""
    reader = SpoolReader(spools)
    os.write(spools[0].descriptor, b"out 1\n")
    os.write(spools[1].descriptor, b"err 1\n")
    assert told(reader) == [(0, b"out 1\n"), (1, b"err 1\n")]
    assert told(reader) == []
    os.write(spools[1].descriptor, b"err 2\n")
    assert reader.has_unread(reader.sizes())
    assert told(reader) == [(1, b"err 2\n")]
    assert not reader.has_unread(reader.sizes())


def test_a_line_is_reported_once_it_has_an_end(spools):
    """Or when its attempt ends."""
    reader = SpoolReader(spools)
    os.write(spools[0].descriptor, b"whole\nhalf")
    assert told(reader) == [(0, b"whole\n")]
    assert told(reader) == []
    os.write(spools[0].descriptor, b" a line\nand")
    assert told(reader) == [(0, b"half a line\n")]
    assert told(reader, is_end=True) == [(0, b"and")]


def test_a_line_whose_end_does_not_come_is_reported_after_a_moment(spools, monkeypatch):
    """As a prompt has none; but a character is whole."""
    reader = SpoolReader(spools)
    os.write(spools[0].descriptor, "your näm".encode() + b"\xc3")
    assert told(reader) == []
    monkeypatch.setattr(spool_reader, "_PARTIAL_SECONDS", -1.0)
    assert told(reader) == [(0, "your näm".encode())]
    os.write(spools[0].descriptor, b"\xa4")
    assert told(reader) == [(0, "ä".encode())]


def test_a_long_line_is_reported_in_pieces(spools):
    """None is larger than a piece, and together they are what was printed."""
    reader = SpoolReader(spools)
    line = b"x" * (3 * PIECE_BYTES)
    os.write(spools[0].descriptor, line)
    pieces = told(reader, is_end=True)
    assert b"".join(data for _, data in pieces) == line
    assert max(len(data) for _, data in pieces) <= PIECE_BYTES


def test_a_file_that_a_step_has_cut_short_does_no_harm(spools):
    """What is written beyond the old end is reported again."""
    reader = SpoolReader(spools)
    os.write(spools[0].descriptor, b"before\n")
    assert told(reader) == [(0, b"before\n")]
    os.ftruncate(spools[0].descriptor, 0)
    os.write(spools[0].descriptor, b"a\n")
    assert told(reader, is_end=True) == []
    os.write(spools[0].descriptor, b"longer\nafter\n")
    assert b"after\n" in told(reader, is_end=True)[0][1]


# --- in the pool ----------------------------------------------------------------------------------


class Played:
    """A worker of a real pool, in whose name a test prints and reports."""

    def __init__(self, pool, listener):
        self.pool, self.listener = pool, listener
        self.worker = pool.start_worker()

    def prints(self, text, stream=0):
        os.write(self.worker.spools[stream].descriptor, text)

    def reports(self, *reports):
        self.pool._take_in(self.worker, b"".join(map(pack_report, reports)))
        self.pool._teller.tell(self.worker)

    def ended(self, attempt: AttemptKey):
        """The report that it has ended now."""
        sizes = self.worker.output.sizes()
        return Succeeded(attempt, 0.0, Outcome(), sizes)

    @property
    def heard(self):
        """What was told: text of output, and kinds of other reports with their task."""
        return [
            report.data if isinstance(report, Logged) else (type(report), report.key.task)
            for report in self.listener.reports
        ]

    def texts_of(self, attempt):
        logged = [each for each in self.listener.reports if isinstance(each, Logged)]
        return [each.data for each in logged if each.key == attempt]


@pytest.fixture
async def played(tmp_path):
    """A pool with one worker, which is told of nothing and waits."""
    listener = Listener()
    pool = WorkerPool(listener, size=1, scratch=tmp_path)
    await pool.start()
    made = Played(pool, listener)
    await until(lambda: listener.ready)  # else its own word would be unread in some test
    yield made
    await pool.close()


async def test_output_is_told_before_the_end_of_its_attempt(played):
    """And after its start, though all was reported at once."""
    played.prints(b"one\n")
    first = played.ended(FIRST)
    played.prints(b"two\n")
    second = played.ended(SECOND)
    played.reports(Started(FIRST), first, Started(SECOND), second)
    assert played.heard == [
        (Started, 1),
        b"one\n",
        (Succeeded, 1),
        (Started, 2),
        b"two\n",
        (Succeeded, 2),
    ]
    assert played.texts_of(SECOND) == [b"two\n"]


async def test_output_of_a_running_attempt_is_told_meanwhile(played):
    """Whatever was printed before any attempt is the first one's."""
    played.prints(b"by nobody\n")
    played.pool._output.look()
    assert played.heard == []
    played.reports(Started(FIRST))
    await until(lambda: b"by nobody\n" in played.heard)
    played.prints(b"more\n")
    await until(lambda: b"more\n" in played.heard)
    assert played.texts_of(FIRST) == [b"by nobody\n", b"more\n"]


async def test_output_waits_for_what_its_worker_has_reported_and_nobody_read(played, monkeypatch):
    """It may be that another attempt has begun, and has printed it."""
    played.reports(Started(FIRST))
    played.prints(b"first\n")
    ended = played.ended(FIRST)
    played.prints(b"second\n")
    monkeypatch.setattr(type(played.worker), "has_more", lambda worker: True)
    played.pool._output.look()
    assert played.heard == [(Started, 1)]
    monkeypatch.undo()
    played.reports(ended, Started(SECOND))
    played.pool._output.look()
    assert (played.texts_of(FIRST), played.texts_of(SECOND)) == ([b"first\n"], [b"second\n"])


async def test_what_a_worker_printed_last_is_told_before_its_end(played):
    """It may have said why it dies."""
    played.reports(Started(FIRST))
    played.prints(b"so it ends")
    os.kill(played.worker.pid, signal.SIGKILL)
    await until(lambda: played.listener.exits)
    assert played.heard == [(Started, 1), b"so it ends"]


async def test_a_paused_worker_is_told_of_no_further_and_loses_nothing(played):
    """Its reports, its output and its end come in their order when it is resumed."""
    played.reports(Started(FIRST))
    played.worker.pause()
    played.prints(b"meanwhile\n")
    played.reports(played.ended(FIRST), Started(SECOND))
    played.prints(b"last words")
    os.kill(played.worker.pid, signal.SIGKILL)
    await until(lambda: played.worker.has_exited)
    played.pool._output.look()
    assert played.heard == [(Started, 1)]
    assert not played.listener.exits
    played.worker.resume()
    await until(lambda: played.listener.exits)
    assert played.heard[1:] == [b"meanwhile\n", (Succeeded, 1), (Started, 2), b"last words"]


async def test_much_output_is_told_piece_by_piece_and_pausing_holds_it(played):
    """Nobody has to hold more of it than a few pieces."""
    count = 20 * PIECE_BYTES // 1024
    played.prints((b"x" * 1023 + b"\n") * count)
    tell = played.listener.on_reports
    sizes = []

    def pausing(worker, reports):
        tell(worker, reports)
        sizes.append(sum(len(each.data) for each in reports if isinstance(each, Logged)))
        worker.pause()

    played.listener.on_reports = pausing
    played.reports(Started(FIRST), played.ended(FIRST))
    while played.heard[-1] != (Succeeded, 1):
        assert len(sizes) < 100
        played.worker.resume()
        await until(lambda: played.worker.paused)
    assert sum(sizes) == count * 1024
    assert max(sizes) < 2 * PIECE_BYTES


async def test_a_taken_back_task_is_told_though_its_worker_is_paused(played):
    """Others can run it; the journal of its run need not be the one that lags."""
    os.kill(played.worker.pid, signal.SIGSTOP)
    await until(lambda: played.listener.stopped)
    played.worker.pause()
    played.worker.send(StartTask(FIRST, "start", [], [], b"", ()))
    played.worker.take_back()
    await until(lambda: played.listener.given_back == [1])
    os.kill(played.worker.pid, signal.SIGCONT)
