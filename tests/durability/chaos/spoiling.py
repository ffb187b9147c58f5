"""The n-th operation on the store fails, for each n there is; then verify, and resume.

Real commands are run, with the faults of `tests/support/file_faults.py` in the engine's process or
in a worker. One case again:

    python -m tests.durability.chaos.spoiling engine|worker fail|full|torn|late crash|power N
"""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple

from asyncflow import Flow, Run
from asyncflow.values import Status
from tests.support.command_line import Said, asyncflow, damage, succeeded

FLOW = Path(__file__).parents[2] / "support" / "faulty_flow.py"
TOTAL = sum(5000 * n for n in range(3))
MODES = ("fail", "full", "torn", "late")
_MOST = 150  # operations of a run in one process; a run has fewer
_RIGHT = {0, 1}  # success, or one clear message; anything else is a defect of ours


class Fault(NamedTuple):
    """Which operation is spoilt, where and how."""

    role: str
    mode: str
    durability: str
    nth: int

    def __str__(self) -> str:
        return " ".join(map(str, self))


class Spoiler:
    """Runs a flow with one fault after the other, in one store."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        self._log = folder / "fault.log"
        self._removed = folder / "removed"
        self._removed.mkdir(parents=True)

    def spoil(self, fault: Fault, words: str = "") -> bool:
        """One run with one fault, and then all the promises; whether the fault came about.

        `words` have to be in what the command says of a fault that came about.

        Raises:
            AssertionError: A promise was not kept; the message tells how to have it again.
        """
        try:
            return self._spoil(fault, words)
        except Exception as error:
            again = f"python -m tests.durability.chaos.spoiling {fault}"
            message = f"{type(error).__name__}: {error}; again: {again}"
            raise AssertionError(message) from error

    def _spoil(self, fault: Fault, words: str) -> bool:
        for old in self.store.glob("flows/Faulty/*"):  # a fault must not depend on what was before
            old.rename(self._removed / f"{old.name}-{len(list(self._removed.iterdir()))}")
        self._log.unlink(missing_ok=True)
        ran = self._command("run", FLOW, fault=fault)
        came = self._log.exists()
        assert ran.status in (_RIGHT if came else {0}), ran
        if words:
            assert came, ran
            assert words in ran.stderr, ran
        there = (self.store / "flows" / "Faulty").exists()
        latest = Flow("Faulty", store=self.store).latest_run if there else None
        if latest is not None:
            self._check(latest, ran)
        else:
            assert not ran.announced, ran
        return came

    def _check(self, latest: Run, ran: Said) -> None:
        """What was announced is there, nothing is damaged, and a resume gives the right answer."""
        assert not damage(self.store)
        assert latest.status is not Status.RUNNING, ran
        assert ran.announced <= succeeded(latest), ran
        for step in latest:
            for task in step:
                if task.successful and step.id == "work":
                    assert task.stdout.startswith("working"), ran
                assert all(artifact.data is not None for artifact in task), ran
        resumed = self._command("resume", FLOW, "--origin-run-id", latest.id)
        assert resumed.status == 0, f"{ran}\n{resumed}"
        again = Flow("Faulty", store=self.store).latest_run
        assert isinstance(again, Run)
        assert (again.data.total, again.data.check) == (TOTAL, 512_000), ran
        assert not damage(self.store)

    def _command(self, *arguments: object, fault: Fault | None = None) -> Said:
        environ = {"ASYNCFLOW_STORE": str(self.store), "ASYNCFLOW_WORKERS": "2"}
        if fault is not None:
            environ["ASYNCFLOW_DURABILITY"] = fault.durability
            environ |= {"FAULT_STORE": str(self.store), "FAULT_LOG": str(self._log)}
            environ |= {"FAULT_ROLE": fault.role, "FAULT_MODE": fault.mode}
            environ["FAULT_NTH"] = str(fault.nth)
            environ["FAULT_WIDE"] = "1" if fault.mode in MODES else ""
        return asyncflow(*arguments, **environ)


def count_up(role: str, mode: str, durability: str) -> int:
    """Each n, until a run passes without the fault; how many came about.

    Raises:
        AssertionError: A promise was not kept.
    """
    with tempfile.TemporaryDirectory(prefix="asyncflow-spoilt-") as folder:
        spoiler = Spoiler(Path(folder))
        for nth in range(1, _MOST):
            if not spoiler.spoil(Fault(role, mode, durability, nth)):
                return nth - 1
    message = f"a run has more than {_MOST} operations"
    raise AssertionError(message)


def everything() -> str:
    """Every fault there can be; how many."""
    kinds = list(product(("engine", "worker"), MODES, ("crash", "power")))
    with ThreadPoolExecutor(2) as threads:
        counts = list(threads.map(lambda kind: count_up(*kind), kinds))
    return f"{sum(counts):,} spoilt operations, {min(counts)} to {max(counts)} of each kind"


def main() -> None:
    """One case again."""
    role, mode, durability, nth = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="asyncflow-spoilt-") as folder:
        fault = Fault(role, mode, durability, int(nth))
        print("came" if Spoiler(Path(folder)).spoil(fault) else "did not come")


if __name__ == "__main__":
    main()
