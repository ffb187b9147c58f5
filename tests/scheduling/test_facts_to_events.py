"""What workers report becomes records, and the index of the run that a reader makes of them."""

from __future__ import annotations

import math
import time

from hypothesis import given
from hypothesis import strategies as st

from asyncflow.client.replay import Replay
from asyncflow.events.packing import pack_event, unpack_events
from asyncflow.events.selection import EventFilter
from asyncflow.events.types import (
    STOPPED,
    Event,
    RunStarted,
    TaskEvent,
    TaskFailed,
    TaskYielded,
    from_microseconds,
)
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.scheduling import facts_to_events
from asyncflow.scheduling.commands import BeginItems, BeginTask, CloneTask, RetryTask, Verdict
from asyncflow.scheduling.facts import Lost, Ran
from asyncflow.scheduling.facts_to_events import Batch, Recorder
from asyncflow.scheduling.item_streams import ItemStreams
from asyncflow.store.frames import PREFIX_BYTES, frame
from asyncflow.store.journal import FIRST_RECORD
from asyncflow.store.run_index import RunIndex
from asyncflow.store.task_table import TaskState
from asyncflow.values import Outcome, Status
from asyncflow.workers.messages import (
    AttemptKey,
    CardsChanged,
    Failed,
    Logged,
    Started,
    Succeeded,
    Usage,
    Yielded,
    pack_report,
)
from asyncflow.workers.report_stream import ReportStream, WholeAttempts

NOW = 1_795_472_682_985_927
GRAPH = Graph(
    "F",
    [
        Node("first", ("work",), foreach="items", is_start=True),
        Node("work", ("meet",)),
        Node("meet", ("last",), is_join=True),
        Node("last", is_end=True),
    ],
)
STEPS = st.sampled_from(list(GRAPH.nodes))
PATHS = st.lists(st.integers(0, 2**32 - 1), max_size=2).map(tuple)
LOST = "asyncflow.errors.WorkerDied"

ATTEMPTS = st.tuples(
    st.booleans(),  # whether its start was reported
    st.booleans(),  # whether it has printed something
    st.sampled_from(["succeeds", "fails", "is lost", "is stopped", "is caught", "stand-in", ""]),
)
TASKS = st.tuples(STEPS, PATHS, st.sampled_from([0, 254]), st.lists(ATTEMPTS, max_size=4))


Act = tuple[bool, bool, str]


class Life:
    """One run: its engine's recorder and index, and what a reader makes of the journal."""

    def __init__(self) -> None:
        moment = from_microseconds(NOW)
        begun = RunStarted(flow="F", run_id="17", seq=1, time=moment, graph={}, tags=("t",))
        self.index = RunIndex(GRAPH, flow="F", run_id="17", started=NOW, tags=("t",))
        streams = ItemStreams(lambda _: 0, lambda _: False, lambda _: None, lambda *_: None)
        self.recorder = Recorder("F", "17", self.index, streams)
        self.replay = Replay(begun, GRAPH)
        self.size = FIRST_RECORD
        self.read(frame(pack_event(begun)))

    def read(self, framed: bytes) -> None:
        """The reader comes by one record."""
        self.replay.handle_all([self.size], [framed[PREFIX_BYTES:]])
        self.size += len(framed)

    def write(self, batch: Batch) -> None:
        """The journal has a batch."""
        self.recorder.settle(batch)
        read: list[Event] = []
        for head, record in zip(batch.frames[::2], batch.frames[1::2], strict=True):
            self.read(head + record)
            read += unpack_events(record, "F", "17")
        assert EventFilter[Event]().pick(batch.news) == read  # subscribers get the same
        assert self.size == batch.at

    def play(
        self, task: int, step: str, path: tuple[int, ...], attempt: int, act: tuple[bool, bool, str]
    ) -> int:
        """One attempt of a task, and a stand-in for it; the next attempt's number, 0 for none."""
        started, printed, end = act
        recorder, batch = self.recorder, Batch(self.size, NOW)
        key = AttemptKey(1, task, attempt)
        failed = Failed(key, 0.5, "ValueError", "no", "Traceback", True, (0, 0))
        recorder.open(BeginTask(step, task, attempt, path, (), (), None))
        if started:
            recorder.record(Started(key), batch, verdict=None)
        if printed:
            recorder.record(Logged(key, 0, b"a line\nand half"), batch, verdict=None)
        again = 0
        match end:
            case "succeeds":
                recorder.record(Succeeded(key, 0.5, Outcome(), (0, 0)), batch, verdict=None)
            case "fails":
                recorder.record(failed, batch, verdict=Verdict.RETRY)
                again = attempt + 1
            case "is lost":
                lost = Lost(key, LOST, "it was killed", may_retry=True)
                recorder.record(lost, batch, verdict=Verdict.RETRY)
                recorder.retried(RetryTask(step, task, attempt + 1, path, 0.0), batch)
                again = attempt + 1
            case "is stopped":
                lost = Lost(key, STOPPED, "the run is ending", may_retry=False)
                recorder.record(lost, batch, verdict=Verdict.FAIL)
            case "is caught":
                caught = failed._replace(outcome=Outcome())
                recorder.record(caught, batch, verdict=Verdict.CATCH)
            case "stand-in":
                lost = Lost(key, LOST, "it was killed", may_retry=False)
                recorder.record(lost, batch, verdict=Verdict.CATCH)
                recorder.open(BeginTask(step, task, attempt + 1, path, (), (), None))
                key = AttemptKey(1, task, attempt + 1)
                recorder.record(Started(key), batch, verdict=None)
                recorder.record(Succeeded(key, 0.5, Outcome(), (0, 0)), batch, verdict=None)
        self.write(batch)
        return again

    def clone(self, task: int, step: str, path: tuple[int, ...]) -> None:
        """A task is taken over from another run."""
        batch = Batch(self.size, NOW)
        self.recorder.cloned(CloneTask(step, task, path), Outcome(), ("16", 3), batch)
        self.write(batch)

    def check(self) -> None:
        """The reader knows what the engine knows."""
        known = self.index.summary(journal_bytes=self.size, events=self.recorder.seq)
        assert self.replay.summary() == known
        assert self.replay.index.table.dump() == self.index.table.dump()


@given(st.lists(TASKS, max_size=6), st.data())
def test_a_journal_is_replayed_to_the_index_that_its_engine_has(tasks, data):
    """After each record, whatever became of attempts: retried, caught, lost, stopped or cloned."""
    life = Life()
    for number, (step, path, first, acts) in enumerate(tasks, 1):
        task = number + data.draw(st.integers(0, 2)) * 10  # not each id has a record
        if not acts:
            life.clone(task, step, path)
        attempts = iter(acts)
        following = first
        while act := next(attempts, None):
            following = life.play(task, step, path, following, act)
            life.check()
            if not following:
                break
    life.check()


GROUPS = st.lists(st.tuples(st.booleans(), st.integers(1, 4)), min_size=1, max_size=4)


def opened(recorder: Recorder, groups: list[tuple[bool, int]]) -> list[tuple[Started, Succeeded]]:
    """Open tasks, some of them in packets, and return what their worker reports."""
    reports: list[tuple[Started, Succeeded]] = []
    for in_packet, number in groups:
        first = len(reports) + 2
        tasks = range(first, first + number)
        if in_packet:
            recorder.open_items(BeginItems("work", first, number, (), first - 2, (1,), 1))
        for task in tasks:
            if not in_packet:
                recorder.open(BeginTask("work", task, 0, (task - 2,), (1,), (1,), None))
            key, used = AttemptKey(1, task, 0), Usage(task / 8, task << 20)
            ended = Succeeded(key, task / 4, Outcome(cards=b"\x80"), (0, 0), used)
            reports.append((Started(key, f"item {task}"), ended))
    return reports


@given(GROUPS, st.booleans())
def test_tasks_that_ran_are_recorded_as_if_each_report_was_told(groups, begins_even):
    """Byte for byte, whether they come from packets, and with all that the recorder knows."""
    together, single = Life(), Life()
    if begins_even:
        together.clone(1, "first", ())
        single.clone(1, "first", ())
    reports, batch = opened(together.recorder, groups), Batch(together.size, NOW)
    packed = [pack_report(report) for pair in reports for report in pair]
    (attempts,) = ReportStream().feed_together(b"".join(packed))
    assert isinstance(attempts, WholeAttempts)
    together.recorder.record_ran(Ran(41, "here", attempts), batch)
    told = opened(single.recorder, groups)
    single.recorder.on_started([started.key.task for started, _ in told], 41, "here")
    expected = Batch(single.size, NOW)
    for pair in told:
        for report in pair:
            single.recorder.record(report, expected, verdict=None)
    assert batch.frames == expected.frames
    assert len(batch.frames) == 2 * 2 * len(reports)  # a frame and a record for each report
    for life, written in ((together, batch), (single, expected)):
        life.write(written)
        life.check()
        assert len(life.recorder) == 0
    assert together.recorder.expected == single.recorder.expected
    assert together.recorder.seq == single.recorder.seq


async def test_items_and_cards_have_their_places_among_the_starts_and_ends():
    """Subscribers hear of them in the order of the records, and the index knows all of these."""
    life = Life()
    recorder, batch = life.recorder, Batch(life.size, NOW)
    one, other, third = (AttemptKey(1, task, 0) for task in (1, 2, 3))
    for task in (1, 2, 3):
        recorder.open(BeginTask("first", task, 0, (), (), (), None))
    digest, inherited = b"12345678", b"\x81\xa1x\xc0"
    for fact in (
        Started(one),
        Started(other),
        CardsChanged(other, b"\x80"),
        Started(third),
        Yielded(one, 0, 1, b"a", inherited, digest),
        Succeeded(other, 0.5, Outcome(), (0, 0)),
        Succeeded(third, 0.5, Outcome(), (0, 0)),
        CardsChanged(one, b"\x80"),
        Yielded(one, 1, 1, b"b", b"", digest),
        Succeeded(one, 0.5, Outcome(fanout=2), (0, 0)),
    ):
        recorder.record(fact, batch, verdict=None)
    recorder.streams.close()
    life.write(batch)
    life.check()
    told = EventFilter[TaskEvent]().pick(batch.news)
    begun, card, yielded, ended = "TaskStarted", "CardUpdated", "TaskYielded", "TaskSucceeded"
    assert [(type(event).__name__, event.task_id) for event in told] == [
        *((begun, "1"), (begun, "2"), (card, "2"), (begun, "3"), (yielded, "1")),
        *((ended, "2"), (ended, "3"), (card, "1"), (yielded, "1"), (ended, "1")),
    ]
    manifests = [event.manifest for event in told if isinstance(event, TaskYielded)]
    assert manifests == [inherited, b"\x80"]


def test_a_task_is_running_from_its_start_on_and_its_failure_names_its_item():
    """The item is that of its start, and is kept for the run's end if the task is not retried."""
    life = Life()
    recorder, batch = life.recorder, Batch(life.size, NOW)
    recorder.open_items(BeginItems("work", 2, 3, (), 0, (1,), 1))
    keys = [AttemptKey(1, task, 0) for task in (2, 3, 4)]
    assert recorder.running() == []
    for key, item in zip(keys[:2], ("'red'", "'green'"), strict=True):
        recorder.on_started([key.task], 41, "")
        recorder.record(Started(key, item), batch, verdict=None)
    assert recorder.expected_seconds(4) == math.inf  # it is looked at, and has not begun
    assert recorder.running() == ["work/2", "work/3"]
    for key, verdict in zip(keys, (Verdict.FAIL, Verdict.RETRY), strict=False):
        failed = Failed(key, 0.5, "ValueError", "no", "", True, (0, 0))
        recorder.record(failed, batch, verdict=verdict)
    events = EventFilter[Event]().pick(batch.news)
    assert [event.item for event in events if isinstance(event, TaskFailed)] == ["'red'", "'green'"]
    assert recorder.failed_items == {"2": "'red'"}
    assert recorder.running() == []


def test_elapsed_time_is_in_microseconds():
    """By a clock that nobody sets."""
    clock = facts_to_events._CLOCK
    before = time.clock_gettime_ns(clock)
    microseconds = facts_to_events.elapsed()
    after = time.clock_gettime_ns(clock)
    assert before // 1000 <= microseconds <= after // 1000


def test_the_index_tells_of_each_task_how_it_stands():
    """Where its last attempt began and ended, and which task was the run's last."""
    life = Life()
    life.clone(1, "first", ())
    assert life.play(2, "work", (0,), 0, (True, False, "fails")) == 1
    assert life.index.table[2].started > 0
    life.play(2, "work", (0,), 1, (False, False, "is stopped"))  # it had not begun
    entry = life.index.table[2]
    assert (entry.started, entry.attempt, entry.state) == (0, 1, TaskState.STOPPED)
    life.play(3, "work", (1,), 0, (True, True, "stand-in"))
    assert life.index.table[3].started > 0
    assert life.index.table[3].state == TaskState.SUCCEEDED
    life.play(4, "last", (), 0, (True, False, "is stopped"))
    assert life.index.summary(journal_bytes=0, events=0).end_task == 0
    life.play(5, "last", (), 0, (True, False, "succeeds"))
    summary = life.index.summary(journal_bytes=0, events=0)
    assert (summary.end_task, summary.status) == (5, Status.RUNNING)
    assert summary.steps == (("first", 1), ("work", 2), ("meet", 0), ("last", 2))
    life.check()
