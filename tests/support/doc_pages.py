"""A page of the documentation as something that can be carried out.

What the fences of a page mean:

    ```python title="hello.py"    a file of that name
    ```python                     run, in one namespace for the page, as in the cells of a notebook
    ```sh                         every line is a command; `# exit status N` where that is not 0
    ```                           each line stands in what the fence before has printed, but for
                                  numbers and spacing; `…` stands for anything

Another language, such as `text`, or `<!-- not run: REASON -->` on the line above, and a fence is
only read. A run id in a page (16 digits) stands for that of the latest run.

As a program (`python -c "from tests.support.doc_pages import carry_out; carry_out()"`) it carries
out the fences that come as JSON on its standard input, and writes what they printed to its standard
output. That way `__main__` has no file, as in a notebook.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import io
import json
import linecache
import os
import re
import subprocess
import sys
import traceback
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FENCE = re.compile(
    r"^(?P<note> *<!-- not run: [^\n]+ -->\n)?"
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
RUN_ID = re.compile(r"\b1\d{15}\b")
_BUSY = re.compile("the process that starts workers does not answer|importing a flow takes long")
"""What the engine says where the machine is too busy: that is no fault of a page."""
STATUS = re.compile(r"#.*\bexit status (\d+)")
NOT_HERE = {"make", "pip"}
"""Commands that concern the checkout, not asyncflow."""


@dataclass(frozen=True)
class Fence:
    """One fenced block of a page."""

    line: int
    language: str
    title: str
    text: str
    skipped: bool = False

    @property
    def is_output(self) -> bool:
        """Whether it shows what others print."""
        return not self.language and not self.skipped

    def missing_from(self, printed: str) -> list[str]:
        """The lines that were not printed."""
        lines = [plain(line) for line in printed.splitlines()]
        wanted = {line: _pattern(line) for line in self.text.splitlines()}
        return [line for line, each in wanted.items() if not any(map(each.search, lines))]


def plain(line: str) -> str:
    """A line without what differs from run to run."""
    return " ".join(re.sub(r"\d+", "0", line).split())


def _pattern(line: str) -> re.Pattern[str]:
    pieces = plain(line).replace("…", " … ").split(" … ")
    return re.compile(".*".join(re.escape(piece.strip()) for piece in pieces))


def fences_of(page: str) -> list[Fence]:
    """The fences of a page, in order."""
    fences = []
    for match in FENCE.finditer(page):
        language, _, rest = match["info"].partition(" ")
        title = re.search(r'title="([^"]+)"', rest)
        line = page.count("\n", 0, match.start("info")) + 1
        name = title[1] if title else ""
        text = re.sub(f"^{match['indent']}", "", match["text"], flags=re.MULTILINE)  # of a tab
        fences.append(Fence(line, language, name, text, skipped=bool(match["note"])))
    return fences


# --- in the page's own process -----------------------------------------------------------------


def carry_out() -> None:
    """Carry out the fences on standard input; for each, what it printed and how it failed."""
    namespace = vars(sys.modules["__main__"])
    results = []
    with asyncio.Runner() as runner:
        for raw in json.load(sys.stdin):
            fence = Fence(**raw)
            printed, failure = "", ""
            try:
                printed = _carry_out(fence, namespace, runner)
            except _Failed as error:
                failure = str(error)
            except BaseException:  # noqa: BLE001 - SystemExit of an example too
                failure = traceback.format_exc()
            results.append([printed, failure])
    json.dump(results, sys.stdout)


class _Failed(Exception):
    """A command had another exit status than the page says."""


def _carry_out(fence: Fence, namespace: dict[str, Any], runner: asyncio.Runner) -> str:
    if fence.skipped or fence.is_output:
        return ""
    if fence.title:
        file = Path(fence.title)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(fence.text)
        return ""
    if fence.language == "python":
        return _run_python(fence, namespace, runner)
    return _run_commands(fence.text) if fence.language == "sh" else ""


def _run_python(fence: Fence, namespace: dict[str, Any], runner: asyncio.Runner) -> str:
    name = f"<line {fence.line}>"
    text = RUN_ID.sub(lambda _: latest_run(), fence.text)
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    code = compile(text, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with redirect_stdout(io.StringIO()) as printed:
        waiting = eval(code, namespace)  # noqa: S307 - our own pages
        if inspect.iscoroutine(waiting):
            runner.run(waiting)
    return printed.getvalue()


def _run_commands(text: str) -> str:
    printed = []
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#") or line.split()[0] in NOT_HERE:
            continue
        command = RUN_ID.sub(lambda _: latest_run(), line)
        done = subprocess.run(
            ["/bin/bash", "-c", command], check=False, capture_output=True, text=True, timeout=180
        )
        expected = STATUS.search(line)
        if done.returncode != int(expected[1] if expected else 0):
            raise _Failed(f"{command}\nexit status {done.returncode}\n{done.stdout}{done.stderr}")
        printed += [done.stdout, done.stderr]
    return "".join(printed)


def latest_run() -> str:
    """The id of the run that was started last, in whichever store of this folder."""
    return max(path.name for path in Path().glob("**/flows/*/[0-9]*"))


# --- from outside -------------------------------------------------------------------------------


def needs_a_cluster(page: str) -> bool:
    """Whether a page is for `make test-cluster`: it says so in a comment."""
    return "<!-- tested by make test-cluster -->" in page


def try_page(page: str, folder: Path) -> list[str]:
    """Carry out a page in a folder; what is wrong with it."""
    fences = fences_of(page)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("ASYNCFLOW_")
    }
    # Its entry point is there only where this very version is installed.
    environment["PYTEST_PLUGINS"] = "asyncflow.testing.pytest_plugin"
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    here = str(Path(__file__).parents[2])
    code = f"import sys; sys.path.append({here!r}); from {__name__} import carry_out; carry_out()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        cwd=folder,
        env=environment,
        input=json.dumps([asdict(fence) for fence in fences]),
        capture_output=True,
        text=True,
        timeout=270,
    )
    told = "".join(line for line in done.stderr.splitlines(keepends=True) if not _BUSY.search(line))
    if done.returncode or told:
        return [told or done.stdout]
    return [*_complaints(fences, json.loads(done.stdout)), *_unused(fences)]


def _complaints(fences: list[Fence], results: list[list[str]]) -> list[str]:
    found = []
    printed = ""
    for fence, (new, failure) in zip(fences, results, strict=True):
        if failure:
            found.append(f"line {fence.line}: {failure}")
        if fence.is_output:
            missing = fence.missing_from(printed)
            found += [f"line {fence.line}: not printed: {each}\n{printed}" for each in missing]
        else:
            printed = new
    return found


def _unused(fences: list[Fence]) -> list[str]:
    """Files that a page has and nothing on it runs or imports."""
    used = "".join(fence.text for fence in fences if fence.language in {"sh", "python"})
    titles = {fence.title for fence in fences if fence.title.endswith(".py") and not fence.skipped}
    return [
        f"{title} is never used"
        for title in titles
        if not re.search(rf"\b{re.escape(title)}\b|\b(from|import) {_module(title)}\b", used)
    ]


def _module(title: str) -> str:
    """A pattern for the module that a file is, with its packages or without."""
    file = Path(title)
    return rf"([\w.]+\.)?{file.parent.name if file.stem == '__init__' else file.stem}"
