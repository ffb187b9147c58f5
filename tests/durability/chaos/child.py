"""The engine's process, which dies at a commit point.

`serve` is a warm process from which one is forked for each spec: {scenario, role, store, origin,
tidies, survey, fault: {role, point, hit, way}, fuse, environ}. What subscribers are told goes to
the file named by `TOLD`, and each commit point that is reached to `survey`. A fault happens once:
whoever comes there makes the file `fuse`, and then either ends by itself (way `exit`), or tells its
process id to descriptor `stops` and stays where it is until it is killed from outside (way `kill`).

Where the scenario is tidied up meanwhile, the engine's process starts another one for it, of the
role `gc`, which ends with it.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncflow.scheduling.task_orders
import asyncflow.workers.process.worker
from asyncflow import Engine, events
from asyncflow._support import commit_points
from asyncflow._support.settings import Settings
from asyncflow.errors import RunCancelledError, RunFailedError
from asyncflow.store.mailbox import CANCEL, post
from asyncflow.testing import Loopback
from asyncflow.workers.local import fork_server
from asyncflow.workers.local.pool import WorkerPool
from tests.durability.chaos import tidying
from tests.durability.chaos.scenarios import SCENARIOS, STORMS, append

if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_STATUS = 77


class Watcher:
    """Counts commit points in this process and those that are forked from it, and ends one."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._own = os.getpid()
        self._spec = spec
        self._fault = spec.get("fault")
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, point: str) -> None:
        """A commit point is reached."""
        role = self._spec["role"] if os.getpid() == self._own else "worker"
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


def begin_tidying(spec: dict[str, Any]) -> threading.Thread:
    """Have the store tidied up by a process of its own, and tell the flow when it is over."""
    tidied = Path(os.environ["TIDIED"])
    tidied.unlink(missing_ok=True)
    pid = fork(tidy, spec)

    def wait() -> None:
        _, status = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(status) in {0, EXIT_STATUS, -signal.SIGKILL}:
            tidied.touch()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def tidy(spec: dict[str, Any]) -> None:
    """Be the process that tidies up."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: end with the engine's process
    commit_points.watcher = Watcher({**spec, "role": "gc"})
    tidying.tidy(Path(spec["store"]))


async def run(spec: dict[str, Any]) -> None:
    """Run or resume the scenario's flow to its end, and write down what subscribers are told."""
    vars(asyncflow.scheduling.task_orders)["MAX_INPUTS_IN_ORDER"] = (
        8  # so that a small join has a file, too
    )
    scenario = (SCENARIOS | STORMS)[spec["scenario"]]
    settings = Settings(
        store=Path(spec["store"]),
        workers=2,
        sync_seconds=0.0,
        grace_seconds=1.0,
        **scenario.settings,
    )
    executor = (
        Loopback(workers=scenario.nodes, nodes=scenario.nodes) if scenario.nodes else WorkerPool
    )
    async with Engine(settings=settings, executor=executor) as engine:
        origin = spec.get("origin")
        if origin:
            handle = await engine.start_resumed(scenario.flow, origin=origin)
        else:
            handle = await engine.options(key=scenario.key).start(scenario.flow)
        append("TOLD", f"run {handle.run_id}")
        ended = 0
        async for batch in handle.batches():
            for event in batch:
                if isinstance(event, events.TaskSucceeded | events.TaskCloned):
                    append("TOLD", f"{event.step} {list(event.path)}")
                    ended += isinstance(event, events.TaskSucceeded)
            if scenario.cancel_after and ended >= scenario.cancel_after and not origin:
                if scenario.by_message:
                    post(handle.run._record.stored, CANCEL)
                else:
                    handle.cancel()
        try:
            await handle
        except (RunFailedError, RunCancelledError) as error:
            print(error, file=sys.stderr)


def main(spec: dict[str, Any]) -> None:
    """Be the engine's process."""
    os.setsid()
    os.environ.update(spec["environ"])
    for stream, name in enumerate(("/dev/null", spec["said"]), 1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    commit_points.watcher = Watcher(spec)
    fork_server.prefork()  # as the command line does, while there is one thread
    process = begin_tidying(spec) if spec["tidies"] else None
    asyncio.run(run(spec))
    if process is not None:
        process.join()


def fork(job: Callable[[dict[str, Any]], None], spec: dict[str, Any]) -> int:
    """Do a job in a process of its own, which ends with it."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        job(spec)
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, it is told, and the process ends here
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def serve(control: socket.socket) -> None:
    """Fork a process for each spec that comes, and tell its id and then how it ended."""
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, 1 << 20, 1)
        if not packet:
            return
        spec = json.loads(packet)
        spec["stops"] = descriptors[0]
        pid = fork(main, spec)
        os.close(descriptors[0])
        control.send(b"%d" % pid)
        _, status = os.waitpid(pid, 0)
        control.send(b"%d" % os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
