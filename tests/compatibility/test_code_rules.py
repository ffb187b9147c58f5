"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("asyncflow", "benchmarks", "docs_site", "examples", "tests")
FILES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))

MARK = (
    r"#\s*(noqa(:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*)?|type: ignore(\[[^]]*\])?|fmt: \w+|pragma: [\w ]+)"
)
METHODS = (ast.FunctionDef, ast.AsyncFunctionDef)
LEANS_ON_ANOTHER = re.compile(r"(the same|as above|see above|ditto)\b")


def unexplained(comment):
    """Whether a comment silences a check and gives no reason, or one that stands elsewhere."""
    if not re.search(MARK, comment):
        return False
    reason = re.sub(MARK, "", comment).strip(" -#")
    return not reason or LEANS_ON_ANOTHER.match(reason) is not None


@pytest.mark.parametrize(
    ("comment", "wrong"),
    [
        ("# what a reader has to know", False),
        ("# noqa: S101 - a wrong answer is worth nothing", False),
        ("# type: ignore[misc] # noqa: SLF001 - executors end by these", False),
        ("# noqa", True),
        ("# noqa: S101", True),
        ("# noqa: FBT001, FBT002 -", True),
        ("# type: ignore[misc]", True),
        ("# fmt: skip", True),
        ("# noqa: S101 - as above", True),
    ],
)
def test_what_is_a_reason(comment, wrong):
    """It stands behind the codes, in words that need no other line."""
    assert unexplained(comment) is wrong


def test_each_silenced_check_says_why():
    """On its own line, so that whoever changes the line sees whether it still holds."""
    found = []
    for file in FILES:
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            mark = re.search(MARK, line) if file != Path(__file__) else None
            if mark is not None and unexplained(line[mark.start() :]):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line[mark.start() :]}")
    assert not found, "\n".join(found)


def test_each_test_that_is_skipped_says_why():
    """Whoever reads the summary should know what is missing on the machine."""
    found = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name, named = node.func.attr, {word.arg for word in node.keywords}
                if name in {"importorskip", "skipif", "xfail"}:
                    wrong = "reason" not in named
                else:
                    wrong = name == "skip" and not node.args and "reason" not in named
                if wrong:
                    found.append(f"{file.relative_to(ROOT)}:{node.lineno}: {name}")
    assert not found, "\n".join(found)


def test_no_handle_of_the_event_loop_is_asked_for_its_time():
    """Those of uvloop may have none: `TimedCall` remembers it."""
    found = []
    for file in (ROOT / "asyncflow").rglob("*.py"):
        found += [
            f"{file.relative_to(ROOT)}:{node.lineno}"
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and (node.func.attr, node.args) == ("when", [])
        ]
    assert not found, "\n".join(found)


def test_no_file_is_long_and_no_class_has_many_methods():
    """What has grown beyond that is two things."""
    found = []
    for file in (ROOT / "asyncflow").rglob("*.py"):
        text = file.read_text()
        if text.count("\n") > 600:
            found.append(f"{file}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                methods = sum(isinstance(each, METHODS) for each in node.body)
                if methods > 30:
                    found.append(f"{file}: {node.name} has {methods} methods")
    assert not found, "\n".join(found)
