"""What a run shows is made from its records: an event is made only where that shows more."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow._support.terminal_text import _COLOUR, visible
from asyncflow.cli.final_report import Program
from asyncflow.cli.json_log import JsonView
from asyncflow.cli.nonblocking_output import NonblockingOutput
from asyncflow.cli.progress_view import BarsView, LogView, QuietView
from asyncflow.cli.run_summary import RunSummary
from asyncflow.client import log_text, step_counts
from asyncflow.client.log_text import LogRenderer
from asyncflow.client.step_counts import Tally
from asyncflow.events import RunStarted, TaskStarted, TaskSucceeded
from asyncflow.events.manifests import pack_manifest
from asyncflow.events.packing import journalled
from asyncflow.events.records import fields_of
from asyncflow.events.selection import EventFilter, OutputChunk, RecordedEvents
from asyncflow.events.types import Event, from_microseconds
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.values import ArtifactRef, Encoding, Place
from tests.support.output_records import pack_logged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncflow.events.selection import Publication

NOW = 1_700_000_000_000_000
GRAPH = Graph(
    "F",
    [
        Node("start", ("work",), foreach="items"),
        Node("work", ("join",)),
        Node("join", ("end",), is_join=True),
        Node("end"),
    ],
)
FIRST = RunStarted(flow="F", run_id="1", seq=1, time=from_microseconds(NOW), graph=GRAPH.to_data())


def recorded(kind: type[Any], step: str, task: int, **more: Any) -> RecordedEvents:
    """A record of a task, as an engine publishes it."""
    named = {"flow": "F", "run_id": "1", "seq": 2, "time": from_microseconds(NOW + task)}
    event = kind(**named, step=step, task_id=str(task), attempt=0, **more)
    group = RecordedEvents("F", "1")
    group.values.append(fields_of(journalled(event)[0]))
    return group


def printed(task: int, data: bytes) -> OutputChunk:
    """A chunk of output, likewise."""
    record = pack_logged(2, NOW + task, ("work", task, 0), 0, 7, data, 0)
    return OutputChunk(record, 2, "F", "1", count=data.count(b"\n") or 1)


def run_of(tasks: int, data: bytes = b"a line\nanother\n") -> list[Publication]:
    """A foreach of so many tasks, each of which has printed something."""
    news: list[Publication] = [FIRST, recorded(TaskStarted, "start", 1)]
    news.append(recorded(TaskSucceeded, "start", 1, fanout=tasks))
    for task in range(2, tasks + 2):
        news.append(recorded(TaskStarted, "work", task, path=(task,), item=f"item {task}", pid=7))
        news.append(printed(task, data))
        news.append(recorded(TaskSucceeded, "work", task, path=(task,), seconds=0.5, pid=7))
    return news


@pytest.fixture
def output(tmp_path: Path) -> Iterator[NonblockingOutput]:
    """A file that takes the place of the terminal."""
    with (tmp_path / "log").open("wb") as file:
        yield NonblockingOutput(file.fileno())


VIEWS: dict[str, Callable[[NonblockingOutput], LogView | BarsView | QuietView]] = {
    "pipe": lambda output: LogView(output, output),
    "prints": lambda output: LogView(output, output, brief=True),
    "terminal": lambda output: BarsView(output, colour=True),
    "bars": lambda output: BarsView(output, colour=True, brief=True),
    "quiet": lambda output: QuietView(output, output),
}


@pytest.mark.parametrize("how", VIEWS)
async def test_no_event_is_made_for_what_tasks_do_and_print(output, monkeypatch, how: str) -> None:
    """Nor for the summary: an event for each would take more time than the line."""
    news = run_of(20)
    view, summary = VIEWS[how](output), RunSummary()
    made: list[object] = []
    for cls in (RecordedEvents, OutputChunk):
        monkeypatch.setattr(cls, "events", made.append)
    for module in (log_text, step_counts):
        monkeypatch.setattr(module, "event_of", made.append, raising=False)
        monkeypatch.setattr(module, "events_of", made.append, raising=False)
    await view.show(news)
    summary.count(news)
    await view.close()
    assert made == []


@given(st.lists(st.sampled_from([b"a line\n", b"half", b"one\ntwo\n", b"50%\r", b"\x1b[31mred\n"])))
def test_records_and_their_events_are_counted_and_shown_alike(outputs: list[bytes]) -> None:
    """Whatever tasks print, in colours or not, and with the bars."""
    news = run_of(2)
    for data in outputs:
        news += [printed(2, data), printed(3, b"of another\n")]
    news.append(recorded(TaskSucceeded, "work", 2, path=(2,), seconds=0.5, pid=7))
    events = EventFilter[Event]().pick(news)
    for options in ({}, {"brief": True}, {"colour": True, "terminal": True}):
        assert LogRenderer(**options).render(news) == LogRenderer(**options).render(events)
    of_news, of_events = Tally(), Tally()
    of_news.count(news)
    of_events.count(events)
    assert of_news.rows() == of_events.rows()


def test_a_summary_is_made_from_records_alone() -> None:
    """As those are that are read from a journal: also the run's first, and its last task."""
    ref = ArtifactRef(Place.INLINE, Encoding.PICKLE, "int", 1, b"", "", 0, b"1")
    first = RecordedEvents("F", "1")
    first.values.append(fields_of(journalled(FIRST)[0]))
    end = (
        recorded(TaskStarted, "end", 9),
        recorded(TaskSucceeded, "end", 9, manifest=pack_manifest({"total": ref})),
    )
    news = [first, *run_of(3)[1:], *end]
    of_news, of_events = RunSummary(), RunSummary()
    of_news.count(news)
    of_events.count(EventFilter[Event]().pick(news))
    assert of_news.text("F/1", Program()) == of_events.text("F/1", Program())
    assert "Artifacts of end: total" in of_news.text("F/1", Program())


async def test_nothing_is_rendered_for_the_null_device(monkeypatch) -> None:
    """Nobody reads it, and its run needs none but the last event."""
    monkeypatch.setattr(LogRenderer, "render", None)
    with Path(os.devnull).open("wb") as file:
        output = NonblockingOutput(file.fileno())
        view = LogView(output, output)
        assert not view.needs_all
        await view.show(run_of(1))
        await JsonView(output).show(run_of(1))


async def test_whoever_reads_needs_all(output) -> None:
    """A file, a pipe or a terminal."""
    assert LogView(output, output).needs_all
    assert not QuietView(output, output).needs_all


@given(st.text(st.sampled_from("a \t\n\r\x00\x1b[31;0mé\u202e\x7f\ud800"), max_size=30))
def test_text_for_a_terminal_keeps_its_colours_and_no_other_control_character(text: str) -> None:
    """Text that is nearly all plain takes a short way, and comes out the same."""
    pieces = [visible(piece) for piece in _COLOUR.split(text)]
    colours = [*_COLOUR.findall(text), ""]
    expected = "".join(each for pair in zip(pieces, colours, strict=True) for each in pair)
    assert visible(text, colours=True) == expected
