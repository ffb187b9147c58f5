"""What a task finds around it is what a script would expect."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from asyncflow import Engine, FlowSpec, step
from asyncflow.errors import PoolError

NAME = "ASYNCFLOW_TEST_WORD"


class Looking(FlowSpec):
    """Looks around, makes a mess, and looks around again in the next task of the same worker."""

    @step
    def start(self):
        self.first = look()
        os.chdir("/")
        os.environ[NAME] = "left by a step"
        os.environ["ASYNCFLOW_TEST_OTHER"] = "too"
        del os.environ["HOME"]
        self.next(self.end)

    @step
    def end(self):
        self.second = look()


def look():
    """What is around."""
    return {
        "cwd": str(Path.cwd()),
        "path": list(sys.path),
        "argv": sys.argv,
        "environment": dict(os.environ),
        "stdin": sys.stdin.read(),
        "umask": os.umask(0o022),
    }


@pytest.fixture
async def engine(store):
    """An open engine with one worker, so that a task always follows another there."""
    async with Engine(store=store, workers=1) as opened:
        yield opened


async def test_a_task_finds_the_programs_surroundings(engine, tmp_path, monkeypatch):
    """Working directory, `sys.path`, arguments and variables as when the run was started."""
    os.umask(0o022)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(NAME, "set after the engine was opened")
    monkeypatch.setenv("ASYNCFLOW_TEST_BYTES", "caf\udce9")  # not UTF-8
    monkeypatch.delenv("LANG", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    found = (await engine.run(Looking)).data.first
    assert found["cwd"] == str(tmp_path)
    assert [entry for entry in found["path"] if entry in sys.path] == sys.path
    assert found["argv"] == sys.argv
    assert found["environment"] == dict(os.environ)
    assert (found["stdin"], found["umask"]) == ("", 0o022)


async def test_what_a_task_changes_is_put_back_for_the_next(engine):
    """Its working directory and its environment variables are its own."""
    data = (await engine.run(Looking)).data
    assert data.second == data.first


async def test_each_run_of_an_engine_has_the_surroundings_of_its_start(
    engine, tmp_path, monkeypatch
):
    """One warm worker serves them all."""
    monkeypatch.setenv(NAME, "before")
    before = (await engine.run(Looking)).data.first
    monkeypatch.delenv(NAME)
    monkeypatch.chdir(tmp_path)
    after = (await engine.run(Looking)).data.first
    assert before["environment"][NAME] == "before"
    assert NAME not in after["environment"]
    assert (before["cwd"] == str(tmp_path), after["cwd"]) == (False, str(tmp_path))


async def test_more_variables_than_can_be_told_are_refused(engine, monkeypatch):
    """The error names the largest, and the engine goes on."""
    monkeypatch.setenv(NAME, "x" * 1_000_000)
    with pytest.raises(PoolError, match=f"'{NAME}' is the largest"):
        await engine.run(Looking)
    monkeypatch.setenv(NAME, "x" * 50_000)
    data = (await engine.run(Looking)).data
    assert data.first["environment"][NAME] == "x" * 50_000


SCRIPT = """
    import os
    from asyncflow import FlowSpec, step

    with open("imported", "a") as file:
        file.write(f"{__name__} {os.getpid()}\\n")

    class Guarded(FlowSpec):
        @step
        def start(self):
            self.items = range(4)
            self.next(self.work, foreach="items")

        @step
        def work(self):
            import time
            time.sleep(0.05)
            self.next(self.join)

        @step
        def join(self, inputs):
            self.next(self.end)

        @step
        def end(self):
            pass

    if __name__ == "__main__":
        with open("guarded", "a") as file:
            file.write(f"{os.getpid()}\\n")
        Guarded()
"""


@pytest.mark.parametrize(
    "command", [["guarded.py", "run"], ["-m", "asyncflow", "run", "guarded.py"]]
)
def test_a_workers_import_does_not_run_the_main_guard(tmp_path, command):
    """The file is imported once by each process, and its guard is entered by the program alone."""
    (tmp_path / "guarded.py").write_text(textwrap.dedent(SCRIPT))
    subprocess.run(
        [sys.executable, *command, "--workers", "2"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=60,
    )
    imports = [line.split() for line in (tmp_path / "imported").read_text().splitlines()]
    assert 1 <= len(imports) <= 3  # the program, and workers that were not forked out of it
    assert len({pid for _, pid in imports}) == len(imports)
    names = [name for name, _ in imports if name == "__main__"]
    guard = Path(tmp_path / "guarded")
    entered = guard.read_text().split() if guard.exists() else []
    assert len(entered) == len(names) == (command[0] == "guarded.py")
