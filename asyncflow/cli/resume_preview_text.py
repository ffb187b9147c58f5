"""What a resume would do, for people. Values in, text out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncflow.cli.tables import table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncflow.scheduling.resume_preview import StepPreview


def plan_lines(pathspec: str, steps: Sequence[StepPreview]) -> Iterator[str]:
    yield f"A resume of {pathspec} would do this; nothing has been run."
    yield ""
    rows = [[step.step, str(step.reused), _to_run(step), step.why] for step in steps]
    yield from table(["step", "reused", "to run", "why"], rows)


def _to_run(step: StepPreview) -> str:
    if not step.open_ended:
        return str(step.to_run)
    return f"{step.to_run} or more" if step.to_run else "?"
