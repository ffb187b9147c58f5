"""A run as one HTML file to send: its graph, timeline, steps, failures, results and cards.

The file needs no network, and nothing in it is loaded from elsewhere. Its size is bounded: failed
tasks and their cards come first, and what is left out is said.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.version import VERSION
from asyncflow.card_content.drawing import uses_vega
from asyncflow.card_content.html import html_for_frame, page_with
from asyncflow.client.card_drawing import artifact_parts
from asyncflow.client.cards import get_cards
from asyncflow.errors import AsyncflowError
from asyncflow.page.answers import cut
from asyncflow.page.run_overview import overview
from asyncflow.page.timeline import TimelineChoice, timeline
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncflow.client.cards import Card
    from asyncflow.client.objects import Run, Task

MOST_CARDS: Final = 50
_MOST_FAILED: Final = 20
_MOST_BYTES: Final = 32 << 20
"""Of all cards; one that does not fit is left out."""
_TIMELINE_COLUMNS: Final = 1_000
_READING: Final = (AsyncflowError, OSError)


def report(run: Run, *, most_cards: int = MOST_CARDS) -> str:
    """A run as one HTML file.

    Args:
        run: The run, ended or not: it is shown as it is now.
        most_cards: The most cards that the file has, those of failed tasks first.

    Raises:
        StoreError: The run cannot be read at all.
    """
    record = run._record  # noqa: SLF001 - the page asks the record as the views do
    data = overview(record)
    cards, left_out = _cards(run, most_cards)
    data |= {
        "made": {"at": int(time.time()), "by": f"asyncflow {VERSION}"},
        "timeline": _part(lambda: timeline(record, _choice(), _now(run))),
        "failed": _part(lambda: list(_failed(run))) or [],
        "results": _part(lambda: _results(run)) or [],
        "cards": cards,
        "cards_left_out": left_out,
    }
    parts = [part for card in cards for part in card["parts"]]
    return page_with(
        run.pathspec,
        {"report": data},
        charts=uses_vega(parts),
        scripts=["report.js"],
        styles=["report.css"],
        has_html=any(card["html"] is not None for card in cards),
    )


def _choice() -> TimelineChoice:
    return TimelineChoice(columns=_TIMELINE_COLUMNS, cut_idle=True)


def _now(run: Run) -> int:
    return int((time.time() - run.created_at.timestamp()) * 1000)


def _part(make: Any) -> Any:
    """A part of the report; None if it cannot be read, which the overview says."""
    try:
        return make()
    except _READING:
        return None


def _failed(run: Run) -> Iterator[dict[str, Any]]:
    """The tasks that have failed, with their tracebacks."""
    for task in islice(run.tasks(status="failed"), _MOST_FAILED):
        failure = task.exception
        if failure is not None:
            yield {
                "task": f"{failure.step}/{failure.task_id}"
                + (f" for {task.item}" if task.item else ""),
                "attempt": failure.attempt,
                "text": cut(f"{failure.type}: {failure.message}", 4_000),
                "traceback": failure.traceback[-20_000:],
            }


def _results(run: Run) -> list[dict[str, Any]]:
    """What the last step has passed on."""
    task = run.end_task
    return [] if task is None else list(artifact_parts(task))


def _cards(run: Run, most: int) -> tuple[list[dict[str, Any]], int]:
    """The drawings of the cards, those of failed tasks first, and how many are left out."""
    drawn: list[dict[str, Any]] = []
    room, left_out = _MOST_BYTES, 0
    for card in _all_cards(run):
        if len(drawn) >= most or room <= 0:
            left_out += 1
            continue
        drawing = _part(card.drawing)
        if drawing is None:
            left_out += 1
            continue
        # What the default card says of each task, the report says of all.
        drawing["parts"] = [part for part in drawing["parts"] if part["kind"] != "section"]
        if not drawing["parts"] and drawing["html"] is None:
            continue
        if drawing["html"] is not None:
            drawing["html"] = html_for_frame(drawing["html"])
        size = _size_of(drawing)
        if size > room:
            left_out += 1
            continue
        room -= size
        drawn.append(drawing)
    return drawn, left_out


def _all_cards(run: Run) -> Iterator[Card]:
    with_cards = {node.name for node in run.graph if node.options.get("card")}
    if not with_cards:
        return
    for task in _tasks(run, with_cards, failed=True):
        yield from get_cards(task)
    for task in _tasks(run, with_cards, failed=False):
        yield from get_cards(task)


def _tasks(run: Run, steps: set[str], *, failed: bool) -> Iterator[Task]:
    others = [status for status in Status if status is not Status.FAILED]
    wanted: Any = Status.FAILED if failed else others
    for step in run:
        if step.id in steps:
            yield from step.tasks(status=wanted)


def _size_of(data: Any) -> int:
    """About how many bytes these plain data take as JSON."""
    if isinstance(data, str):
        return len(data) + 2
    if isinstance(data, dict):
        return sum(len(name) + 4 + _size_of(each) for name, each in data.items())
    if isinstance(data, list):
        return sum(_size_of(each) + 1 for each in data)
    return 8
