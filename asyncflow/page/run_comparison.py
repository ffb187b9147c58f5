"""Two runs side by side: parameters, code, artifacts by their hashes, and timings.

A value that is equal in both runs is not read. Of one that differs, a short preview is shown.
"""

from __future__ import annotations

import difflib
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.attempts import Attempts
from asyncflow.client.code import code_of
from asyncflow.client.previews import PreviewLimits, preview_of
from asyncflow.client.step_spans import step_numbers, step_spans
from asyncflow.errors import ArtifactError, AsyncflowError
from asyncflow.page.answers import cut, fitting, shrink
from asyncflow.page.run_rows import row_data, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asyncflow.client.run_files import RunRecord
    from asyncflow.values import ArtifactRef

_MOST_PREVIEWS: Final = 60
_MOST_CHANGES: Final = 500
_MOST_FILE_CHARACTERS: Final = 300_000  # of one file that is compared line by line
_MOST_LINES: Final = 2_000  # of a diff
_SHORT: Final = PreviewLimits(characters=120, items=10, rows=2, seconds=0.02, bytes_read=64 << 10)


def compare(before: RunRecord, after: RunRecord) -> dict[str, Any]:
    """What differs between two runs, as plain data.

    Raises:
        JournalError: One is damaged.
    """
    changes = list(islice(_artifacts(before, after), _MOST_CHANGES + 1))
    same = sum(1 for change in changes if change is None)
    differing = [change for change in changes if change is not None]
    rows, whole = fitting(_with_previews(before, after, differing), 80_000)
    data = {
        "runs": [_row(before), _row(after)],
        "parameters": _parameters(before.started.parameters, after.started.parameters),
        "code": _code(before, after),
        "artifacts": rows,
        "artifacts_cut": not whole,
        "artifacts_same": same,
        "steps": _steps(before, after),
    }
    shrink(data, [_with_short_diffs, _without_code])
    return data


def _row(record: RunRecord) -> dict[str, Any]:
    return {**shown(row_data(record)), "tags": sorted(record.user_tags())[:50]}


def _parameters(before: Mapping[str, str], after: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"name": name, "a": _short(before.get(name)), "b": _short(after.get(name))}
        for name in islice(dict.fromkeys([*before, *after]), 200)
        if before.get(name) != after.get(name)
    ]


def _short(text: str | None) -> str | None:
    return None if text is None else cut(text, 1_000)


# --- code ---------------------------------------------------------------------------------------


def _code(before: RunRecord, after: RunRecord) -> list[dict[str, Any]] | None:
    """A diff of each source file that differs; None if it is not known."""
    if before.code_ref() is None or after.code_ref() is None:
        return None
    if before.code_ref() == after.code_ref():
        return []
    try:
        first, second = code_of(before), code_of(after)
    except ArtifactError:
        return None
    if first is None or second is None:
        return None
    one, two = first.files, second.files
    names = [name for name in sorted({*one, *two}) if one.get(name) != two.get(name)]
    return [
        _file(name, one.get(name, ""), two.get(name, ""), before, after) for name in names[:100]
    ]


def _file(
    name: str, first: str, second: str, before: RunRecord, after: RunRecord
) -> dict[str, Any]:
    if max(len(first), len(second)) > _MOST_FILE_CHARACTERS:
        return {"file": cut(name, 500), "diff": [], "cut": True}
    lines = difflib.unified_diff(
        first.splitlines(),
        second.splitlines(),
        f"{before.pathspec}/{name}",
        f"{after.pathspec}/{name}",
        lineterm="",
    )
    shown_lines = [cut(line, 500) for line in islice(lines, _MOST_LINES)]
    kept, whole = fitting(shown_lines, 60_000)
    is_cut = not whole or len(shown_lines) == _MOST_LINES
    return {"file": cut(name, 500), "diff": kept, "cut": is_cut}


def _with_short_diffs(data: dict[str, Any]) -> None:
    for file in data["code"] or ():
        file["cut"] = file["cut"] or len(file["diff"]) > 50  # noqa: PLR2004 - the first lines
        file["diff"] = file["diff"][:50]


def _without_code(data: dict[str, Any]) -> None:
    data["code"] = [{**file, "diff": [], "cut": True} for file in (data["code"] or ())[:20]]


# --- artifacts ----------------------------------------------------------------------------------


class _Change:
    """An artifact that differs, or that one of the runs alone has."""

    __slots__ = ("after", "before", "name", "step")

    def __init__(
        self, step: str, name: str, before: ArtifactRef | None, after: ArtifactRef | None
    ) -> None:
        self.step, self.name, self.before, self.after = step, name, before, after

    @property
    def standing(self) -> str:
        if self.before is None or self.after is None:
            return "only b" if self.before is None else "only a"
        return "changed"


def _artifacts(before: RunRecord, after: RunRecord) -> Iterator[_Change | None]:
    """What differs; None for each artifact that is the same."""
    first, second = _manifests(before), _manifests(after)
    sha_before, sha_after = before.place.artifacts.sha, after.place.artifacts.sha
    for step, artifacts in first.items():
        others = second.get(step)
        if others is None:
            continue
        for name in dict.fromkeys([*artifacts, *others]):
            one, two = artifacts.get(name), others.get(name)
            same = one is not None and two is not None and sha_before(one) == sha_after(two)
            yield None if same else _Change(step, name, one, two)


def _manifests(record: RunRecord) -> dict[str, Mapping[str, ArtifactRef]]:
    """The artifacts of each step with one task, by name."""
    found: dict[str, Mapping[str, ArtifactRef]] = {}
    table = record.tasks.table()
    for step, number in step_numbers(record).items():
        if record.tasks.steps().get(step) == 1:
            found[step] = Attempts(record, step, table.first_of(number)).manifest()
    return found


def _with_previews(
    before: RunRecord, after: RunRecord, changes: list[_Change]
) -> Iterator[dict[str, Any]]:
    for number, change in enumerate(changes):
        with_preview = number < _MOST_PREVIEWS
        yield {
            "step": change.step,
            "name": cut(change.name, 200),
            "standing": change.standing,
            "a": _side(before, change.before, with_preview=with_preview),
            "b": _side(after, change.after, with_preview=with_preview),
        }


def _side(
    record: RunRecord, ref: ArtifactRef | None, *, with_preview: bool
) -> dict[str, Any] | None:
    if ref is None:
        return None
    preview = None
    if with_preview:
        preview, _ = preview_of(record.place.artifacts, ref, record.pathspec, _SHORT)
    return {"type": cut(ref.type_name, 200), "size": ref.size, "preview": preview}


# --- timings ------------------------------------------------------------------------------------


def _steps(before: RunRecord, after: RunRecord) -> list[dict[str, Any]]:
    first, second = _timings(before), _timings(after)
    names = dict.fromkeys([*first, *second])
    return [{"step": name, "a": first.get(name), "b": second.get(name)} for name in names][:500]


def _timings(record: RunRecord) -> dict[str, dict[str, Any]]:
    table = record.tasks.table()
    try:
        spans = step_spans(record)
    except AsyncflowError:
        spans = {}
    found = {}
    for step, number in step_numbers(record).items():
        states = table.states_of(number)
        begun = sum(states.values())
        if begun:
            first, last = spans.get(step, (None, None))
            found[step] = {
                "tasks": begun,
                "failed": sum(n for state, n in states.items() if state.name == "FAILED"),
                "seconds": None if first is None or last is None else (last - first) / 1000,
            }
    return found
