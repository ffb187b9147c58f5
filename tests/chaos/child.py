"""The engine's process, which dies at a commit point: `python -m tests.chaos.child SPEC`.

SPEC is JSON: {scenario, store, origin, survey, fault: {role, point, hit, way}, fuse, stops}. What
subscribers are told goes to the file named by `TOLD`, and each commit point that is reached to
`survey`. A fault happens once: whoever comes there makes the file `fuse`, and then either ends
by itself (way `exit`), or tells its process id to descriptor `stops` and stays where it is until it
is killed from outside (way `kill`).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from asyncflow import commit_points, template

EXIT_STATUS = 77


class Watcher:
    """Counts commit points in this process and those that are forked from it, and ends one."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._engine = os.getpid()
        self._spec = spec
        self._fault = spec.get("fault")
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, point: str) -> None:
        """A commit point is reached."""
        role = "engine" if os.getpid() == self._engine else "worker"
        with self._lock:
            self._counts[point] += 1
            hit = self._counts[point]
        if self._spec.get("survey"):
            write(self._spec["survey"], f"{role} {point} {hit}\n")
        if self._fault and [role, point, hit] == self._fault[:3] and self._light():
            self._end(self._fault[3])

    def _light(self) -> bool:
        try:
            os.close(os.open(self._spec["fuse"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def _end(self, way: str) -> None:
        if way == "exit":
            os._exit(EXIT_STATUS)
        os.write(self._spec["stops"], b"%d\n" % os.getpid())
        while True:
            time.sleep(60)


def write(path: str, line: str) -> None:
    """Add a line to a file, in one write."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)


async def run(spec: dict[str, Any]) -> None:
    """Run or resume the scenario's flow to its end, and write down what subscribers are told."""
    import asyncflow.scheduler
    from asyncflow import Engine, events
    from asyncflow.errors import RunCancelledError, RunFailedError
    from asyncflow.settings import Settings
    from tests.chaos.scenarios import SCENARIOS, append

    vars(asyncflow.scheduler)["MAX_INPUTS_IN_ORDER"] = 8  # so that a small join has a file, too
    scenario = SCENARIOS[spec["scenario"]]
    settings = Settings(
        store=Path(spec["store"]),
        workers=2,
        sync_seconds=0.0,
        grace_seconds=1.0,
        **scenario.settings,
    )
    async with Engine(settings=settings) as engine:
        origin = spec.get("origin")
        if origin:
            handle = await engine.start_resumed(scenario.flow, origin=origin)
        else:
            handle = await engine.start(scenario.flow)
        append("TOLD", f"run {handle.run_id}")
        ended = 0
        async for batch in handle.batches():
            for event in batch:
                if isinstance(event, events.TaskSucceeded | events.TaskCloned):
                    append("TOLD", f"{event.step} {list(event.path)}")
                    ended += isinstance(event, events.TaskSucceeded)
            if scenario.cancel_after and ended >= scenario.cancel_after and not origin:
                handle.cancel()
        try:
            await handle
        except (RunFailedError, RunCancelledError) as error:
            print(error, file=sys.stderr)


def main() -> None:
    """Be the engine's process."""
    spec = json.loads(sys.argv[1])
    commit_points.watcher = Watcher(spec)
    template.prefork()
    asyncio.run(run(spec))


if __name__ == "__main__":
    main()
