"""What a resume would do, for people and for programs. Values in, text out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


def plan_data(steps: Sequence[StepPreview]) -> list[dict[str, Any]]:
    """The same as plain data for JSON; `at_least` if the number is known only later."""
    return [
        {
            "step": step.step,
            "reused": step.reused,
            "to_run": step.to_run,
            "at_least": bool(step.open_ended),
            "why": step.why,
        }
        for step in steps
    ]
