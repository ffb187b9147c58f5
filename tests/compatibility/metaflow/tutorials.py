"""Metaflow's tutorials as its package ships them, run by both engines with the import changed."""

from __future__ import annotations

import ast
import json
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.compatibility.metaflow import theirs
from tests.compatibility.metaflow.compare import differences
from tests.compatibility.metaflow.import_line import with_our_import

if TYPE_CHECKING:
    import subprocess

TUTORIALS: Final = {
    "00-helloworld": ("helloworld.py", "HelloFlow"),
    "01-playlist": ("playlist.py", "PlayListFlow"),
    "02-statistics": ("stats.py", "MovieStatsFlow"),
    "03-playlist-redux": ("playlist.py", "PlayListFlow"),
    "04-playlist-plus": ("playlist.py", "PlayListFlow"),
}
"""Each with its file and its flow, in the order in which they build on each other."""

_SHUFFLED: Final = {"movies", "playlist"}
_CONDA: Final = re.compile(r"^ *@conda.*\n", re.MULTILINE)
_CHOSEN: Final = {"01-playlist": {"bonus"}, "03-playlist-redux": {"bonus"}}
"""Artifacts that are chosen at random: only their kind can be the same."""


def compare(name: str, folder: Path) -> dict[str, tuple[Any, Any]]:
    """Run a tutorial in both engines; the artifacts that are not the same."""
    answers = [
        _fixed(name, _answer(name, folder / engine, engine)) for engine in ("metaflow", "asyncflow")
    ]
    return differences(*answers)


def _answer(name: str, folder: Path, engine: str) -> dict[str, Any]:
    file = folder / name / TUTORIALS[name][0]
    shutil.copytree(_package() / "tutorials" / name, folder / name)
    source = file.read_text(encoding="utf-8")
    # Metaflow would install the packages that `@conda` names; they are in this environment.
    changed = with_our_import(source) if engine == "asyncflow" else _CONDA.sub("", source)
    file.write_text(changed, encoding="utf-8")
    options = ["--no-pylint"] if engine == "metaflow" else []
    done = _process(folder, [str(file), *options, "run"])
    if done.returncode != 0:
        return {"failed": done.stdout + done.stderr}
    told = _process(folder, [str(theirs.DESCRIBE), engine, str(file), TUTORIALS[name][1]])
    if told.returncode != 0:
        return {"failed": told.stderr}
    answer: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return answer


def _package() -> Path:
    found = find_spec("metaflow")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("metaflow")
    return Path(found.origin).parent


def _process(folder: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    store = {"ASYNCFLOW_STORE": str(folder / "store")}
    return theirs.process(sys.executable, folder, words, store)


def _fixed(name: str, answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what is shuffled or chosen at random, and without what is printed."""
    for tasks in answer.get("steps", {}).values():
        for task in tasks.values():
            task.pop("stdout", None)
            artifacts = task["artifacts"]
            for artifact in _SHUFFLED & set(artifacts):
                artifacts[artifact] = sorted(ast.literal_eval(artifacts[artifact]))
            for artifact in _CHOSEN.get(name, set()) & set(artifacts):
                artifacts[artifact] = type(ast.literal_eval(artifacts[artifact])).__name__
    return answer
