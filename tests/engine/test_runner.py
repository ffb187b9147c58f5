"""`Runner` and `NBRunner` run flows from a program, over an engine of their own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from asyncflow import (
    Config,
    FlowSpec,
    IncludeFile,
    NBRunner,
    Parameter,
    Runner,
    current,
    project,
    step,
)
from asyncflow.engine.one_task import find_task, prepare_task
from asyncflow.errors import EngineClosedError, FlowError, ParameterError, ResumeError
from tests.support.waiting import until


class Shared(FlowSpec):
    number = Parameter("number", default=1)
    note = IncludeFile("note")
    wait = Parameter("wait", default="")

    @step
    def start(self):
        self.share = 6 // self.number
        print("said", self.share)
        print(os.environ.get("SAID_BY_RUNNER"), Path.cwd().name)
        self.next(self.end)

    @step
    def end(self):
        while self.wait and not Path(self.wait).exists():
            time.sleep(0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the runs are, with a file."""
    made = tmp_path_factory.mktemp("runner") / "place"
    made.mkdir()
    (made / "note.txt").write_text("noted")
    return made


@pytest.fixture(scope="module")
def runner(folder):
    """One runner for most tests: its workers stay warm."""
    with Runner(
        f"{__file__}:Shared", show_output=False, env={"SAID_BY_RUNNER": "it"}, cwd=folder, workers=1
    ) as made:
        yield made


def test_a_run_is_had_with_its_status_log_and_artifacts(runner):
    """Also after the block that has it."""
    with runner.run(number=2, tags=["one"]) as executing:
        assert (executing.status, executing.returncode) == ("successful", 0)
    assert executing.run.data.share == 3
    assert "one" in executing.run.tags
    lines = executing.stdout.splitlines()
    assert lines[0].endswith(f"Workflow starting (run-id {executing.run.id}):")
    assert lines[-1].endswith("Done!")
    assert any(line.endswith("] said 3") for line in lines)
    assert executing.stderr == ""


def test_steps_get_the_variables_and_the_folder_of_the_runner(runner, folder):
    """And the store is there, and the path of a file is looked for there."""
    executing = runner.run(note="note.txt")
    assert "] it place\n" in executing.stdout
    assert executing.run.data.note == "noted"
    assert executing.run.store == folder / ".asyncflow"
    assert "SAID_BY_RUNNER" not in os.environ


def test_variables_of_the_runner_give_parameters_their_values(tmp_path):
    """As those of the program do."""
    variables = {"ASYNCFLOW_RUN_NUMBER": "3", "ASYNCFLOW_STORE": str(tmp_path)}
    with Runner(f"{__file__}:Shared", show_output=False, env=variables) as runner:
        executing = runner.run()
    assert executing.run.data.share == 2
    assert executing.run.store == tmp_path


def test_a_failed_run_raises_nothing_and_is_resumed(runner):
    """`stderr` says why; a resumed run has the same parameters."""
    failed = runner.run(number=0)
    assert (failed.status, failed.returncode) == ("failed", 1)
    assert "ZeroDivisionError" in failed.stderr
    assert "To go on from here: " in failed.stderr
    again = runner.resume(origin_run_id=failed.run.id)
    assert again.status == "failed"
    assert again.run.origin_run_id == failed.run.id


def test_a_step_is_run_again_with_resume(runner):
    """`step_to_rerun` is Metaflow's name for it."""
    first = runner.run(number=2)
    again = runner.resume(origin_run_id=first.run.id, step_to_rerun="end")
    assert "Cloning results" in again.stdout
    assert again.run["end"].task.origin_pathspec is None


def test_the_run_id_is_written_to_a_file(runner, tmp_path):
    """As with `--run-id-file`."""
    executing = runner.run(run_id_file=tmp_path / "id", max_num_splits=3)
    assert (tmp_path / "id").read_text() == executing.run.id
    assert list(tmp_path.iterdir()) == [tmp_path / "id"]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda runner: runner.run(nowhere=1), ParameterError),
        (lambda runner: runner.resume(nowhere=1), ParameterError),
        (lambda runner: runner.resume(origin_run_id="17"), ResumeError),
        (lambda runner: Runner(f"{__file__}:Shared", nowhere=1), ParameterError),
        (lambda runner: Runner("nowhere.py"), FlowError),
        (lambda runner: NBRunner("Shared"), FlowError),  # type: ignore[arg-type] # on purpose
    ],
)
def test_what_cannot_be_done_is_an_error_at_once(runner, call, error):
    """And no run."""
    with pytest.raises(error, match=r"nowhere|17|Shared"):
        call(runner)


def test_runners_of_several_threads_load_the_same_file(tmp_path):
    """None takes the import by another for one that it stands in, or has half of the file."""
    (tmp_path / "slowly_imported.py").write_text(
        "import time\ntime.sleep(0.1)\nfrom asyncflow import FlowSpec, step\n\n\n"
        "class Slow(FlowSpec):\n    @step(start=True, end=True)\n    def only(self):\n"
        "        print('ran')\n"
    )

    def run(_):
        with Runner(
            str(tmp_path / "slowly_imported.py"), show_output=False, cwd=tmp_path, workers=1
        ) as runner:
            return runner.run().status

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(run, range(3))) == ["successful"] * 3


async def test_a_run_is_followed_from_an_event_loop(runner, tmp_path):
    """Lines come while it runs, each with its position, from which another loop goes on."""
    go_on = tmp_path / "go-on"
    executing = await runner.async_run(number=3, wait=str(go_on))
    assert (executing.status, executing.returncode) == ("running", None)
    at = 0
    async for at, line in executing.stream_log("stdout"):  # noqa: B007 - used below
        if line.endswith("] said 2"):
            break
    with pytest.raises(TimeoutError):
        await executing.wait(timeout=0.01)
    assert executing.status == "running"
    go_on.touch()
    rest = [line async for _, line in executing.stream_log("stdout", position=at)]
    assert rest[-1].endswith("Done!")
    assert not any(line.endswith("] said 2") for line in rest)
    assert await executing.wait() is executing
    assert (executing.status, executing.returncode) == ("successful", 0)


async def test_a_cancelled_run_has_failed(runner, tmp_path):
    """And its error stream says so."""
    executing = await runner.async_run(wait=str(tmp_path / "never"))
    executing.cancel("enough")
    await executing.wait()
    assert executing.status == "failed"
    assert "was cancelled: enough" in executing.stderr
    assert [line async for _, line in executing.stream_log("stderr")] == [
        executing.stderr.rstrip("\n")
    ]


async def test_cleaning_up_ends_runs_thread_and_engine(tmp_path):
    """On the loop of the program, too; the runner cannot be used again."""
    before = set(threading.enumerate())
    async with NBRunner(Shared, store=tmp_path / "store", workers=1) as runner:
        executing = await runner.async_run(wait=str(tmp_path / "never"))
        await until(lambda: "end" in executing.run)
    assert executing.status == "failed"
    left = {each.name for each in set(threading.enumerate()) - before}
    assert not {name for name in left if name.startswith("asyncflow")}
    with pytest.raises(EngineClosedError, match="cleaned up"):
        await runner.async_run()


def test_one_task_is_run_again_in_a_process_of_its_own(runner, tmp_path):
    """And kept on request; one that fails raises nothing."""
    earlier = runner.run(number=2)
    spun = runner.spin(f"{earlier.run.id}/start")
    assert (spun.status, spun.returncode) == ("successful", 0)
    assert spun.stdout == "said 3\nit place\n"
    assert spun.task == earlier.run["start"].task
    changed = tmp_path / "changed.py"
    changed.write_text("ARTIFACTS = {'number': 3}")
    kept = runner.spin("start", artifacts_module=changed, persist=True)
    assert kept.task.data.share == 2
    changed.write_text("ARTIFACTS = {'number': 0}")
    failed = runner.spin("start", artifacts_module=changed)
    assert (failed.status, failed.returncode) == ("failed", 1)
    assert "ZeroDivisionError" in failed.stderr


async def test_a_task_that_is_run_again_can_be_waited_for(runner, tmp_path):
    """Cleaning up kills the process, and keeps what was printed."""
    earlier = runner.run()
    changed = tmp_path / "changed.py"
    changed.write_text(f"ARTIFACTS = {{'wait': {str(tmp_path / 'never')!r}}}")
    with await runner.async_spin(f"{earlier.run.id}/end", artifacts_module=changed) as spun:
        with pytest.raises(TimeoutError):
            await spun.wait(timeout=0.01)
        assert spun.status == "running"
        await until(lambda: "Running" in spun.stderr)
    assert spun.status == "failed"
    assert "Running" in spun.stderr


@project(name="shop")
class Configured(FlowSpec):
    settings = Config("settings")
    other = Config("other", default_value={"size": 1})

    @step
    def start(self):
        self.seen = self.settings.size, self.other.size, current.branch_name
        self.next(self.end)

    @step
    def end(self):
        pass


def test_configurations_and_the_branch_are_options_of_the_runner(tmp_path):
    """Those of Metaflow."""
    (tmp_path / "other.json").write_text('{"size": 3}')
    runner = NBRunner(
        Configured,
        show_output=False,
        store=tmp_path / "store",
        workers=1,
        config={"other": str(tmp_path / "other.json")},
        config_value=[("settings", {"size": 2})],
        branch="dev",
    )
    run = runner.nbrun()
    assert run.data.seen == (2, 3, "test.dev")
    single = prepare_task(Configured, find_task(Configured, "start", run.store))
    single.run({}, lambda *_: None)
    assert single.artifacts["seen"] == run.data.seen


class Default(FlowSpec):
    """Reads a file of its working directory."""

    settings = Config("settings", default="settings.json")

    @step
    def start(self):
        self.size, self.word = self.settings.size, os.environ.get("WORD")
        self.next(self.end)

    @step
    def end(self):
        pass


def test_the_default_of_a_config_is_a_file_of_the_runners_folder(tmp_path):
    """As for a process that is started there; what the environment says goes before it."""
    (tmp_path / "settings.json").write_text('{"size": 3}')
    for variables, size in (
        ({}, 3),
        ({"ASYNCFLOW_FLOW_CONFIG_VALUE": '{"settings": {"size": 4}}'}, 4),
    ):
        runner = NBRunner(Default, show_output=False, cwd=tmp_path, workers=1, env=variables)
        assert runner.nbrun().data.size == size


def test_decospecs_decorate_the_steps_of_one_runner(tmp_path):
    """Also of a flow with configs; other runs of the class have none of it."""
    (tmp_path / "settings.json").write_text('{"size": 3}')
    word = ['environment:vars={"WORD": "said"}']
    with NBRunner(Default, show_output=False, cwd=tmp_path, workers=1, decospecs=word) as runner:
        given = runner.run(decospecs=["retry:times=1"]).run
        plain = runner.run().run
    assert (given.data.word, sorted(given.graph["start"].options)) == (
        "said",
        ["environment", "retry"],
    )
    assert (plain.data.word, sorted(plain.graph["start"].options)) == ("said", ["environment"])
    assert NBRunner(Default, show_output=False, cwd=tmp_path, workers=1).nbrun().data.word is None


def test_a_decospec_that_there_is_not_is_an_error_at_once(tmp_path):
    """So is one text instead of a list."""
    with pytest.raises(FlowError, match="--with nothing"):
        NBRunner(Default, decospecs=["nothing"])
    with pytest.raises(FlowError, match="give a list of decorators"):
        NBRunner(Default, decospecs="retry")


async def test_the_command_of_a_run_waits_prints_and_kills(runner, tmp_path):
    """Metaflow's names for it; what only a process has says where it is here."""
    done = runner.run(number=2)
    lines: list[str] = []
    await done.command_obj.emit_logs(custom_logger=lines.append)
    assert any("said 3" in line for line in lines)
    waiting = await runner.async_run(wait=str(tmp_path / "never"))
    waiting.command_obj.kill()
    waiting.command_obj.sync_wait()
    assert waiting.status == "failed"
    with pytest.raises(AttributeError, match=r"executing\.returncode"):
        _ = waiting.command_obj.process


def test_a_notebook_has_the_run_at_once(tmp_path):
    """`nbrun` and `nbresume` clean up."""
    run = NBRunner(Shared, show_output=False, store=tmp_path).nbrun(number=6)
    assert run.data.share == 1
    again = NBRunner(Shared, show_output=False, store=tmp_path).nbresume()
    assert again.origin_run_id == run.id


async def test_a_cell_whose_loop_runs_can_wait_for_a_run(runner):
    """As in a notebook: the engine has a loop of its own."""
    assert asyncio.get_running_loop().is_running()
    assert runner.run(number=6).run.data.share == 1


def test_a_script_that_forgets_to_clean_up_ends_and_leaves_no_worker(tmp_path):
    """The log is printed as it comes, the failure to standard error."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            from asyncflow import FlowSpec, Parameter, Runner, step

            class Divided(FlowSpec):
                by = Parameter("by", default=1)

                @step
                def start(self):
                    print("divided", 6 // self.by)
                    self.next(self.end)

                @step
                def end(self):
                    pass

            if __name__ == "__main__":
                runner = Runner(__file__)
                runner.run(by=2)
                runner.run(by=0)
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0
    assert "] divided 3\n" in done.stdout
    assert "Workflow failed." in done.stdout
    assert "ZeroDivisionError" in done.stderr
    assert "never closed" not in done.stderr
