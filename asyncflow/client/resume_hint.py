"""The commands in error messages, written so that they work when pasted."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.settings import store_arguments
from asyncflow.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    AsyncflowError,
)
from asyncflow.events.packing import unpack_events
from asyncflow.events.records import HANDING_ON, code_of, unpack_result
from asyncflow.events.types import RunStarted
from asyncflow.store.journal import FIRST_RECORD
from asyncflow.store.manifests import JournalManifests

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asyncflow.store.interface import StoredRun
    from asyncflow.values import Failure

_UNREADABLE = (AsyncflowError, OSError)
_SPOILT: Final = {
    f"{kind.__module__}.{kind.__qualname__}"
    for kind in (ArtifactCorruptError, ArtifactMissingError)
}
_NAMED: Final = re.compile(r"artifact '([^']+)'")  # how the text of these errors begins


def resume_command(run: StoredRun, step: str = "") -> str:
    """The command that resumes a run.

    With `step`, that step and all steps after it run again. The command names FILE if the journal
    does not know the flow's file, or it is gone. For a flow without a file, such as one in a
    notebook, it is a line of Python.
    """
    flow, run_id = run.flow, run.run_id
    source = _source_of(run)
    if source.get("kind") == "pickle":
        again = f', step="{step}"' if step else ""
        elsewhere = store_arguments(run.store.location)
        where = f", store={elsewhere[-1]!r}" if elsewhere else ""
        return f'await asyncflow.resume({flow}, origin="{run_id}"{again}{where})'
    steps = [step] if step else []
    words = ["asyncflow", "resume", f"{_file_of(source)}:{flow}", *steps, "--origin-run-id", run_id]
    return shlex.join([*words, *store_arguments(run.store.location)])


def logs_command(pathspec: str, run: StoredRun) -> str:
    """The command that shows the output of a task of that run, or of the run."""
    return shlex.join(["asyncflow", "logs", pathspec, *store_arguments(run.store.location)])


def step_to_repeat(run: StoredRun, failure: Failure, most_records: int | None = None) -> str:
    """The step to resume from, for a run that failed because an artifact is damaged or gone.

    It is the first step that passed on these very bytes; a resume without it would read them again.
    Empty if another failure ended the run, or if the first `most_records` of the journal do not
    name the step: a parameter, for example, comes from none.
    """
    found = _NAMED.match(failure.message)
    if failure.exception_type not in _SPOILT or found is None:
        return ""
    of, _, artifact = found[1].rpartition("/")
    step, _, task_id = of.removeprefix(f"{run.pathspec}/").partition("/")
    if not of.startswith(f"{run.pathspec}/") or not task_id:
        return ""
    if "[" in artifact:  # an item of a foreach: the step that fans out stores all items anew
        return step
    with suppress(*_UNREADABLE), run.open_journal() as reader:
        manifests = JournalManifests(reader.read_one, run.journal_file)
        read = islice(reader.read_from(), most_records)
        records = ((at, record) for at, record, _ in read)
        return _first_with(artifact, (step, task_id), records, manifests)
    return ""


def _first_with(
    artifact: str,
    last: tuple[str, str],
    records: Iterable[tuple[int, bytes]],
    manifests: JournalManifests,
) -> str:
    """The first step with the same value of the artifact as task `last`, or as the latest task."""
    first: dict[tuple[object, ...], str] = {}
    made_by = ""
    for at, record in records:
        if code_of(record) not in HANDING_ON:
            continue
        result = unpack_result(record)
        ref = manifests.of(at, record, result.outcome.manifest).get(artifact)
        if ref is not None:
            made_by = first.setdefault((ref.digest, ref.file, ref.offset, ref.data), result.step)
            if (result.step, str(result.task_id)) == last:
                break
    return made_by


def _source_of(run: StoredRun) -> Mapping[str, Any]:
    """The file of the run's flow; empty if the journal does not say."""
    with suppress(*_UNREADABLE), run.open_journal() as reader:
        for event in unpack_events(reader.read_one(FIRST_RECORD), "", ""):
            if isinstance(event, RunStarted):
                return event.source
    return {}


def _file_of(source: Mapping[str, Any]) -> str:
    with suppress(OSError, ValueError, TypeError):  # another program's idea of a path
        path = Path(source.get("file") or "FILE")
        if path.is_file():
            here = Path.cwd()
            return str(path.relative_to(here) if path.is_relative_to(here) else path)
    return "FILE"
