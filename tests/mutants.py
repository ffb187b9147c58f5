"""Change the code in small ways, and see whether a test notices: `python -m tests.mutants [PART…]`.

Each part is a module and the tests that are to guard it. Cosmic Ray makes the mutants: it turns a
comparison round, drops a `not`, deletes a statement. Of each part `--count` mutants are drawn at
random, the same ones for the same `--seed`, and the part's tests run against each of them, in a
copy of the project below `build/mutants`. What no test notices is a *survivor*.

A survivor that does no harm stands in `tests/mutants.toml` with the reason. The rest are holes in
the tests. The command prints them as diffs, and ends with status 1 if fewer than 90% of the mutants
that matter were noticed. A run that was broken off goes on where it stood.
"""

from __future__ import annotations

import argparse
import ast
import random
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import parso
from cosmic_ray import plugins
from cosmic_ray.commands.init import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cosmic_ray.work_item import MutationSpec, WorkItem

ROOT: Final = Path(__file__).resolve().parents[1]
PLACE: Final = ROOT / "build" / "mutants"
REASONS: Final = ROOT / "tests" / "mutants.toml"
MARK: Final = 0.9
LIMIT_SECONDS: Final = 120.0  # a mutant that makes a test hang is noticed by then
WITHOUT: Final = ("core/RemoveDecorator", "core/ReplaceBinaryOperator_BitOr", "core/NoOp")
"""Operators whose mutants break every test at once: of decorators, and of unions of types."""

PARTS: Final[dict[str, str]] = tomllib.loads(REASONS.read_text())["parts"]


class DeleteStatement(Operator):
    """Puts `pass` in the place of a call or an assignment that stands alone."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        """The statements that can be deleted without a name going missing: calls and attributes."""
        if node.type == "simple_stmt" and _stands_alone(node.children[0]):
            yield node.children[0].start_pos, node.children[0].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Delete it."""
        assert index == 0, index
        statement = node.children[0]
        node.children[0] = parso.parse(statement.get_first_leaf().prefix + "pass").children[0]
        return node

    @classmethod
    def examples(cls) -> tuple[Any, ...]:
        """What it does, for Cosmic Ray's own tests."""
        return (Example("file.sync()", "pass"),)


def _stands_alone(statement: Any) -> bool:
    if statement.type in {"atom_expr", "await_expr"}:
        return True
    target = statement.children[0] if statement.type == "expr_stmt" else None
    return target is not None and target.type in {"atom_expr", "power"}


plugins.OPERATOR_PROVIDERS["asyncflow"] = {"DeleteStatement": DeleteStatement}


@dataclass
class Report:
    """What became of one part's mutants."""

    part: str
    noticed: int = 0
    survivors: list[str] = field(default_factory=list)
    harmless: int = 0

    def __str__(self) -> str:
        matter = self.noticed + len(self.survivors)
        return f"{self.part:34} {self.noticed:4} of {matter:4} noticed, {self.harmless} harmless"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("parts", nargs="*", help="how modules' names end, such as plan")
    parser.add_argument("--count", type=int, default=20, help="mutants of each part (20)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (1)")
    chosen = parser.parse_args(argv)
    reports = []
    for part in _parts(chosen.parts):
        reports.append(_examine(part, chosen.count, chosen.seed))
        print(reports[-1], flush=True)
    for report in reports:
        for diff in report.survivors:
            print(f"\n{diff}")
    noticed = sum(report.noticed for report in reports)
    matter = noticed + sum(len(report.survivors) for report in reports)
    print(f"\n{noticed} of {matter} mutants that matter were noticed")
    return int(noticed < MARK * matter)


def _parts(names: Sequence[str]) -> list[str]:
    unknown = [name for name in names if not any(part.endswith(name) for part in PARTS)]
    if unknown:
        sys.exit(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return [part for part in PARTS if not names or any(part.endswith(name) for name in names)]


def _examine(part: str, count: int, seed: int) -> Report:
    project = _copy_of_the_project()
    module = project / f"{part.replace('.', '/')}.py"
    original = module.read_text()
    tests = " ".join(f"tests/{name}.py" for name in PARTS[part].split())
    options = "-x -q -n 0 -p no:cacheprovider -m 'not slow and not cluster' --rootdir ."
    command = f"env -C {project} PYTHONPATH={project} {sys.executable} -m pytest {options} {tests}"
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)  # noqa: S602 - Cosmic Ray's form; nothing of it comes from outside
    report = Report(part)
    session = PLACE / f"{part}-{seed}-{count}.sqlite"
    try:
        with use_db(str(session), WorkDB.Mode.create) as database:
            if not database.num_work_items:
                init([module], database, {})
            for item in _drawn(database, original, count, seed):
                _try(item, database, command, module, report)
    finally:
        module.write_text(original)
    return report


def _copy_of_the_project() -> Path:
    """The work tree as it is, in a place where its modules may be changed."""
    project = PLACE / "project"
    shutil.rmtree(project, ignore_errors=True)
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard"]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, project / name)
    return project


def _drawn(database: WorkDB, source: str, count: int, seed: int) -> list[WorkItem]:
    """So many mutants at random, each at another place; none that changes nothing that runs."""
    idle = list(_idle_lines(source))
    items = [item for item in database.work_items if _is_worth_it(item.mutations[0], idle)]
    items.sort(key=lambda item: _order(item.mutations[0]))
    random.Random(seed).shuffle(items)
    one_each = {item.mutations[0].start_pos: item for item in items}  # else arithmetic has most
    return list(one_each.values())[:count]


def _order(mutation: MutationSpec) -> tuple[Any, ...]:
    return mutation.start_pos, mutation.end_pos, mutation.operator_name, mutation.occurrence


def _is_worth_it(mutation: MutationSpec, idle: Sequence[tuple[Any, Any]]) -> bool:
    if mutation.operator_name.startswith(WITHOUT):
        return False
    return not any(begin <= mutation.start_pos < end for begin, end in idle)


def _idle_lines(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where a change changes nothing that runs: annotations, imports for types, commit points."""
    for node in ast.walk(ast.parse(source)):
        for part in _idle_parts(node):
            end = part.end_lineno or part.lineno, part.end_col_offset or part.col_offset
            yield (part.lineno, part.col_offset), end


def _idle_parts(node: ast.AST) -> Iterable[Any]:
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name):
        return [node] if node.test.id == "TYPE_CHECKING" else []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return [node] if node.func.id == "reached" else []  # it only tells tests where they are
    parts = [getattr(node, "annotation", None), getattr(node, "returns", None)]
    return [part for part in parts if part is not None]


def _try(item: WorkItem, database: WorkDB, command: str, module: Path, report: Report) -> None:
    results = dict(database.results)
    result = results.get(item.job_id)
    if result is None:
        result = mutate_and_test(item.mutations, command, LIMIT_SECONDS)
        database.set_result(item.job_id, result)
    if result.test_outcome != TestOutcome.SURVIVED:
        report.noticed += 1
    elif _reason(item.mutations[0], module.read_text().splitlines(), report.part):
        report.harmless += 1
    else:
        where = f"{report.part}:{item.mutations[0].start_pos[0]}"
        report.survivors.append(f"{where} {item.mutations[0].operator_name}\n{result.diff}")


def _reason(mutation: MutationSpec, lines: Sequence[str], part: str) -> str:
    """Why a survivor does no harm, if somebody has said so: by its operator and its line's text."""
    line = lines[mutation.start_pos[0] - 1].strip()
    for known in tomllib.loads(REASONS.read_text()).get("survivor", []):
        if (known["module"], known["line"]) == (part, line):
            operators = known.get("operator", mutation.operator_name)
            if mutation.operator_name == operators:
                return str(known["reason"])
    return ""


if __name__ == "__main__":
    sys.exit(main())
