"""A Dask cluster of processes, as somebody starts it on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path


RUN_TO_THE_END: Final = """
import ctypes, runpy, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with the test's process
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


class DaskProcesses:
    """A scheduler, and workers of one slot each that a test adds."""

    def __init__(self, folder: Path, *options: str) -> None:
        """Start the scheduler, with these options."""
        self._folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []
        file = folder / "scheduler.json"
        self._scheduler = self._start(
            "scheduler", "--port", "0", "--scheduler-file", str(file), *options
        )
        while not file.exists() or not file.read_text().endswith("}"):
            time.sleep(0.05)
        self.address = str(json.loads(file.read_text())["address"])
        """Where the scheduler is."""

    def _start(self, what: str, *options: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"{what}-{time.monotonic_ns()}.log").open("wb") as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    RUN_TO_THE_END,
                    f"distributed.cli.dask_{what}",
                    "--no-dashboard",
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def add_worker(self, *options: str, name: str) -> subprocess.Popen[bytes]:
        """Start one more worker, without a nanny."""
        more = ("--no-nanny", "--nthreads", "1", "--name", name, *options)
        self.workers.append(self._start("worker", self.address, *more))
        return self.workers[-1]

    def close(self) -> None:
        """End all."""
        for process in [*self.workers, self._scheduler]:
            process.kill()
            process.wait()

    def __repr__(self) -> str:
        return f"<DaskProcesses at {self.address}: {len(self.workers)} workers>"
