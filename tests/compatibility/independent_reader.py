r"""Reads a store as its documents say, with no part of asyncflow, and prints as JSON what it holds.

    python independent_reader.py STORE

Written from `docs/design.md`, `docs/reference/events.md` and `docs/reference/values.md` alone. Of
the last it uses the reader that is printed there, which has to be importable as `reader`.
"""

from __future__ import annotations

import fcntl
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgpack
from reader import Run, Unpickler  # type: ignore[import-not-found] # a page of the docs

sys.modules["asyncflow"] = None  # type: ignore[assignment] # nobody imports it, a pickle neither

OF_TASK = ("step", "task_id", "attempt")
FIELDS: dict[int, tuple[str, tuple[str, ...]]] = {
    1: (
        "RunStarted",
        (
            *("graph", "parameters", "tags", "manifest", "origin_run_id", "source", "user"),
            *("pid", "host", "versions", "origin_step", "code_ref", "key", "trace"),
            "signature",
        ),
    ),
    2: ("TaskStarted", (*OF_TASK, "path", "pid", "parents", "node", "item")),
    4: (
        "TaskSucceeded",
        (
            *(*OF_TASK, "path", "manifest", "seconds", "pid", "fanout", "items", "log", "failed"),
            *("choice", "cpu_seconds", "peak_memory", "cards"),
        ),
    ),
    5: (
        "TaskFailed",
        (
            *(*OF_TASK, "path", "exception_type", "message", "traceback", "will_retry"),
            *("seconds", "pid", "log", "caught", "manifest", "cpu_seconds", "peak_memory", "item"),
            "cards",
        ),
    ),
    6: ("TaskRetried", (*OF_TASK, "path", "after_seconds")),
    7: (
        "TaskCloned",
        (
            *(*OF_TASK, "path", "manifest", "fanout", "items"),
            *("origin_run_id", "origin_task_id", "choice", "parents", "item", "cards"),
        ),
    ),
    8: ("RunSucceeded", ("seconds",)),
    9: (
        "RunFailed",
        (*OF_TASK, "exception_type", "message", "traceback", "seconds", "item"),
    ),
    10: ("RunCancelled", ("reason", "seconds", "by_shutdown")),
    11: ("TaskYielded", (*OF_TASK, "path", "manifest", "index", "count", "items", "digests")),
    12: ("CardUpdated", (*OF_TASK, "path", "cards", "pid")),
}
REF = ("place", "encoding", "type_name", "size", "digest", "file", "offset", "data")
LOGGED, STARTED, SUCCEEDED, FAILED, CLONED = 3, 2, 4, 5, 7
ENDED = {8: "succeeded", 9: "failed", 10: "cancelled"}
STATUS = {2: "succeeded", 3: "failed", 4: "succeeded", 5: "cancelled"}
STOPPED = "asyncflow.errors.TaskCancelledError"
PIECE = 65_536


# --- events -------------------------------------------------------------------------------------


def events(flow: str, run_id: str, run: Run) -> list[dict[str, Any]]:
    """Every event of a run, as `asyncflow events --json` prints it."""
    told = []
    for at, record in run.records.items():
        if record[0] == LOGGED:
            told += logged(flow, run_id, record)
        elif record[0] in FIELDS:
            told.append(event(flow, run_id, run, at))
    return told


def event(flow: str, run_id: str, run: Run, at: int) -> dict[str, Any]:
    """One event that is no output."""
    record = run.records[at]
    kind, names = FIELDS[record[0]]
    data = head(kind, flow, run_id, record[1], record[2])
    data |= dict(zip(names, record[3:], strict=False))
    if "task_id" in data:
        data["task_id"] = str(data["task_id"])
    if "manifest" in data:
        del data["manifest"]
        data["artifacts"] = {name: ref_data(ref) for name, ref in run.artifacts(at).items()}
    if "cards" in data:
        cards = msgpack.unpackb(data["cards"]) if data["cards"] else {}
        data["cards"] = {name: ref_data(ref) for name, ref in cards.items()}
    for name in {"items", "code_ref"} & data.keys():
        data[name] = ref_data(msgpack.unpackb(data[name])) if data[name] else None
    if "digests" in data:
        data["digests"] = data["digests"].hex()
    if "ref" in data.get("source", ()):
        data["source"] = {**data["source"], "ref": ref_data(data["source"]["ref"])}
    return data


def head(kind: str, flow: str, run_id: str, seq: int, time: int) -> dict[str, Any]:
    """What every event has."""
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)
    return {"type": kind, "flow": flow, "run_id": run_id, "seq": seq, "time": when.isoformat()}


def ref_data(ref: list[Any]) -> dict[str, Any]:
    """A ref as JSON has it."""
    data = dict(zip(REF, ref, strict=False))
    return {**data, "digest": data["digest"].hex(), "data": data["data"].hex()}


def logged(flow: str, run_id: str, record: list[Any]) -> list[dict[str, Any]]:
    """The events that a chunk of output stands for."""
    _, seq, time, step, task_id, attempt, stream, pid, data, _ = record
    told = []
    for number, piece in enumerate(pieces(data)):
        line, end = text_of(piece), ""
        for each in ("\r\n", "\n"):
            if line.endswith(each):
                line, end = line[: -len(each)], each
                break
        told.append(
            {
                **head("TaskLogged", flow, run_id, seq + number, time),
                "step": step,
                "task_id": str(task_id),
                "attempt": attempt,
                "stream": ("stdout", "stderr")[stream],
                "line": line,
                "end": end,
                "pid": pid,
            }
        )
    return told


def pieces(data: bytes) -> list[bytes]:
    """A chunk, cut as the page on events says."""
    found = []
    at = 0
    while at < len(data):
        end = data.find(b"\n", at) + 1 or len(data)
        while len(data) > PIECE and end - at > PIECE:
            cut = at + PIECE
            for last in (cut - 1, cut - 2, cut - 3):
                byte = data[last]
                if not 0x80 <= byte <= 0xBF:
                    length = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
                    cut = last if last + length > cut else cut
                    break
            found.append(data[at:cut])
            at = cut
        found.append(data[at:end])
        at = end
    return found


def text_of(data: bytes) -> str:
    """Output as text."""
    return data.decode("utf-8", "backslashreplace")


# --- runs and tasks -----------------------------------------------------------------------------


class Store:
    """A store: runs by flow and id."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._runs: dict[tuple[str, str], Run] = {}

    def pathspecs(self) -> list[tuple[str, str]]:
        """Flows by name, the newest run of each first."""
        found = []
        for flow in sorted(path.name for path in (self.root / "flows").iterdir()):
            folders = [path for path in (self.root / "flows" / flow).iterdir() if path.is_dir()]
            runs = [path.name for path in folders if path.name.isdecimal()]
            found += [(flow, run_id) for run_id in sorted(runs, key=int, reverse=True)]
        return found

    def run(self, flow: str, run_id: str) -> Run:
        """A run, also one that was removed."""
        if (flow, run_id) not in self._runs:
            there = (self.root / "flows" / flow / run_id).is_dir()
            name = run_id if there else f".removed/{run_id}"
            self._runs[flow, run_id] = Run(self.root, flow, name)
        return self._runs[flow, run_id]


class Task:
    """One task, from the records that tell of it."""

    def __init__(self, step: str, path: tuple[int, ...]) -> None:
        self.step, self.path = step, path
        self.started = self.ended = self.state = self.attempt = 0
        self.attempts: dict[int, list[Any]] = {}  # the last record of each

    def see(self, at: int, record: list[Any]) -> None:
        """One more record that begins or ends an attempt."""
        code, attempt = record[0], record[5]
        self.attempts[attempt] = record
        if code == STARTED:
            self.started, self.ended, self.state = at, 0, 1
        else:
            begun = self.started if attempt == self.attempt or code == CLONED else 0
            self.started = at if code == CLONED else begun
            self.ended = at
            self.state = {SUCCEEDED: 2, CLONED: 4}.get(code) or (5 if record[7] == STOPPED else 3)
        self.attempt = attempt


def tasks_of(records: dict[int, Any]) -> dict[int, Task]:
    """All tasks of a run that have begun or failed."""
    found: dict[int, Task] = {}
    for at, record in records.items():
        if record[0] in {STARTED, SUCCEEDED, FAILED, CLONED}:
            task = found.setdefault(record[4], Task(record[3], tuple(record[6])))
            task.see(at, record)
    return found


def output(store: Store, flow: str, run_id: str, record: list[Any]) -> list[str]:
    """What the attempt that this record ends has printed; of a clone, where it ran."""
    run = store.run(flow, run_id)
    while record[0] == CLONED:
        run = store.run(flow, record[10])
        found = [
            each
            for each in run.records.values()
            if each[0] in {SUCCEEDED, CLONED} and str(each[4]) == str(record[11])
        ]
        record = found[-1]
    log = (
        record[13 if record[0] == FAILED else 12] if record[0] != STARTED else last_log(run, record)
    )
    return [text_of(run.output(log, stream)) for stream in (0, 1)]


def last_log(run: Run, started: list[Any]) -> int:
    """Where the last output of an attempt lies that has no end."""
    mine = [
        at for at, each in run.records.items() if each[0] == LOGGED and each[4:6] == started[4:6]
    ]
    return mine[-1] if mine else 0


def parents(graph: dict[str, Any], tasks: dict[int, Task], task: Task) -> list[int]:
    """The tasks that it follows."""
    nodes = {node["name"]: node for node in graph["steps"]}
    node = nodes[task.step]
    found: list[int] = []
    for step, before in nodes.items():
        if task.step not in before["next"]:
            continue
        closes = node["is_join"] and nodes[node["joins"]]["fanout"] == "foreach"
        cut = task.path[:-1] if before["fanout"] == "foreach" and not node["is_join"] else task.path
        same = [
            (each.path, number)
            for number, each in tasks.items()
            if each.step == step and (each.path[:-1] if closes else each.path) == cut
        ]
        found += [number for _, number in sorted(same)]
    return found


def is_running(journal: Path) -> bool:
    """Whether somebody writes to it."""
    with journal.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def check_summary(run: Run, tasks: dict[int, Task], steps: list[str]) -> None:
    """Summary and index say what the journal says."""
    summary, index = run.summary()
    journal = (run.folder / "journal").read_bytes()
    offsets = list(run.records)
    assert summary[0] == 1
    assert (summary[1], summary[4]) == (ENDED[run.records[offsets[-1]][0]], run.flow.name)
    assert summary[2:4] == [run.records[20][2], run.records[offsets[-1]][2]]
    assert (summary[6], summary[7], summary[8]) == (20, offsets[-1], len(journal))
    assert summary[9] == run.records[offsets[-1]][1]
    begun = [[step, sum(task.step == step for task in tasks.values())] for step in steps]
    assert summary[11] == begun
    assert summary[12] == run.records[20][5] == sorted(set(summary[12]))
    for number, entry in enumerate(index, 1):
        task = tasks.get(number)
        if task is None:
            assert not any(entry)
            continue
        last = task.path[-1] if task.path else 0
        expected = task.started, task.ended, steps.index(task.step), task.state, task.attempt, last
        assert entry == expected, (number, entry, expected)


def describe(store: Store, flow: str, run_id: str) -> dict[str, Any]:
    """All that there is to say of a run."""
    run = store.run(flow, run_id)
    records: dict[int, Any] = run.records
    first, last = records[20], next(reversed(records.values()))
    tasks = tasks_of(records)
    graph = first[3]
    steps = [node["name"] for node in graph["steps"]]
    unended = "running" if is_running(run.folder / "journal") else "interrupted"
    status = ENDED.get(last[0], unended)
    if (run.folder / "summary").exists():
        check_summary(run, tasks, steps)
    told = {}
    for number, task in sorted(tasks.items()):
        record = task.attempts[task.attempt]
        waits = record[0] == FAILED and record[10] and last[0] not in ENDED
        values = run.artifacts(task.ended) if record[0] != STARTED else {}
        told[f"{task.step}/{number}"] = {
            "status": unended if waits else STATUS.get(task.state, unended),
            "attempt": task.attempt,
            "path": list(task.path),
            "parents": parents(graph, tasks, task),
            "output": output(store, flow, run_id, record),
            "attempts": {
                each: output(store, flow, run_id, task.attempts[each]) for each in task.attempts
            },
            "values": {name: shown(run, ref) for name, ref in values.items()},
        }
    return {
        "pathspec": f"{flow}/{run_id}",
        "status": status,
        "tags": run.tags(),
        "origin": first[7],
        "events": events(flow, run_id, run),
        "tasks": told,
    }


def shown(run: Run, ref: list[Any]) -> str:
    """A value as text."""
    return repr(run.value(ref))


class Caught:
    """A failure that was caught: six texts and numbers."""

    def __setstate__(self, state: list[Any]) -> None:
        self.state = state

    def __repr__(self) -> str:
        return repr(self.state)


def find_class(self: Unpickler, module: str, name: str) -> Any:
    """Any class, without asyncflow."""
    if (module, name) == ("asyncflow.values", "Failure"):
        return Caught
    return with_asyncflow(self, module, name)


with_asyncflow, Unpickler.find_class = Unpickler.find_class, find_class


def main() -> None:
    """Tell of every run."""
    store = Store(Path(sys.argv[1]))
    json.dump([describe(store, *each) for each in store.pathspecs()], sys.stdout)


if __name__ == "__main__":
    main()
