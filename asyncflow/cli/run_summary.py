"""The summary below the log of a run that was shown briefly: its steps, and what it has made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.step_counts import Tally
from asyncflow.client.words import how_long
from asyncflow.events.drafts import event_of
from asyncflow.events.records import HANDING_ON, RUN_STARTED, step_of
from asyncflow.events.selection import OutputChunk, RecordedEvents
from asyncflow.events.types import RunStarted, TaskCloned, TaskSucceeded
from asyncflow.flow.graph import Graph

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncflow.cli.final_report import Program
    from asyncflow.client.step_counts import StepTally
    from asyncflow.events.selection import Publication
    from asyncflow.events.types import Event

_NAMED: Final = 12  # artifacts


class RunSummary:
    """Counts a run's events, and describes it at its end."""

    def __init__(self) -> None:
        """Count nothing yet."""
        self._tally = Tally()
        self._end = ""
        self._made: TaskSucceeded | TaskCloned | None = None  # of the last step

    def count(self, batch: Iterable[Publication]) -> None:
        """Count events, in their order."""
        self._tally.count(batch)
        for item in batch:
            if isinstance(item, RecordedEvents):
                for values in item.values:
                    if values[0] == RUN_STARTED or self._is_end(values):
                        self._note(event_of(values, item.flow, item.run_id, item.resolve))
            elif not isinstance(item, OutputChunk):
                self._note(item)

    def _is_end(self, values: Sequence[Any]) -> bool:
        return values[0] in HANDING_ON and step_of(values) == self._end

    def _note(self, event: Event) -> None:
        if isinstance(event, TaskSucceeded | TaskCloned) and event.step == self._end:
            self._made = event
        elif isinstance(event, RunStarted):
            graph = Graph.from_data(event.graph)
            self._end = next((node.name for node in graph if node.is_end), "")

    def text(self, pathspec: str, program: Program) -> str:
        """The summary, with an empty line before it."""
        from asyncflow.cli.tables import table

        rows = [_row(step) for step in self._tally.rows() if step.done or step.failed]
        lines = ["", *table(("STEP", "TASKS", "SECONDS", ""), rows)]
        names = sorted(self._made.artifacts) if self._made is not None else []
        if names:
            lines += [f"Artifacts of {self._end}: {', '.join(_some(names))}"]
        lines.append(f"More:  {program.show(pathspec)}")
        return "\n".join(lines) + "\n"


def _row(step: StepTally) -> tuple[str, str, str, str]:
    remarks = [
        f"{count:,} {what}"
        for count, what in ((step.failed, "failed"), (step.retried, "tried again"))
        if count
    ]
    return (
        step.step,
        f"{step.done + step.failed:,}",
        how_long(step.seconds),
        ", ".join(remarks),
    )


def _some(names: list[str]) -> Iterator[str]:
    yield from names[:_NAMED]
    if len(names) > _NAMED:
        yield f"and {len(names) - _NAMED:,} more"
