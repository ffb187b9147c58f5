"""The log made from records is the log made from their events."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asyncflow.client.log_text import LogRenderer
from asyncflow.events.packing import events_of, pack_event
from asyncflow.events.records import fields_of
from asyncflow.events.types import TaskStarted, TaskSucceeded, from_microseconds
from tests.support.call_counts import counted_calls
from tests.support.output_records import pack_logged

_TASKS = st.tuples(st.sampled_from(["start", "train"]), st.integers(1, 3), st.integers(0, 1))
_OUTPUT = st.lists(
    st.sampled_from([b"a line", b"\n", b"\r", b"\r\n", b"\xc3\xa9", b"\xff", b"\x1b[31m", b" "]),
    max_size=8,
).map(b"".join)


def _record(kind: int, task: tuple[str, int, int], data: bytes, second: int) -> bytes:
    step, number, attempt = task
    time = 1_700_000_000_000_000 + 400_000 * second
    if kind == 0 and data:
        return pack_logged(2, time, task, len(data) % 2, 7, data, 0)
    event = (TaskStarted, TaskSucceeded)[kind % 2]
    item: dict[str, Any] = {"item": "[1, 2]"} if event is TaskStarted else {}
    return pack_event(
        event(
            flow="F",
            run_id="1",
            seq=2,
            time=from_microseconds(time),
            step=step,
            task_id=str(number),
            attempt=attempt,
            path=(),
            pid=7,
            **item,
        )
    )


@given(
    records=st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 2]), _TASKS, _OUTPUT), max_size=12),
    terminal=st.booleans(),
    colour=st.booleans(),
    brief=st.booleans(),
)
def test_records_and_their_events_give_the_same_lines(records, terminal, colour, brief):
    """Whatever tasks print, and however the log is shown."""
    quick = LogRenderer(terminal=terminal, colour=colour, brief=brief)
    plain = LogRenderer(terminal=terminal, colour=colour, brief=brief)
    values = [
        fields_of(_record(kind, task, data, second))
        for second, (kind, task, data) in enumerate(records)
    ]
    lines = [plain.render(events_of(each, "F", "1")) for each in values]
    assert quick.of_records(values[:5], "F", "1") == "".join(lines[:5])
    assert quick.of_records(values[5:], "F", "1") == "".join(lines[5:])


def test_what_the_two_lines_of_a_task_cost():
    """They took 25 calls, and now 9: what they share is made once."""
    tasks = [("train", number, 0) for number in range(1, 101)]
    records = [fields_of(_record(kind, task, b"", 0)) for task in tasks for kind in (2, 1)]
    renderer = LogRenderer()
    with counted_calls() as calls:
        text = renderer.of_records(records, "F", "1")
    assert text.count("\n") == 200
    assert calls[0] / 100 < 12
