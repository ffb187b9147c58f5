"""What the page shows of a flow: how long its runs took, and the form that starts one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.json_data import iso
from asyncflow.client.run_files import RunRecord
from asyncflow.client.step_spans import step_spans
from asyncflow.errors import AsyncflowError
from asyncflow.events.types import from_microseconds
from asyncflow.flow.parameter_values import KEPT_CHARACTERS
from asyncflow.flow.signature import given_again, signature_of
from asyncflow.page.answers import cut, fitting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncflow.flow.spec import FlowSpec
    from asyncflow.page.opened_runs import OpenedRuns

_MOST_KEPT: Final = 5_000
_MOST_PARAMETERS: Final = 200
_MOST_STEPS: Final = 60
_LOOKED_AT: Final = 50  # runs, to find one whose start can be read


class Durations:
    """How long the runs of flows took; what has ended is kept."""

    def __init__(self, opened: OpenedRuns) -> None:
        """Read nothing yet."""
        self._opened = opened
        self._kept: OrderedDict[tuple[str, str], dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, flow: str, limit: int) -> dict[str, Any]:
        """The latest runs of a flow, oldest first, with the time of each and of its steps.

        Raises:
            NotFoundError: There is no such flow.
        """
        self._opened.place(flow)
        newest = islice(self._opened.store.runs(flow), limit)
        rows = [row for run_id in newest if (row := self._row(flow, run_id)) is not None]
        kept, whole = fitting(rows)
        steps = dict.fromkeys(step for row in kept for step in row["steps"])
        return {"runs": kept[::-1], "steps": list(steps)[:_MOST_STEPS], "cut": not whole}

    def _row(self, flow: str, run_id: str) -> dict[str, Any] | None:
        key = flow, run_id
        with self._lock:
            row = self._kept.get(key)
        if row is None:
            row, is_final = self._made(flow, run_id)
            if row is not None and is_final:
                with self._lock:
                    self._kept[key] = row
                    while len(self._kept) > _MOST_KEPT:
                        self._kept.popitem(last=False)
        return row

    def _made(self, flow: str, run_id: str) -> tuple[dict[str, Any] | None, bool]:
        record = RunRecord(self._opened.place(flow), run_id)
        try:
            if not record.exists():
                return None, False
            summary = record.summary()
            finished = summary.status.finished
            spans = islice(step_spans(record).items(), _MOST_STEPS)
            row = {
                "run_id": run_id,
                "status": str(record.status()),
                "created_at": iso(from_microseconds(summary.started)),
                "seconds": max(summary.finished - summary.started, 0) / 1e6 if finished else None,
                "steps": {
                    step: None if begin is None or end is None else (end - begin) / 1000
                    for step, (begin, end) in spans
                },
            }
        except (AsyncflowError, OSError):
            return None, False  # the list of runs says what is wrong with it
        return row, finished


# --- the form -----------------------------------------------------------------------------------


def form_of(opened: OpenedRuns, flow: str, known: type[FlowSpec] | None) -> dict[str, Any]:
    """The fields of a form that starts a run; `known` is the flow's class, if the page has it.

    Raises:
        NotFoundError: The store has no such flow, and its class is not known either.
        ParameterError: A parameter of the class is wrong.
    """
    latest = (
        None if known is not None and not opened.store.has_flow(flow) else _latest(opened, flow)
    )
    values = {} if latest is None else dict(latest.started.parameters)
    signature = recorded_signature(latest) if known is None else signature_of(known)
    if signature is None:
        fields, doc = [_field(name, {}, text) for name, text in values.items()], ""
    else:
        declared = signature["parameters"]
        fields = [_field(name, each, values.get(name)) for name, each in declared.items()]
        doc = str(signature.get("doc") or "")
    return {
        "flow": flow,
        "known": signature is not None,
        "doc": cut(doc, 2_000),
        "parameters": fitting(fields[:_MOST_PARAMETERS])[0],
        "tags": [] if latest is None else sorted(latest.user_tags())[:50],
    }


def recorded_signature(record: RunRecord | None) -> dict[str, Any] | None:
    """What a run has recorded of its flow; None if it has not, or not in this form."""
    signature = {} if record is None else record.started.signature
    declared = signature.get("parameters")
    if not isinstance(declared, dict) or not all(isinstance(x, dict) for x in declared.values()):
        return None
    return {"doc": signature.get("doc"), "parameters": declared}


def _latest(opened: OpenedRuns, flow: str) -> RunRecord | None:
    place = opened.place(flow)
    for run_id in islice(opened.store.runs(flow), _LOOKED_AT):
        record = RunRecord(place, run_id)
        try:
            if record.exists():
                _ = record.started  # raises if it cannot be read
                return record
        except (AsyncflowError, OSError):
            continue
    return None


def _field(name: str, declared: Mapping[str, Any], shown: str | None) -> dict[str, Any]:
    """One field; `shown` is the value of the latest run, as its first event shows it."""
    kind, default = declared.get("type"), declared.get("default")
    default = cut(default, 2_000) if isinstance(default, str) else None
    # What was cut off would be missing from the new value.
    is_whole = shown is not None and len(shown) < KEPT_CHARACTERS
    value = given_again(shown, declared) if shown is not None and is_whole else None
    return {
        "name": cut(name, 200),
        "type": cut(kind, 100) if isinstance(kind, str) else None,
        "default": default,
        "value": cut(value if value is not None else default or "", 2_000),
        "required": declared.get("required") is True,
        "help": cut(str(declared.get("help") or ""), 1_000),
        "multiple": declared.get("multiple") is True,
    }
