"""What Metaflow itself answers: each command in a process of its own, as its users give it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from tests.compatibility.metaflow.cases import Case, class_name, flow_file, is_run
from tests.support.patient_process import run_patiently

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

DESCRIBE = Path(__file__).with_name("describe.py")
USER = "tester"
CPU_SECONDS = 240  # of one command and its children, which none needs; waiting does not count
_ID_FILE = "--run-id-file"
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


def answer(case: Case, name: str, folder: Path, python: str = sys.executable) -> dict[str, Any]:
    """Run a case's commands in an empty folder; what they came to, and what the last run left."""
    file = Path(shutil.copy(flow_file(name), folder)).name
    for beside, content in case.files.items():
        (folder / beside).write_text(content, encoding="utf-8")
    outcomes, told = [], []
    run_file = folder / "run-id"
    for command in case.commands:
        words = shlex.split(command.replace("{run}", _read(run_file)))
        if is_run(words) and _ID_FILE not in words:
            words += [_ID_FILE, run_file.name]
        done = process(python, folder, [file, "--no-pylint", *words])
        outcomes.append(done.returncode == 0)
        told.append(done.stdout + done.stderr)
    answer: dict[str, Any] = {"outcomes": outcomes}
    run_id = _read(run_file)
    if run_id:
        pathspec = f"{class_name(name)}/{run_id}"
        described = process(python, folder, [str(DESCRIBE), "metaflow", file, pathspec])
        if described.returncode != 0:
            raise RuntimeError("\n".join([*told, described.stderr]))
        answer |= json.loads(described.stdout.splitlines()[-1])
    (folder / "told").write_text("\n".join(told), encoding="utf-8")
    return answer


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8").strip() if file.exists() else ""


def process(
    python: str, folder: Path, words: list[str], environ: Mapping[str, str] = _NOTHING
) -> subprocess.CompletedProcess[str]:
    """Run Python with some words, as a user whose home and whose Metaflow are in `folder`."""
    return run_patiently(
        [python, *words],
        cpu_seconds=CPU_SECONDS,
        cwd=folder,
        env={
            "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}",  # gangs call `python`
            "HOME": str(folder),
            "USER": USER,
            "METAFLOW_USER": USER,
            "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(folder),
            "PYTHONHASHSEED": "0",
            **environ,
        },
    )
