"""One task that a `Runner` runs again alone, in a process of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from asyncflow.client.namespaces import spin_store
from asyncflow.engine.one_task import find_task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncflow.client import Task
    from asyncflow.flow.spec import FlowSpec

_POLL_SECONDS: Final = 0.02


class ExecutingTask:
    """A task that is run again alone, by `asyncflow spin`."""

    def __init__(
        self,
        flow: type[FlowSpec],
        pathspec: str,
        store: Path | str,
        *,
        words: Sequence[str],
        environ: Mapping[str, str],
        directory: str,
        persist: bool,
    ) -> None:
        """Start the process; `words` are those behind `asyncflow`.

        Raises:
            NotFoundError: There is no such task.
        """
        self._again = find_task(flow, pathspec, store)
        self._flow, self._store, self._persist = flow, store, persist
        self._folder = tempfile.TemporaryDirectory(prefix="asyncflow-spin-")
        self._files = {name: Path(self._folder.name, name) for name in ("stdout", "stderr", "id")}
        self._read: dict[str, str] = {}
        kept = ["--persist", "--run-id-file", str(self._files["id"])] if persist else []
        with self._files["stdout"].open("wb") as out, self._files["stderr"].open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "asyncflow", *words, "--store", str(store), *kept],
                stdout=out,
                stderr=err,
                env=dict(environ),
                cwd=directory or None,
            )

    @property
    def status(self) -> str:
        """`running`, `successful` or `failed`."""
        code = self.returncode
        return "running" if code is None else "failed" if code else "successful"

    @property
    def returncode(self) -> int | None:
        """The exit status of the process; None while it runs."""
        return self._process.poll()

    @property
    def stdout(self) -> str:
        """What the step has printed until now."""
        return self._text("stdout")

    @property
    def stderr(self) -> str:
        """The same for standard error, and how the step has ended."""
        return self._text("stderr")

    @property
    def task(self) -> Task:
        """The task as it was kept with `persist=True`, else the one that is run again."""
        from asyncflow.client import Run

        run_id = self._text("id") if self._persist else ""
        if not run_id:
            return self._again
        run = Run(f"{self._flow.__name__}/{run_id}", store=spin_store(self._store))
        return run[self._again.parent.id].task

    async def wait(self, timeout: float | None = None) -> Self:  # noqa: ASYNC109 - Metaflow's name for it
        """Wait for the end of the process.

        Raises:
            TimeoutError: The time is over. The process goes on.
        """
        async with asyncio.timeout(timeout):
            while self.returncode is None:  # noqa: ASYNC110 - nothing else tells it everywhere
                await asyncio.sleep(_POLL_SECONDS)
        return self

    def cleanup(self) -> None:
        """Kill the process if it still runs. What it has printed is kept in memory."""
        self._process.kill()
        self._process.wait()
        for name in self._files:
            self._read[name] = self._text(name)
        self._folder.cleanup()

    def _text(self, name: str) -> str:
        if name in self._read:
            return self._read[name]
        try:
            return self._files[name].read_text(encoding="utf-8", errors="backslashreplace")
        except FileNotFoundError:
            return ""

    def _finish(self, *, show: bool) -> Self:
        """Wait for the end, and print what was printed."""
        try:
            self._process.wait()
        except BaseException:  # Ctrl-C
            self.cleanup()
            raise
        if show:
            sys.stdout.write(self.stdout)
            sys.stderr.write(self.stderr)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.cleanup()

    def __repr__(self) -> str:
        return f"<ExecutingTask {self._again.pathspec} {self.status}>"
