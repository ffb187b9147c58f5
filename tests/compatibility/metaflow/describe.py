"""What a run left behind, as plain data that does not depend on the engine which ran it.

Both engines' clients are asked here and nowhere else. The module is imported into Metaflow's
environment as well, so it imports neither engine.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

FAILURE = "<failure>"
_BRACKETS = {list: ("[", "]"), tuple: ("(", ")")}
NAME = "name"  # Metaflow keeps the flow's name as an artifact of each task


def describe(run: Any, look: Any = None) -> dict[str, Any]:
    """Every task with its artifacts, output and neighbours; the tags; what `look` answers."""
    labels = _labels(run)
    steps: dict[str, dict[str, Any]] = defaultdict(dict)
    for pathspec, (task, label) in labels.items():
        step = pathspec.split("/")[2]
        steps[step][label.partition(" ")[2]] = _task(task, labels)
    described = {
        "successful": run.successful,
        "tags": sorted(getattr(run, "user_tags", run.tags)),
        "steps": {name: dict(sorted(tasks.items())) for name, tasks in sorted(steps.items())},
    }
    if look is not None:
        described["answers"] = {name: canonical(value) for name, value in look(run).items()}
    return described


def _labels(run: Any) -> dict[str, tuple[Any, str]]:
    """A name for each task that does not depend on the order of events, by pathspec.

    It is `step [indexes of the foreach] turn`. In a recursion several tasks of a step have one
    place; they are told apart by their order.
    """
    places: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for step in run:
        for task in step:
            places[step.id, str(_path(task))].append(task)
    named = {}
    for (step, path), tasks in places.items():
        tasks.sort(key=_number)
        for turn, task in enumerate(tasks):
            named[task.pathspec] = (task, f"{step} {path}" + f" turn {turn}" * (len(tasks) > 1))
    return named


def _number(task: Any) -> int:
    """Where a task comes in its loop; what a resume takes over, Metaflow numbers in any order."""
    name = getattr(task, "origin_pathspec", None) or task.id
    return int(re.sub(r"\D", "", name.rpartition("/")[2]))


def _path(task: Any) -> list[int]:
    if hasattr(task, "path"):
        return list(task.path)
    if "_foreach_stack" not in task:  # its process died before it could keep anything
        return [int(part.rpartition(":")[2]) for part in _execution_path(task)]
    return [frame.index for frame in task["_foreach_stack"].data]


def _execution_path(task: Any) -> list[str]:
    path = task.metadata_dict.get("foreach-execution-path")
    return path.split(",") if path else []


def _task(task: Any, labels: dict[str, tuple[Any, str]]) -> dict[str, Any]:
    """One task; of one that has failed neither artifacts nor output, unless that was caught."""
    artifacts = _artifacts(task)
    caught = FAILURE in artifacts.values()
    described: dict[str, Any] = {"artifacts": artifacts if task.successful or caught else {}}
    for name in ("parents", "children"):
        described[name] = sorted(labels[each.pathspec][1] for each in _relatives(task, name))
    if not task.successful:
        described["successful"] = False
    elif not caught:
        described |= {name: said for name in ("stdout", "stderr") if (said := getattr(task, name))}
    return described


def _relatives(task: Any, name: str) -> list[Any]:
    if hasattr(task, name):
        return list(getattr(task, name))
    try:
        return list(getattr(task, {"parents": "parent_tasks", "children": "child_tasks"}[name]))
    except KeyError:  # it failed before Metaflow could keep anything of it
        return []


def _artifacts(task: Any) -> dict[str, str]:
    return {
        artifact.id: canonical(artifact.data)
        for artifact in sorted(task, key=lambda artifact: artifact.id)
        if artifact.id != NAME
    }


def canonical(value: Any) -> str:
    """A text for a value that is the same in every process.

    Sets are sorted; objects without a `repr` of their own are told by their type, and failures,
    which each engine keeps in its own way, by one word.
    """
    match value:
        case dict():
            items = (f"{canonical(key)}: {canonical(each)}" for key, each in value.items())
            return f"{{{', '.join(items)}}}"
        case list() | tuple() if type(value) in _BRACKETS:
            begin, end = _BRACKETS[type(value)]
            return f"{begin}{', '.join(map(canonical, value))}{end}"
        case set() | frozenset():
            return f"{type(value).__name__}({', '.join(sorted(map(canonical, value)))})"
    if type(value).__name__ in {"Failure", "MetaflowExceptionWrapper"}:
        return FAILURE
    text = repr(value)
    return f"<{type(value).__name__}>" if re.search(r" at 0x[0-9a-f]+", text) else text


def load(file: Path) -> Any:
    """The flow's module, in which a `look` may stand."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def main(engine: str, file: Path, name: str) -> None:
    """Print what an engine's client tells of a run, or of the latest run of a flow."""
    module = importlib.import_module(engine)
    run = module.Run(name) if "/" in name else module.Flow(name).latest_run
    look = getattr(load(file), "look", None)
    print(json.dumps(describe(run, look)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
