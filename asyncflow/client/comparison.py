"""Two runs side by side: what differs, as plain data, without reading a value."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from asyncflow.client.json_data import parameters_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asyncflow.client.objects import Run


def compare_runs(before: Run, after: Run) -> dict[str, Any]:
    """What differs between two runs, as plain data.

    Artifacts are those of the tasks of `end` and of each step that has one task, compared by the
    hash of their bytes. Two values may be equal and have other bytes, as sets have.

    Returns:
        `runs`, `code` (a unified diff by file), `parameters`, `artifacts` (by step and name:
        `same`, `changed`, or in which run alone), and `seconds` (of the run and by step).
    """
    return {
        "runs": [before.pathspec, after.pathspec],
        "code": code_changes(before, after),
        "parameters": _changes(parameters_of(before), parameters_of(after)),
        "artifacts": _artifacts(before, after),
        "seconds": {
            "run": [before.seconds, after.seconds],
            "steps": {
                name: [_seconds(before, name), _seconds(after, name)]
                for name in dict.fromkeys(step.id for run in (before, after) for step in run)
            },
        },
    }


def code_changes(before: Run, after: Run) -> dict[str, list[str]] | None:
    """A unified diff of each source file that differs; None if a run's code was not kept."""
    first, second = before.code, after.code
    if first is None or second is None:
        return None
    return {
        name: list(
            difflib.unified_diff(
                first.files.get(name, "").splitlines(),
                second.files.get(name, "").splitlines(),
                f"{before.pathspec}/{name}",
                f"{after.pathspec}/{name}",
                lineterm="",
            )
        )
        for name in sorted({*first.files, *second.files})
        if first.files.get(name) != second.files.get(name)
    }


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, list[str | None]]:
    return {
        name: [before.get(name), after.get(name)]
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    }


def _artifacts(before: Run, after: Run) -> dict[str, dict[str, str]]:
    first, second = dict(_hashes(before)), dict(_hashes(after))
    return {
        step: {
            name: _standing(first[step].get(name), second[step].get(name))
            for name in dict.fromkeys([*first[step], *second[step]])
        }
        for step in first
        if step in second
    }


def _standing(before: str | None, after: str | None) -> str:
    if before is None or after is None:
        return "only before" if after is None else "only after"
    return "same" if before == after else "changed"


def _hashes(run: Run) -> Iterator[tuple[str, dict[str, str]]]:
    for step in run:
        if step.task_count == 1:
            task = next(iter(step))
            yield step.id, {artifact.id: artifact.sha for artifact in task}


def _seconds(run: Run, name: str) -> float | None:
    if name not in run:
        return None
    times = [task.seconds for task in run[name]]
    return sum(each for each in times if each is not None)
