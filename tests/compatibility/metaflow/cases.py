"""The table of flows that both engines run, one for each word of the language.

A file of `flows/` is a case, and its first line says what it shows. Below stands what else a case
needs: command lines, files beside the flow, what differs on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
FLOWS: Final = HERE / "flows"


@dataclass(frozen=True, slots=True)
class Case:
    """How a flow is run."""

    commands: tuple[str, ...] = ("run",)
    """What stands behind `python FILE`; `{run}` is the id of the run before."""
    files: dict[str, str] = field(default_factory=dict)
    """Files beside the flow, by name."""
    flow: str = ""
    """The flow's file, where several cases have one."""


_EVERY_PARAMETER: Final = (
    "run --whole 7 --real 2 --truth false --text '' --counted 5 --listed x,y,z --data '[1]' "
    "--with-dash e"
)
_OPTIONS_EVERYWHERE: Final = (
    "--quiet --metadata local --datastore local --environment local run --size 3 "
    "--max-workers 2 --max-num-splits 5 --max-log-size 1 --run-id-file run-id"
)

_GIVEN: Final = {
    "clone_only": Case(("run", "resume --clone-only --origin-run-id {run}")),
    "client_tags": Case(("run --tag one",)),
    "config_elsewhere": Case(files={"settings.json": '{"size": 2}'}),
    "config_file": Case(
        files={"settings.json": '{"size": 2}', "settings.toml": "[part]\nsize = 3"}
    ),
    "config_given": Case(
        ("""--config settings given.json --config-value other '{"size": 3}' run""",),
        files={"given.json": '{"size": 2}'},
    ),
    "condition_resumed": Case(("run", "resume")),
    "condition_resumed_otherwise": Case(("run", "resume choose")),
    "config_resumed": Case(("""--config-value settings '{"size": 2}' run""", "resume")),
    "config_unknown": Case(("""--config-value nowhere '{"size": 2}' run""",)),
    "exit_hook_resumed": Case(("run", "resume")),
    "include_file": Case(("run --given note.txt",), files={"note.txt": "é\n2\n"}),
    "include_file_parsed": Case(files={"table.json": '{"a": 1}\n'}),
    "latest_runs": Case(("run --number 2", "run --number 0")),
    "namespaces": Case(("run --tag one",)),
    "options_everywhere": Case((_OPTIONS_EVERYWHERE,)),
    "parameter_multiple": Case(("run --names a --names b --sizes 5",)),
    "parameter_wrong": Case(("run --size small",)),
    "parameters_given": Case((_EVERY_PARAMETER,)),
    "project_branch": Case(("--branch dev run",), flow="project"),
    "project_production": Case(("--production run",), flow="project"),
    "resumed": Case(("run --tag first", "resume --tag second")),
    "resumed_recursion": Case(("run", "resume")),
    "resumed_nested": Case(("run", "resume")),
    "resumed_twice": Case(("run", "resume", "resume --origin-run-id {run}")),
    "resumed_step": Case(("run", "resume middle")),
    "spun": Case(("run", "spin {run}/end")),
    "spun_changed": Case(
        ("run", "spin {run}/end --artifacts-module changed.py"),
        files={"changed.py": "ARTIFACTS = {'number': 5}\n"},
    ),
    "step_commands": Case(
        (
            "run",
            "dump {run}/start",
            "dump {run}/start/1 --include number --max-value-size 10 --private",
            "dump {run}/start --file kept.pickle",
            "logs {run}/start",
            "logs show --both {run}/start",
            "logs --stderr --timestamps {run}/start/1",
            "show",
            "output-dot",
            "version",
            "check",
        )
    ),
    "tag_commands": Case(
        (
            "run --tag old",
            "tag add --run-id {run} first second",
            "tag remove --run-id {run} first",
            "tag replace --run-id {run} --remove second --add third",
            "tag list --run-id {run}",
            "tag add nothing",
        )
    ),
    "tags": Case(("run --tag one --tag two",)),
    "with_user_decorator": Case(("run --with with_user_decorator.around:mark=1",)),
    "with_retry": Case(("run --with retry:times=1,minutes_between_retries=0",)),
}

CASES: Final[dict[str, Case]] = dict(
    sorted(
        ({file.stem: Case() for file in FLOWS.glob("*.py")} | _GIVEN).items(),
    )
)


def flow_file(name: str) -> Path:
    """Where a case's flow stands."""
    return FLOWS / f"{CASES[name].flow or name}.py"


def golden_file(name: str) -> Path:
    """Where Metaflow's answer is kept."""
    return HERE / "golden" / f"{name}.json"


def our_file(name: str) -> Path:
    """Where our own answer is kept, of a case that differs on purpose."""
    return HERE / "different" / f"{name}.json"


def class_name(name: str) -> str:
    """The flow's class: `nested_foreach.py` has a `NestedForeachFlow`."""
    return "".join(part.capitalize() for part in flow_file(name).stem.split("_")) + "Flow"


def is_run(words: list[str]) -> bool:
    """Whether a command line starts a run."""
    return "run" in words or "resume" in words


_CAUGHT: Final = "a failure that was caught is no failure of the task"
_ITEM: Final = "the item of a join within a foreach is None in Metaflow, though its index is right"
_LISTED: Final = "the client lists names that begin with an underscore as well"
_BEFORE: Final = "we refuse it before the run, Metaflow in the middle"
_CLONED: Final = "Metaflow loses parents and children of some tasks that a resume took over"
_NAME: Final = "in Metaflow a config's own name hides its key `name`"
_WAY: Final = "Metaflow tells all tasks of the steps that could be meant, we those of the way taken"

DIFFERENT: Final[dict[str, dict[str, str]]] = {
    "artifact_deleted": {
        "steps/*/artifacts/*": "in Metaflow an artifact that was inherited and deleted comes back",
    },
    "artifact_types": {"steps/*/artifacts/_place": _LISTED},
    "branch_in_foreach": {"steps/item_join/*/artifacts/mine": _ITEM},
    "catch_after_retry": {"steps/start/*/successful": _CAUGHT},
    "catch_failure": {"steps/start/*/successful": _CAUGHT},
    "catch_in_foreach": {"steps/item/*/successful": _CAUGHT},
    "catch_without_name": {
        "steps/start/*/successful": _CAUGHT,
        "steps/start/*/artifacts/before": _CAUGHT,
    },
    "clone_only": {
        "*": "Metaflow's client finds no tasks in a run that was cloned",
    },
    "condition_after_join": {"steps/*/parents": _WAY, "steps/*/children": _WAY},
    "condition_caught": {"*": "we fail when there is a failure to catch and no choice"},
    "condition_deep": {"steps/*/parents": _WAY, "steps/*/children": _WAY},
    "condition_to_join": {
        "steps/*/artifacts/*": "the inputs are in the order of the items, whichever way these went",
        "steps/*/children": _WAY,
    },
    "condition_with_foreach": {"*": _BEFORE},
    "config_in_decorators": {
        "steps/*/artifacts/same": _NAME,
        "steps/*/artifacts/seen": _NAME,
    },
    "decorators_together": {"steps/divide/*/successful": _CAUGHT},
    "foreach_generator": {"*": "what a foreach runs over need not be stored"},
    "foreach_nothing": {"*": "nothing to do is no failure"},
    "foreach_wide": {"*": "a foreach may be of any width"},
    "gang_of_none": {"*": _BEFORE},
    "join_splits": {"*": "a join may fan out"},
    "nb_runner": {"answers/number": "Metaflow has it in notebooks only"},
    "nested_condition": {"steps/*/parents": _WAY, "steps/*/children": _WAY},
    "nested_foreach": {"steps/*_join/*/artifacts/mine": _ITEM},
    "other_environments": {"*": "Metaflow refuses what it would have to install packages for"},
    "output": {"steps/start/*/stdout": "Metaflow adds an end of line to what has none"},
    "private_artifacts": {"steps/*/artifacts/_hidden": _LISTED},
    "recursion": {"steps/*/parents": _WAY, "steps/*/children": _WAY},
    "recursion_in_foreach": {"steps/*/parents": _WAY, "steps/*/children": _WAY},
    "recursion_of_first": {"*": "a step that repeats may lead straight to the join"},
    "recursion_over_steps": {"*": "a loop may have several steps"},
    "resumed": {
        "tags": "a resumed run keeps the tags of its origin",
        "answers/tags": "a resumed run keeps the tags of its origin",
    },
    "resumed_nested": {"steps/*/parents": _CLONED, "steps/*/children": _CLONED},
    "resumed_recursion": {"steps/*/parents": _WAY, "steps/*/children": _WAY},
    "secrets_unknown": {"*": _BEFORE},
    "timeout_caught": {"steps/start/*/successful": _CAUGHT},
    "two_nexts": {"*": _BEFORE},
    "user_decorator_catch": {"steps/start/*/successful": _CAUGHT},
    "user_decorator_condition": {"*": "where the failure was caught, the artifact says the way"},
}
"""What differs on purpose: the parts of an answer, as patterns, and why.

Our own answer to such a case is kept in `different/`.
"""
