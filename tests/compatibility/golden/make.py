"""Writes a golden store: `python tests/compatibility/golden/make.py FOLDER`.

A store that a released version has written is kept here, unchanged, and has to open in every later
version. It is made from a neutral place, so that it carries no path or name of whoever made it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def main(target: Path) -> None:
    """Make the store: a run that succeeds, one that fails, and one that resumes it."""
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        flow = Path(folder) / "golden_flow.py"
        shutil.copy(HERE / "golden_flow.py", flow)
        store = Path(folder) / "store"
        run = [sys.executable, "-m", "asyncflow"]
        environ = {"PATH": os.environ["PATH"], "USER": "golden", "ASYNCFLOW_STORE": str(store)}
        subprocess.run([*run, "run", str(flow), "--tag", "golden"], env=environ, check=True)
        failed = subprocess.run(
            [*run, "run", str(flow), "--json"],
            env={**environ, "GOLDEN_FAILS": "1"},
            check=False,
        )
        if failed.returncode != 1:
            raise SystemExit(failed.returncode)
        origin = max(path.name for path in (store / "flows" / "GoldenFlow").iterdir())
        resume = [*run, "resume", str(flow), "--origin-run-id", origin]
        subprocess.run(resume, env=environ, check=True)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(store, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
