"""A run of some thousand tasks while workers and the engine are killed at random, until it is done.

When and whom is drawn from a seed; what they were doing then is the machine's. One storm again:

    python -m tests.durability.chaos.storms SEED
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from threading import Event, Thread

from asyncflow import Run, events
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance import verify
from tests.durability.chaos.killing import Case, Nursery, descendants

_MOST_ROUNDS = 400
_SECONDS = 0.7  # between two kills at the most; from then on it doubles with each resume


class Storm(Case):
    """One run, killed and resumed again and again."""

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__("storm", folder)
        self._random = Random(seed)
        self._nursery = Nursery()
        self._kept: set[tuple[str, str]] = set()
        self.engines = self.workers = self.resumes = 0

    def go(self) -> Storm:
        """Run until done, and check the promises.

        Raises:
            AssertionError: One was not kept.
        """
        while not self._is_done():
            assert self.resumes < _MOST_ROUNDS, "it does not get on"
            self._storm()
            self.resumes += 1
            runs = self._runs()
            if runs:
                self._check_kept(runs[0])
        damage = verify.verify(Layout(self.store)).damage
        assert not damage, f"asyncflow verify finds damage: {damage}"
        self._check_answer()
        self._check_nothing_ran_again()
        return self

    def _storm(self) -> None:
        """Run or resume, while somebody is killed now and then."""
        ours, theirs = os.pipe()
        process = self._nursery.fork(self._spec(), theirs)
        os.close(ours)
        os.close(theirs)
        over = Event()
        killer = Thread(target=self._kill, args=(process, over))
        killer.start()
        try:
            code = self._nursery.wait()
        finally:
            over.set()
            killer.join()
        assert code in {0, -signal.SIGKILL}, f"the engine ended with {code}:\n{self._said()}"
        self._check_nobody_left(process)

    def _kill(self, engine: int, over: Event) -> None:
        """Three times out of four a worker, else the engine, which ends the round."""
        patience = _SECONDS * (1 + self.resumes / 20)  # so that every storm comes to its end
        while not over.wait(self._random.uniform(0.02, patience)):
            others = sorted(descendants(engine) - {engine})
            victim = self._random.choice(others) if others else engine
            if self._random.random() < 0.25:
                victim = engine
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                self.engines += victim == engine
                self.workers += victim != engine

    def _check_nobody_left(self, engine: int) -> None:
        deadline = time.monotonic() + 10
        while left := descendants(engine):
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.002)

    def _check_kept(self, run: Run) -> None:
        for event in run.events():
            if isinstance(event, events.TaskSucceeded | events.TaskCloned):
                self._kept.add((event.step, str(list(event.path))))
        told = {(name, path) for name, path in self._told() if name != "run"}
        assert told <= self._kept, f"announced and in no journal: {told - self._kept}"


def storm(seed: int) -> Storm:
    """One storm, in a folder of its own, which is kept if a promise is not.

    Raises:
        AssertionError: A promise was not kept; the message tells how to have it again.
    """
    folder = Path(tempfile.mkdtemp(prefix="asyncflow-storm-"))
    try:
        over = Storm(seed, folder).go()
    except Exception as error:
        again = f"python -m tests.durability.chaos.storms {seed}"
        message = f"{type(error).__name__}: {error}; see {folder}, and again: {again}"
        raise AssertionError(message) from error
    shutil.rmtree(folder)
    return over


def everything(count: int = 5) -> str:
    """Some storms, others each time; what they have brought."""
    first = int(time.time())
    over = [storm(seed) for seed in range(first, first + count)]
    return (
        f"{count} runs of 3,003 tasks, {sum(each.engines for each in over):,} engines and "
        f"{sum(each.workers for each in over):,} of their processes killed at random, "
        f"{sum(each.resumes for each in over) - count:,} resumes"
    )


def main() -> None:
    """Have the storms of these seeds again."""
    for seed in sys.argv[1:]:
        over = storm(int(seed))
        print(f"{over.engines} engines, {over.workers} others, {over.resumes} rounds")


if __name__ == "__main__":
    main()
