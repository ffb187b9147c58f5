"""A run of many tasks while its processes are killed at random, until it is done.

In a storm of the kind `storm` these are the engine and its workers, in one of the kind `nodes` also
whole nodes, each an agent behind a socket with a worker. When and whom is drawn from a seed; what
they were doing then is the machine's. One storm again:

    python -m tests.durability.chaos.storms storm|nodes SEED
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random
from threading import Event, Thread

from asyncflow import Run, events
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance import verify
from tests.durability.chaos.killing import Case, Nursery, descendants

_MOST_ROUNDS = 400
_SECONDS = {"storm": 0.7, "nodes": 2.0}
"""Between two kills at the most; from then on it doubles with twenty resumes. Nodes take a second
to start."""

_LEFT_SECONDS = (
    60  # for those that an engine leaves: an agent ends within a second on an idle machine
)


class Storm(Case):
    """One run, killed and resumed again and again."""

    def __init__(self, name: str, seed: int, folder: Path) -> None:
        super().__init__(name, folder)
        self._random = Random(seed)
        self._nursery = Nursery()
        self._kept: set[tuple[str, str]] = set()
        self.engines = self.nodes = self.workers = self.resumes = 0

    @property
    def tasks(self) -> int:
        """How many tasks have succeeded."""
        return len(self._kept)

    def go(self) -> Storm:
        """Run until done, and check the promises.

        Raises:
            AssertionError: One was not kept.
        """
        try:
            while not self._is_done():
                assert self.resumes < _MOST_ROUNDS, "it does not get on"
                self._storm()
                self.resumes += 1
                runs = self._runs()
                if runs:
                    self._check_kept(runs[0])
        finally:
            self._nursery.close()
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
        """One time out of four the engine, which ends the round; else any of its processes.

        Where there are nodes, half of the others are whole nodes.
        """
        patience = _SECONDS[self.name] * (1 + self.resumes / 20)  # so that every storm has an end
        while not over.wait(self._random.uniform(0.02, patience)):
            draw = self._random.random()
            nodes = sorted(_nodes_of(engine)) if self.scenario.nodes else []
            others = sorted(descendants(engine) - {engine, *nodes})
            if draw < 0.25 or not others:
                victims = [engine]
            elif nodes and draw < 0.625:
                victims = nodes
            else:
                victims = others
            with suppress(ProcessLookupError):
                os.kill(self._random.choice(victims), signal.SIGKILL)
                self.engines += victims == [engine]
                self.nodes += victims is nodes
                self.workers += victims is others

    def _check_nobody_left(self, engine: int) -> None:
        deadline = time.monotonic() + _LEFT_SECONDS
        while left := descendants(engine):
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.002)

    def _check_kept(self, run: Run) -> None:
        for event in run.events():
            if isinstance(event, events.TaskSucceeded | events.TaskCloned):
                self._kept.add((event.step, str(list(event.path))))
        told = {(name, path) for name, path in self._told() if name != "run"}
        assert told <= self._kept, f"announced and in no journal: {told - self._kept}"


def _nodes_of(engine: int) -> set[int]:
    """The agents among the processes of an engine."""
    found = set()
    for pid in descendants(engine):
        with suppress(OSError):
            if b"loopback_agent" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


def storm(name: str, seed: int) -> Storm:
    """One storm, in a folder of its own, which is kept if a promise is not.

    Raises:
        AssertionError: A promise was not kept; the message tells how to have it again.
    """
    folder = Path(tempfile.mkdtemp(prefix="asyncflow-storm-"))
    try:
        over = Storm(name, seed, folder).go()
    except Exception as error:
        again = f"python -m tests.durability.chaos.storms {name} {seed}"
        message = f"{type(error).__name__}: {error}; see {folder}, and again: {again}"
        raise AssertionError(message) from error
    shutil.rmtree(folder)
    return over


def everything() -> str:
    """Five storms, others each time; what they have brought."""
    first = int(time.time())
    return _told([storm("storm", seed) for seed in range(first, first + 5)])


def everything_on_nodes(count: int = 100) -> str:
    """So many storms on nodes, two at a time, always the same seeds; what they have brought."""
    with ThreadPoolExecutor(2) as threads:
        return _told(list(threads.map(lambda seed: storm("nodes", seed), range(1, count + 1))))


def _told(over: list[Storm]) -> str:
    nodes = sum(each.nodes for each in over)
    return (
        f"{len(over)} runs of {over[0].tasks:,} tasks, "
        f"{sum(each.engines for each in over):,} engines, "
        + (f"{nodes:,} nodes " if nodes else "")
        + f"and {sum(each.workers for each in over):,} of their processes killed at random, "
        f"{sum(each.resumes for each in over) - len(over):,} resumes"
    )


def main() -> None:
    """Have the storms of these seeds again."""
    name, *seeds = sys.argv[1:]
    for seed in seeds:
        over = storm(name, int(seed))
        print(
            f"{over.engines} engines, {over.nodes} nodes, {over.workers} others, "
            f"{over.resumes} rounds"
        )


if __name__ == "__main__":
    main()
