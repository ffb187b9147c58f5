"""Messages between engine and worker: what is said is what is heard, wherever the bytes are cut."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.values import Outcome
from asyncflow.workers import messages
from asyncflow.workers.messages import (
    AttemptKey,
    Blocked,
    CancelTask,
    CloseRun,
    Failed,
    GaveBack,
    Logged,
    Opening,
    Ping,
    Ready,
    ShutDown,
    Started,
    StartTask,
    Stopping,
    Succeeded,
    pack_order,
    pack_report,
    unpack_order,
)
from asyncflow.workers.program_environment import ProgramEnvironment
from asyncflow.workers.report_stream import Reports, ReportStream, WholeAttempts

NUMBERS = st.integers(0, 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ANY_TEXT = st.text()  # lone surrogates too, as in the name of a file that is not UTF-8
OFFSETS = st.lists(NUMBERS, max_size=5)
BYTES = st.binary(max_size=100)
SECONDS = st.floats(0, 1e9)
SPOOLED = st.tuples(NUMBERS, NUMBERS)
KEYS = st.builds(AttemptKey, NUMBERS, NUMBERS, NUMBERS)
OUTCOMES = st.builds(Outcome, BYTES, st.none() | NUMBERS, BYTES)

SURROUNDINGS = st.tuples(
    ANY_TEXT, st.lists(ANY_TEXT), st.dictionaries(ANY_TEXT, st.none() | ANY_TEXT)
).map(list)

ORDERS = st.one_of(
    st.builds(
        StartTask,
        *(KEYS, TEXT, OFFSETS, OFFSETS, BYTES),
        st.just([]) | st.tuples(TEXT, NUMBERS, NUMBERS).map(list),
        st.lists(TEXT, max_size=3),
        st.just([])
        | st.tuples(NUMBERS, ANY_TEXT, TEXT, TEXT, SURROUNDINGS, st.booleans()).map(list),
    ),
    st.builds(CloseRun, NUMBERS),
    st.builds(CancelTask, KEYS, st.booleans()),
    st.builds(Ping),
    st.just(ShutDown()),
)

REPORTS = st.one_of(
    st.builds(Ready, NUMBERS),
    st.builds(Started, KEYS),
    st.builds(Stopping, KEYS),
    st.builds(GaveBack, KEYS),
    st.builds(Blocked, KEYS, SECONDS, TEXT),
    st.builds(Logged, KEYS, st.integers(0, 1), BYTES),
    st.builds(
        Succeeded,
        *(KEYS, SECONDS, OUTCOMES, SPOOLED),
    ),
    st.builds(
        Failed,
        *(KEYS, SECONDS, TEXT, TEXT, TEXT, st.booleans(), SPOOLED),
        st.none() | OUTCOMES,
    ),
)


@given(ORDERS)
def test_an_order_arrives_as_it_was_given(order):
    """Of whichever kind, with whatever names of files and variables."""
    assert unpack_order(pack_order(order)) == order


@given(st.lists(REPORTS, max_size=8), st.data())
def test_reports_arrive_whole_and_in_order_however_the_stream_is_cut(reports, data):
    """A report is handed out when its last byte is there, and not before."""
    stream, packed = ReportStream(), [pack_report(report) for report in reports]
    joined, heard, fed = b"".join(packed), [], 0
    while fed < len(joined):
        cut = data.draw(st.integers(fed + 1, len(joined)))
        heard += stream.feed(joined[fed:cut])
        fed = cut
        complete = sum(sum(map(len, packed[: n + 1])) <= fed for n in range(len(packed)))
        assert len(heard) == complete
    assert heard == reports


@given(st.lists(REPORTS, max_size=8), st.data())
def test_reports_that_are_read_together_are_those_that_came(reports, data):
    """Whoever looks at each finds it, in order."""
    joined = b"".join(map(pack_report, reports))
    cut = data.draw(st.integers(0, len(joined)))
    stream = ReportStream()
    heard = [each for part in (joined[:cut], joined[cut:]) for each in stream.feed_together(part)]
    together = Reports(heard)
    assert list(together) == reports
    assert len(together) == len(reports)
    assert together[:2] == reports[:2]


def pair(task: int, spooled: tuple[int, int] = (0, 0), *, ended: int = 0) -> bytes:
    """A task has begun, and it or another one has succeeded."""
    done = Succeeded(AttemptKey(1, ended or task, 0), task / 4, Outcome(), spooled)
    return pack_report(Started(AttemptKey(1, task, 0))) + pack_report(done)


def test_attempts_that_begin_and_succeed_one_after_the_other_stay_together():
    """And what comes before or after them does not."""
    before, after = GaveBack(AttemptKey(1, 9, 0)), Started(AttemptKey(1, 4, 0))
    packed = pack_report(before) + pair(1) + pair(2) + pair(3) + pack_report(after)
    first, whole, last = ReportStream().feed_together(packed)
    assert (first, last) == (before, after)
    assert isinstance(whole, WholeAttempts)
    assert whole.keys == [(1, 1, 0), (1, 2, 0), (1, 3, 0)]
    assert whole.seconds == [0.25, 0.5, 0.75]
    assert whole.slice(1, 3).reports() == ReportStream().feed(pair(2) + pair(3))


@pytest.mark.parametrize("packed", [pair(1) + pair(2, ended=3), pair(1) + pair(2, (0, 5))])
def test_attempts_do_not_stay_together_if_one_ends_later_or_has_printed(packed):
    """The first end is that of another attempt, or output has to be told before the second."""
    assert [type(each) for each in ReportStream().feed_together(packed)] == [
        *(Started, Succeeded, Started, Succeeded)
    ]


def test_every_kind_of_message_has_a_number_of_its_own():
    """What one side can say, the other understands."""
    assert {*messages._ORDERS.values()} == {*messages.OrderMessage.__args__}
    assert {*messages._REPORTS.values()} == {*messages.ReportMessage.__args__}
    assert len(messages._ORDERS) == len(messages.Order)
    assert len(messages._REPORTS) == len(messages.Report)


def test_the_largest_order_fits_into_a_packet():
    """An order is one packet, whose size the kernel bounds: here all that can be large is."""
    inputs = b"\xff" * 8 * messages.MAX_INPUTS_IN_ORDER
    told = ["e" * 1000, "m" * (1 << 14), "t" * (1 << 16)]  # as an exception is cut off
    around = ProgramEnvironment("/", (), {"NAME": "v" * (1 << 16)})  # as much as a run may have
    opening = Opening(2**63, "s" * 4000, "F" * 100, "r" * 100, around)
    where = AttemptKey(2**63, 2**63, 2**31), "s" * 100, [2**31] * 50, [2**63] * 50
    order = StartTask(*where, inputs, (), told, opening)
    assert len(pack_order(order)) < messages.MAX_ORDER_BYTES


def test_an_order_to_start_a_task_is_small():
    """What a task inherits is told by an offset: the order does not grow with it."""
    order = StartTask(AttemptKey(1, 123_456, 0), "train", [99_999], [10_000_000], b"\xff" * 8, ())
    assert len(pack_order(order)) < 64


def test_a_longer_report_than_any_buffer_arrives():
    """A step may have tens of thousands of artifacts."""
    report = Succeeded(AttemptKey(1, 1, 0), 0.5, Outcome(b"m" * (20 << 20)), (0, 0))
    stream = ReportStream()
    packed = pack_report(report)
    assert stream.feed(packed[: 1 << 20]) == []
    assert stream.feed(packed[1 << 20 :]) == [report]


def test_a_traceback_that_is_no_text_is_not_sent():
    """A report has to be UTF-8: who describes a failure sees to it."""
    with pytest.raises(UnicodeEncodeError):
        pack_report(Failed(AttemptKey(1, 1, 0), 0.5, "OSError", "caf\udce9", "", True, [0, 0]))
    assert msgpack.unpackb(pack_report(Ready(7))) == [1, 7]
