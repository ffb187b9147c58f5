"""Calls the functions of `@exit_hook` when a run has ended, each in a process of its own."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Final

from asyncflow._support import log
from asyncflow._support.conditions import Condition
from asyncflow.values import Status

if TYPE_CHECKING:
    from concurrent.futures import Future

    from asyncflow._support.thread_pool import Threads
    from asyncflow.scheduling.run_driver import RunDriver

_WHEN: Final = {Status.SUCCEEDED: "on_success", Status.FAILED: "on_error"}


class ExitHooks:
    """The exit hooks of one run."""

    def __init__(self, driver: RunDriver, threads: Threads) -> None:
        """Call nothing yet."""
        self._driver, self._threads = driver, threads
        self._calls: Future[None] | None = None
        self._begun = Lock()  # taken by the first of the calls, for ever
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self._loop = asyncio.get_running_loop()
        self._all_ended = Condition(lambda: self.ended)

    def begin(self) -> None:
        """Begin to call them, if the run has ended in a way that they are for; once."""
        driver = self._driver
        if self._calls is not None or driver.error is not None or driver.finish is None:
            return
        when = _WHEN.get(driver.finish.status)
        names = driver.graph.options["exit_hook"][when] if when else []
        self._calls = self._threads.submit(self._call_all, when or "", names)
        self._calls.add_done_callback(self._look)

    def _look(self, _: object) -> None:
        with suppress(RuntimeError):  # the program closed the event loop without waiting
            self._loop.call_soon_threadsafe(self._all_ended.look)

    @property
    def ended(self) -> bool:
        """Whether none of them runs or will run."""
        return self._calls is None or self._calls.done()

    async def wait(self, seconds: float | None = None) -> None:
        """Return once all have ended, or after that time.

        Cancelled: they go on until the engine is closed.
        """
        self.begin()
        await self._all_ended.wait(seconds)

    def kill(self) -> None:
        """Stop the one that runs, and call no other."""
        self._killed = True
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()

    def _call_all(self, when: str, names: list[str]) -> None:
        """Call them in order; in a thread. Nothing if an earlier call does or did it."""
        if not self._begun.acquire(blocking=False):
            return
        for index, name in enumerate(names):
            if self._killed:
                log.warning(f"{self._pathspec} has exit hooks that are not called: {names[index:]}")
                return
            status = self._call(when, index)
            if status != 0:
                log.warning(f"the exit hook {name} of {self._pathspec} has failed", status=status)

    def _call(self, when: str, index: int) -> int:
        """Call one, and return its exit status."""
        identity = self._driver.identity
        # without what `@environment` and `@secrets` give to steps
        opening = identity.opening()._replace(variables={})
        order = pickle.dumps((tuple(opening), os.getpid(), when, index))
        command = [sys.executable, "-m", "asyncflow.engine.exit_hook_process"]
        environment = {**os.environ, "PYTHONPATH": _import_path()}
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, env=environment)
        except OSError as error:
            log.warning(f"no exit hook of {self._pathspec} can be called: {error}")
            return 0
        self._process = process
        if self._killed:
            process.kill()
        process.communicate(order)
        return process.returncode

    @property
    def _pathspec(self) -> str:
        return self._driver.identity.pathspec


def _import_path() -> str:
    """What lets a new process find this package, before it has the program's own path."""
    folder = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))  # noqa: PTH120 - a path as text takes a fraction of the time
    return os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
