"""The first screen of a run: what it is, its graph, how far each step is, and what to do now.

Nothing here reads a long journal from end to end, unless that is asked for. What cannot be read is
null, and `problem` says why: a damaged run, or one of a newer version, shows what is known.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.json_data import failure_data
from asyncflow.client.resume_hint import resume_command, step_to_repeat
from asyncflow.client.resumptions import Resumptions
from asyncflow.client.step_rows import step_rows, step_times
from asyncflow.client.waiting import waits_of
from asyncflow.errors import AsyncflowError
from asyncflow.events.types import RunCancelled, RunFailed
from asyncflow.page.answers import cut, problem_of, shrink
from asyncflow.page.critical_path import critical_path
from asyncflow.page.graph_layout import graph_data
from asyncflow.page.run_rows import row_data, shown, unreadable_row
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncflow.client.run_files import RunRecord
    from asyncflow.events.types import RunStarted

_MOST_PARAMETERS: Final = 200
_MOST_TAGS: Final = 200
_TEXT: Final = 2_000  # characters of a parameter's value
_TRACEBACK: Final = 20_000
_MOST_RECORDS: Final = 20_000  # read to find the step that made a damaged value
_READING: Final = (AsyncflowError, OSError)


def overview(
    record: RunRecord,
    find_resumed: Callable[[], list[str]] | None = None,
    *,
    all_times: bool = False,
) -> dict[str, Any]:
    """All that the first screen of a run shows; `find_resumed` has the runs that resumed it.

    With `all_times`, the journal is read for the times of the steps, if they are nowhere else.
    """
    resumed_as = find_resumed or (lambda: Resumptions(record.place).of(record.run_id))
    problem: dict[str, Any] | None = None

    def part(make: Callable[[], Any], otherwise: Any = None) -> Any:
        nonlocal problem
        try:
            return make()
        except _READING as error:
            message, do = problem_of(error)
            problem = problem or {"message": cut(message, _TEXT), "do": do}
            return otherwise

    # Events that come while this is read are told again by `api/watch`.
    seq = part(lambda: record.summary().events)
    times = part(lambda: step_times(record, whole=all_times))
    data = {
        "run": {**_row(record), **part(lambda: _start(record.started), {})},
        "what_now": part(lambda: what_now(record, resumed_as)),
        "graph": part(lambda: graph_data(record.journal.graph)),
        "steps": part(lambda: step_rows(record, times), []),
        "waits": part(lambda: waits_of(record), []),
        "critical": part(lambda: critical_path(record)),
        "seq": seq or 0,
        "problem": None,
    }
    data["run"]["failure"] = part(lambda: _failure(record))
    data["run"]["tags"] = part(lambda: sorted(record.user_tags())[:_MOST_TAGS], [])
    data["run"]["system_tags"] = part(lambda: sorted(record.system_tags()), [])
    data["run"]["resumed_as"] = part(lambda: resumed_as()[-20:], [])
    data["problem"] = problem
    shrink(data, [_without_traceback, _without_docs, _without_points, _without_graph])
    return data


def _row(record: RunRecord) -> dict[str, Any]:
    try:
        return shown(row_data(record))
    except _READING as error:
        return shown(unreadable_row(record.place.flow, record.run_id, error))


def _start(started: RunStarted) -> dict[str, Any]:
    source = started.source
    return {
        "host": cut(started.host, _TEXT),
        "pid": started.pid,
        "versions": {name: cut(str(text), 100) for name, text in started.versions.items()},
        "key": started.key,
        "origin_step": started.origin_step,
        "parameters": {
            name: cut(text, _TEXT)
            for name, text in islice(started.parameters.items(), _MOST_PARAMETERS)
        },
        "source": cut(str(source.get("file") or source.get("module") or ""), _TEXT),
    }


def _failure(record: RunRecord) -> dict[str, Any] | None:
    ended = record.ended()
    if not isinstance(ended, RunFailed):
        return None
    told = failure_data(record.place.flow, record.run_id, ended.failure, ended.item)
    told["message"] = cut(told["message"], _TEXT * 2)
    told["traceback"] = tail_of(told["traceback"], _TRACEBACK)
    return told


def tail_of(text: str, most: int) -> str:
    """The end of a text: that of a traceback says most."""
    return text if len(text) <= most else "…" + text[-most:]


# --- what to do now -----------------------------------------------------------------------------


def what_now(record: RunRecord, resumed_as: Callable[[], list[str]]) -> dict[str, Any]:
    """How a run stands in a sentence, and the command that goes on from there.

    Raises:
        JournalError: It is damaged.
    """
    match record.status():
        case Status.RUNNING:
            return {"text": "The run goes on.", "command": None}
        case Status.SUCCEEDED:
            return {"text": "The run has succeeded.", "command": None}
        case Status.FAILED:
            return _after_failure(record)
        case Status.CANCELLED:
            ended = record.ended()
            why = ended.reason if isinstance(ended, RunCancelled) else ""
            why = f": {cut(why, 500)}" if why else ""
            text = f"The run was cancelled{why}. A resume goes on where it was."
            return {"text": text, "command": resume_command(record.stored)}
        case Status.INTERRUPTED:
            return _after_interruption(record, resumed_as())


def _after_failure(record: RunRecord) -> dict[str, Any]:
    ended = record.ended()
    if not isinstance(ended, RunFailed):
        return {"text": "The run has failed.", "command": resume_command(record.stored)}
    step = step_to_repeat(record.stored, ended.failure, _MOST_RECORDS)
    if step:
        text = (
            f"A value that the run has stored cannot be read. A resume from {step} makes it anew."
        )
    else:
        where = f" in the step {ended.step}" if ended.step else ""
        text = (
            f"The run has failed{where}. Mend the cause, then resume: what has succeeded is not "
            "run again."
        )
    return {"text": text, "command": resume_command(record.stored, step)}


def _after_interruption(record: RunRecord, later: list[str]) -> dict[str, Any]:
    if later:
        text = f"The engine of this run is gone. The run goes on as {later[-1]}."
        return {"text": text, "command": None}
    return {
        "text": "The engine of this run is gone without recording an end. A resume goes on from "
        "what is recorded.",
        "command": resume_command(record.stored),
    }


# --- what is left out if it is too much ---------------------------------------------------------


def _without_traceback(data: dict[str, Any]) -> None:
    if data["run"]["failure"]:
        data["run"]["failure"]["traceback"] = tail_of(data["run"]["failure"]["traceback"], 2_000)
    parameters = data["run"].get("parameters") or {}
    data["run"]["parameters"] = {name: cut(text, 100) for name, text in parameters.items()}


def _without_docs(data: dict[str, Any]) -> None:
    for node in (data["graph"] or {}).get("nodes", ()):
        node["doc"], node["options"] = cut(node["doc"].partition("\n")[0], 60), []


def _without_points(data: dict[str, Any]) -> None:
    for edge in (data["graph"] or {}).get("edges", ()):
        edge["points"] = [edge["points"][0], edge["points"][-1]]


def _without_graph(data: dict[str, Any]) -> None:
    """A flow of thousands of steps: its first ones, without a picture."""
    data["graph"], data["waits"], data["critical"] = None, data["waits"][:20], None
    count = len(data["steps"])
    while data["steps"] and len(str(data["steps"])) > 150_000:  # noqa: PLR2004 - leaves room for the rest
        data["steps"] = data["steps"][: len(data["steps"]) * 3 // 4]
    data["steps_cut"] = count - len(data["steps"])
    data["run"]["parameters"] = {}
