"""Kills a process at a commit point, resumes what is left of the run, and checks the promises.

One case again, with what its processes say:

    python -m tests.durability.chaos.killing SCENARIO [engine|worker|gc POINT HIT exit|kill]
"""

from __future__ import annotations

import ast
import atexit
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncflow
from asyncflow import Flow, Run, events
from asyncflow.errors import NotFoundError, StoreError
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance import verify
from asyncflow.values import Status
from tests.durability.chaos import tidying
from tests.durability.chaos.child import EXIT_STATUS
from tests.durability.chaos.scenarios import SCENARIOS, STORMS

if TYPE_CHECKING:
    from collections.abc import Iterable

_SECONDS = 180.0  # nothing here takes a hundredth of it
_ROOT = Path(__file__).parents[3]


class Fault(NamedTuple):
    """Where a process is to die, and how."""

    role: str
    """`engine`, `worker`, or `gc`: the process that removes runs and collects garbage."""
    point: str
    hit: int
    way: str
    """`exit`: by itself, in the middle of it. `kill`: by SIGKILL from outside, while it stands."""

    def __str__(self) -> str:
        return " ".join(map(str, self))


class Outcome(NamedTuple):
    """What came of a case."""

    died: bool
    """Whether the point was reached: which worker does what is not the same each time."""
    runs: int


@cache
def points_in_code() -> frozenset[str]:
    """The names of all commit points, read from the source of asyncflow.

    Those of an object store are left out: `tests/cluster` passes them. So are those of a run that
    is copied, which `tests/store/test_copy_runs.py` passes.
    """
    found = set()
    for path in Path(asyncflow.__file__).parent.rglob("*.py"):
        if path.parent.name == "object_store" or path.name.startswith(("object_", "incoming_run")):
            continue
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)) if "reached(" in source else ():
            match node:
                case ast.Call(func=ast.Name("reached"), args=[ast.Constant(str(name))]):
                    found.add(name)
                case ast.Call(func=ast.Name("reached")):
                    message = f"{path}:{node.lineno}: the name of a commit point is a literal text"
                    raise AssertionError(message)
    return frozenset(found)


class Case:
    """One scenario in a store of its own."""

    def __init__(self, name: str, folder: Path, store: Path | None = None) -> None:
        self.name, self.scenario = name, (SCENARIOS | STORMS)[name]
        self.store, self._folder = store or folder / "store", folder
        self._environ = {
            "RAN": str(folder / "ran"),
            "TOLD": str(folder / "told"),
            "MENDED": str(folder / "mended"),
            "TIDIED": str(folder / "tidied"),
        }

    # --- processes ---

    def survey(self) -> dict[tuple[str, str], int]:
        """Run without a fault: how often each role reached each commit point, at most."""
        self._prepare()
        survey = self._folder / "survey"
        self._run(survey=str(survey))
        counts: Counter[tuple[str, str]] = Counter()
        for line in survey.read_text().splitlines():
            role, point, hit = line.split()
            counts[role, point] = max(counts[role, point], int(hit))
        return counts

    def kill(self, fault: Fault) -> Outcome:
        """Have a process die, look, resume, and look again.

        Raises:
            AssertionError: A promise was not kept.
        """
        self._prepare()
        died = self._run(fault)
        self._check_left(engine_died=died and fault.role == "engine")
        resumes = 0
        while not self._is_done():
            resumes += 1
            assert resumes <= 2, "two resumes without a fault did not complete the run"
            self._run()
            self._check_left(engine_died=False)
        if self.scenario.tidies:
            tidying.tidy(self.store)
            tidying.check_others(self.store)
            tidying.check_tidied(self.store)
        self._check_answer()
        self._check_nothing_ran_again()
        return Outcome(died, resumes + 1)

    def _prepare(self) -> None:
        if self.scenario.resumes:
            self._run()
            (self._folder / "mended").touch()
        if self.scenario.tidies:
            shutil.copytree(_littered(), self.store)

    def run_to_the_end(self) -> None:
        """Run without a fault, so that a finished run is there."""
        self._folder.mkdir()
        self._prepare()
        self._run()

    def _spec(self, fault: Fault | None = None, survey: str = "") -> dict[str, Any]:
        """What the engine's process is to do: run the flow, or resume the last run of it."""
        (self._folder / "said").unlink(missing_ok=True)
        return {
            "scenario": self.name,
            "role": "engine",
            "tidies": self.scenario.tidies,
            "store": str(self.store),
            "origin": self._last_run_id(),
            "survey": survey,
            "fault": fault,
            "fuse": str(self._folder / "fuse"),
            "environ": self._environ,
            "said": str(self._folder / "said"),
        }

    def _run(self, fault: Fault | None = None, survey: str = "") -> bool:
        """Have it done; whether the fault came about."""
        spec = self._spec(fault, survey)
        ours, theirs = os.pipe()
        process = _nursery().fork(spec, theirs)
        os.close(theirs)
        try:
            _kill_whoever_stops(process, ours)
            code = _nursery().wait()
            _check_no_process_of(process)
        finally:
            os.close(ours)
            with suppress(OSError):
                os.killpg(process, signal.SIGKILL)
        died = (self._folder / "fuse").exists()
        expected = 0
        if fault is not None and died and fault.role == "engine":
            expected = EXIT_STATUS if fault.way == "exit" else -signal.SIGKILL
        if code != expected:
            message = f"the engine's process ended with {code}:\n{self._said()}"
            raise AssertionError(message)
        return died

    def _said(self) -> str:
        return (self._folder / "said").read_text()

    # --- what is in the store ---

    def _runs(self) -> list[Run]:
        try:
            return list(Flow(self.scenario.flow.__name__, store=self.store))
        except (NotFoundError, StoreError):
            assert not self._told("run"), "the store does not open, but a run was announced"
            return []

    def _last_run_id(self) -> str:
        runs = self._runs() if self.store.exists() else []
        return runs[0].id if runs else ""

    def _is_done(self) -> bool:
        runs = self._runs()
        return bool(runs) and runs[0].status is Status.SUCCEEDED

    def _check_left(self, *, engine_died: bool) -> None:
        """The store opens, each run is shown as what it is, what was announced is there."""
        runs = self._runs()
        there = {run.id for run in runs}
        assert {run_id for _, run_id in self._told("run")} <= there, "an announced run is gone"
        kept = set()
        for number, run in enumerate(runs):
            seen = list(run.events())
            ended = isinstance(
                seen[-1], events.RunSucceeded | events.RunFailed | events.RunCancelled
            )
            if ended:
                assert run.status.finished
            else:
                assert run.status is Status.INTERRUPTED, f"{run} is shown as {run.status}"
                assert engine_died or number, f"{run} has no end, though its engine went on"
            for event in seen:
                if isinstance(event, events.TaskSucceeded | events.TaskCloned):
                    kept.add((event.step, str(list(event.path))))
            _read_everything(run)
        told = {(name, path) for name, path in self._told() if name != "run"}
        assert told <= kept, f"announced and not in any journal: {told - kept}"
        damage = verify.verify(Layout(self.store)).damage if runs else []
        assert not damage, f"asyncflow verify finds damage: {damage}"
        if self.scenario.tidies:
            tidying.check_others(self.store)

    def _check_answer(self) -> None:
        answer = _answer(self._runs()[0])
        assert answer == self.scenario.answer, f"the answer is {answer!r}"

    # --- what was told and run ---

    def _lines(self, name: str) -> list[tuple[int, str, str]]:
        path = self._folder / name
        lines = path.read_text().splitlines() if path.exists() else []
        split = [line.split(" ", 2) for line in lines]
        return [(int(time), name, rest) for time, name, rest in split]

    def _told(self, only: str = "") -> list[tuple[str, str]]:
        return [(name, rest) for _, name, rest in self._lines("told") if only in {"", name}]

    def _check_nothing_ran_again(self) -> None:
        """No task was run after somebody had been told that it was done."""
        told: dict[tuple[str, str], int] = {}
        for moment, name, path in self._lines("told"):
            told.setdefault((name, path), moment)
        again = [
            f"{name}{path}"
            for moment, name, path in self._lines("ran")
            if moment > told.get((name, path), moment)
        ]
        assert not again, f"announced, and run again: {again}"


@cache
def _littered() -> Path:
    """A store to be tidied up, made once in each process and copied from then on."""
    folder = Path(tempfile.mkdtemp(prefix="asyncflow-littered-"))
    atexit.register(shutil.rmtree, folder)
    for name in ("linear", "foreach", "resume"):
        Case(name, folder / name, folder / "store").run_to_the_end()
    tidying.litter(folder / "store")
    return folder / "store"


def _answer(run: Run) -> Any:
    """The artifact of that name, of the last task that has it."""
    return run["end"].task.data.answer


def _read_everything(run: Run) -> None:
    """Every artifact of every finished task can be read, and is checked in doing so."""
    for step in run:
        for task in step:
            for artifact in task:
                _ = artifact.data


class Nursery:
    """A warm process from which engines' processes are forked, one after the other."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        number = theirs.fileno()
        command = [sys.executable, "-m", "tests.durability.chaos.child", str(number)]
        self._process = subprocess.Popen(command, cwd=_ROOT, pass_fds=[number])
        theirs.close()
        _open.append(self)

    def fork(self, spec: dict[str, Any], stops: int) -> int:
        """Begin a process; its id."""
        socket.send_fds(self._control, [json.dumps(spec).encode()], [stops])
        return int(self._control.recv(64))

    def wait(self) -> int:
        """Its exit status, or the negative number of the signal that ended it."""
        self._control.settimeout(_SECONDS)
        return int(self._control.recv(64))

    def close(self) -> None:
        """End the process."""
        self._control.close()
        self._process.wait()
        _open.remove(self)


_of_thread = threading.local()
_open: list[Nursery] = []


def _nursery() -> Nursery:
    if getattr(_of_thread, "nursery", None) not in _open:
        _of_thread.nursery = Nursery()
    nursery: Nursery = _of_thread.nursery
    return nursery


@atexit.register
def close_nurseries() -> None:
    """End all warm processes; they are started anew when they are needed."""
    for nursery in _open:
        nursery.close()


def _kill_whoever_stops(process: int, stops: int) -> None:
    """Wait for a process to stop at its point, and kill it; return when there is none left to."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        ready, _, _ = select.select([stops], [], [], 1.0)
        if not ready:
            continue
        data = os.read(stops, 64)
        if not data:  # nobody has the other end any more
            return
        os.kill(int(data), signal.SIGKILL)
    os.kill(process, signal.SIGKILL)
    message = "a child did not end"
    raise AssertionError(message)


def _check_no_process_of(session: int) -> None:
    deadline = time.monotonic() + 10
    while left := _processes_of(session):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.002)


def _processes_of(session: int) -> list[str]:
    """Those of a session, for people."""
    found = []
    for pid in descendants(session):
        with suppress(OSError):
            found.append(Path(f"/proc/{pid}/comm").read_text().strip())
    return found


def descendants(session: int) -> set[int]:
    """The living processes of a session: what comes from an engine's process, and that itself."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                state, _, _, of = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:4]
                if int(of) == session and state != "Z":
                    found.add(int(entry.name))
    return found


def cases_of(counts: dict[tuple[str, str], int]) -> list[Fault]:
    """A fault for each role and point: its first hit, its second and its last, in both ways."""
    return [
        Fault(role, point, hit, way)
        for (role, point), most in sorted(counts.items())
        for hit in sorted({1, min(2, most), most})
        for way in ("exit", "kill")
    ]


def survey(name: str) -> dict[tuple[str, str], int]:
    """How often each role reaches each commit point in a scenario, at most."""
    with tempfile.TemporaryDirectory() as folder:
        return Case(name, Path(folder)).survey()


def kill(name: str, fault: Fault) -> Outcome:
    """One case, in a folder of its own, which is kept if a promise is not.

    Raises:
        AssertionError: A promise was not kept; the message tells how to have it again.
    """
    folder = Path(tempfile.mkdtemp(prefix="asyncflow-chaos-"))
    try:
        outcome = Case(name, folder).kill(fault)
    except Exception as error:
        again = f"python -m tests.durability.chaos.killing {name} {fault}"
        message = f"{error}\nwith the fault {fault}; see {folder}, and again: {again}"
        raise AssertionError(message) from error
    shutil.rmtree(folder)
    return outcome


def everything(names: Iterable[str] = SCENARIOS, *, at_once: int = 2) -> str:
    """Each kill in each scenario; how many there were.

    Raises:
        AssertionError: A promise was not kept; the message tells of every case of that kind.
    """
    cases = [(name, fault) for name in names for fault in cases_of(survey(name))]
    with ThreadPoolExecutor(at_once) as threads:
        outcomes = list(threads.map(_try, cases))
    failed = [str(outcome) for outcome in outcomes if isinstance(outcome, AssertionError)]
    assert not failed, "\n\n".join(failed)
    died = {
        case: outcome.died
        for case, outcome in zip(cases, outcomes, strict=True)
        if isinstance(outcome, Outcome)
    }
    points = {(name, fault.role, fault.point) for name, fault in cases}
    hit = {(name, fault.role, fault.point) for (name, fault), came in died.items() if came}
    assert points == hit, f"nobody died at {points - hit}"
    return (
        f"{sum(died.values()):,} kills at {len({point for _, _, point in hit})} commit points "
        f"in {len({name for name, _ in cases})} scenarios"
    )


def _try(case: tuple[str, Fault]) -> Outcome | AssertionError:
    try:
        return kill(*case)
    except AssertionError as error:
        return error


def main() -> None:
    """Run one case, or tell which there are in a scenario."""
    name, *rest = sys.argv[1:]
    if rest:
        role, point, hit, way = rest
        print(kill(name, Fault(role, point, int(hit), way)))
    else:
        for (role, point), most in sorted(survey(name).items()):
            print(f"{role:8} {point:20} {most}")


if __name__ == "__main__":
    main()
