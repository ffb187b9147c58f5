"""The command line as a process: output, exit status, signals, pipes, terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command_line import own_frames, without_rights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FLOW = """
from asyncflow import FlowSpec, Parameter, step
import os, sys, time

class ProcessFlow(FlowSpec):
    fail = Parameter("fail", default=False)
    seconds = Parameter("seconds", default=0.0)
    lines = Parameter("lines", default=1)

    @step
    def start(self):
        for number in range(self.lines):
            print("hello", number)
        print("careful", file=sys.stderr)
        self.next(self.work)

    @step
    def work(self):
        print("at work", flush=True)
        time.sleep(self.seconds)
        if self.fail:
            raise ValueError("no good")
        self.next(self.end)

    @step
    def end(self):
        self.answer = 42

if __name__ == "__main__":
    ProcessFlow()
"""
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"

PYTHON = shlex.quote(sys.executable)
"""For a shell: the folder may have a space in its name."""


@pytest.fixture
def folder(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a flow file in it."""
    (tmp_path / "flow.py").write_text(FLOW)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm")
    return tmp_path


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a flow file and a store, and a run in it, for tests that only look."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "flow.py").write_text(FLOW)
    where = {**os.environ, "ASYNCFLOW_STORE": str(folder / "store")}
    asyncflow("run", "flow.py", "--run-id-file", "id", cwd=folder, env=where)
    return folder, f"ProcessFlow/{(folder / 'id').read_text()}"


def asyncflow(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `asyncflow`, with one worker where it runs a flow."""
    return run([sys.executable, "-m", "asyncflow", *arguments], **options)


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command, capture_output=True, text=True, timeout=180, check=False, **options
    )


@pytest.fixture
def started(folder) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `asyncflow run`, and waits until a task is at work."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "asyncflow", "run", "flow.py", "--workers=1", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen(command, text=True, bufsize=1, **pipes)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    """Read the process's log up to a line with these words."""
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    pytest.fail(f"the process ended without {words!r}")


needs_full_device = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="only Linux has a device that is always full"
)
FULL = "standard output cannot be written to: No space left on device"


def into_full_device(*arguments: str, unbuffered: str = "") -> tuple[int, str]:
    """Run `asyncflow` with an output that nothing can be written to: exit status, errors."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "asyncflow", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=180,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    return done.returncode, done.stderr


# --- a run ------------------------------------------------------------------------------------


def test_run_that_succeeds(folder) -> None:
    """The log stands on stdout in Metaflow's shape, both streams of tasks in it; exit status 0."""
    done = asyncflow("run", "flow.py")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert re.fullmatch(rf"{STAMP} Workflow starting \(run-id \d+\):", lines[0])
    assert re.fullmatch(rf"{STAMP} \[\d+/start/1 \(pid \d+\)\] Task is starting\.", lines[1])
    assert [line.split("] ")[1] for line in lines[2:5]] == [
        "hello 0",
        "careful",
        "Task finished successfully.",
    ]
    assert re.fullmatch(rf"{STAMP} Done!", lines[-1])


def test_run_that_fails(folder) -> None:
    """Task, attempt, the user's traceback, the log's and the resume's command; exit status 1."""
    done = asyncflow("run", "flow.py", "--fail")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].endswith(" Workflow failed.")
    assert re.search(r"Step work failed: task ProcessFlow/\d+/work/2, attempt 0\.", done.stderr)
    assert '    File "' not in done.stdout
    assert re.search(r'File ".*flow\.py", line 22, in work', done.stderr)
    assert "ValueError: no good" in done.stderr
    assert not own_frames(done.stderr)
    logs = re.search(r"asyncflow (logs \S+)", done.stderr)
    resume = re.search(r"asyncflow (resume .*)", done.stderr)
    assert logs is not None
    assert resume is not None
    assert "at work" in asyncflow(*logs[1].split()).stdout
    assert asyncflow(*resume[1].split()).returncode == 1


def test_resume_of_a_repaired_flow(folder) -> None:
    """After the flow is repaired, the command that the failure told goes on from there."""
    run_id = json.loads(asyncflow("run", "flow.py", "--fail", "--json").stdout)["run_id"]
    (folder / "flow.py").write_text(FLOW.replace("if self.fail:", "if False:"))
    done = asyncflow("resume", "flow.py", "--origin-run-id", run_id)
    assert done.returncode == 0
    assert f"start/1] Cloning results of a previously run task {run_id}/start/1" in done.stdout
    assert "hello" not in done.stdout


@pytest.mark.parametrize("plan", [[], ["--plan"]])
def test_resume_of_a_run_by_its_pathspec(folder, plan) -> None:
    """As `runs` shows it; an empty id does not stand for the latest run."""
    asyncflow("run", "flow.py", "--fail", "--run-id-file", "id")
    (folder / "flow.py").write_text(FLOW.replace("if self.fail:", "if False:"))
    pathspec = f"ProcessFlow/{(folder / 'id').read_text()}"
    done = asyncflow("resume", "flow.py", *plan, "--origin-run-id", pathspec)
    assert done.returncode == 0, done.stderr
    done = asyncflow("resume", "flow.py", *plan, "--origin-run-id", "")
    assert done.returncode == 2
    assert "Error: '' does not name a run of ProcessFlow: give a run's id" in done.stderr


@needs_full_device
def test_a_result_that_cannot_be_printed_is_an_error(folder) -> None:
    """Though the run has succeeded: whoever reads the result must not take that for one."""
    status, errors = into_full_device("run", "flow.py", "--json")
    assert status == 1
    assert re.search(rf"\nError: {FULL}\. The run's result:  asyncflow show \S+/\d+\n$", errors)
    assert asyncflow(*errors.split("asyncflow ")[-1].split()).returncode == 0


@needs_full_device
@pytest.mark.parametrize(("more", "expected"), [([], 0), (["--fail"], 1)])
def test_a_log_that_cannot_be_printed_is_told_of(folder, more, expected) -> None:
    """The run is worth more than its log: it goes on, and its exit status is as ever."""
    status, errors = into_full_device("run", "flow.py", *more)
    assert status == expected
    assert errors.endswith(f"Warning: {FULL}. The run's log is not complete there.\n")


@needs_full_device
@pytest.mark.parametrize(
    "arguments",
    [
        ["runs"],
        ["runs", "--json"],
        ["show", "ProcessFlow"],
        ["events", "RUN", "--json"],
        ["logs", "RUN"],
        ["dump", "RUN"],
        ["verify", "--json"],
        ["verify"],
        ["gc"],
        ["check", "flow.py"],
        ["graph", "flow.py"],
        ["--help"],
    ],
)
def test_an_output_that_cannot_be_written_is_named(finished_run, monkeypatch, arguments) -> None:
    """One sentence, and exit status 1, whether Python holds it back or writes it at once."""
    folder, run = finished_run
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ASYNCFLOW_STORE", str(folder / "store"))
    given = [run if each == "RUN" else each for each in arguments]
    for unbuffered in ("", "1"):
        assert into_full_device(*given, unbuffered=unbuffered) == (1, f"Error: {FULL}\n")


@pytest.mark.parametrize("arguments", [["runs"], ["show", "ProcessFlow"], ["check", "flow.py"]])
def test_a_reader_that_has_gone_is_no_error(folder, monkeypatch, arguments) -> None:
    """Nothing is said of it, whoever buffers the output."""
    asyncflow("run", "flow.py")
    for unbuffered in ("", "1"):
        monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
        reading, writing = os.pipe()
        os.close(reading)
        command = [sys.executable, "-m", "asyncflow", *arguments]
        done = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, timeout=180, check=False
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (1, b"")


def test_dump_of_a_run_whose_last_step_keeps_nothing(folder) -> None:
    """It is not said to have failed."""
    bare = "\n".join(line for line in FLOW.splitlines() if "Parameter(" not in line)
    bare = bare.replace("self.lines", "1").replace("self.seconds", "0").replace("self.fail", "0")
    (folder / "flow.py").write_text(bare.replace("self.answer = 42", "pass"))
    asyncflow("run", "flow.py", "--run-id-file", "id")
    run = f"ProcessFlow/{(folder / 'id').read_text()}"
    done = asyncflow("dump", run)
    assert done.returncode == 2
    assert done.stderr == f"Error: {run} has no data: its step 'end' keeps nothing on self\n"


@needs_full_device
def test_a_file_that_cannot_be_written_is_named(folder) -> None:
    """The one that `dump` was told to write."""
    asyncflow("run", "flow.py", "--run-id-file", "id")
    run = f"ProcessFlow/{(folder / 'id').read_text()}"
    done = asyncflow("dump", run, "--output", "/dev/full")
    said = "Error: /dev/full cannot be written to: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "../flow.py"],
        ["check", "../flow.py"],
        ["resume", "../flow.py"],
        ["runs"],
        ["show", "ProcessFlow"],
        ["gc"],
        ["rm", "ProcessFlow/1"],
        ["limit", "list"],
    ],
)
def test_a_working_directory_that_was_deleted_is_told_of(folder, monkeypatch, arguments) -> None:
    """One line that names what was told from there, and what to do."""
    monkeypatch.delenv("ASYNCFLOW_STORE")
    (folder / "gone").mkdir()
    command = ["sh", "-c", 'cd gone && rmdir ../gone && exec "$0" -m asyncflow "$@"']
    done = run([*command, sys.executable, *arguments])
    named = "../flow.py" if "../flow.py" in arguments else ".asyncflow"
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: {named} is relative to the working directory, which was deleted: "
        "change to another, or give the absolute path\n"
    )


def test_absolute_paths_do_without_a_working_directory(folder, store) -> None:
    """A run, and a look at it."""
    (folder / "gone").mkdir()
    command = ["sh", "-c", 'cd gone && rmdir ../gone && exec "$0" -m asyncflow "$@"']
    done = run([*command, sys.executable, "run", str(folder / "flow.py"), "--store", str(store)])
    assert (done.returncode, done.stderr) == (0, "")
    assert "ProcessFlow/" in asyncflow("runs", "--store", str(store)).stdout


def test_resume_of_no_run(folder) -> None:
    """A run that is not there cannot be resumed: exit status 2."""
    asyncflow("run", "flow.py")
    done = asyncflow("resume", "flow.py", "--origin-run-id", "1")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr


def test_wrong_parameter(folder) -> None:
    """A parameter with a value it cannot take: exit status 2, one line, and no run."""
    done = asyncflow("run", "flow.py", "--seconds", "long")
    assert done.returncode == 2
    assert done.stderr == "Error: parameter 'seconds' takes a float, not 'long'\n"
    assert done.stdout == ""


def test_parameter_from_the_environment(folder, monkeypatch) -> None:
    """`ASYNCFLOW_RUN_NAME` gives a parameter, and the command line comes before it."""
    monkeypatch.setenv("ASYNCFLOW_RUN_LINES", "3")
    assert "hello 2" in asyncflow("run", "flow.py").stdout
    assert "hello 1" not in asyncflow("run", "flow.py", "--lines", "1").stdout


def test_quiet(folder) -> None:
    """With --quiet stdout stays empty and stderr has the last line."""
    done = asyncflow("run", "flow.py", "--quiet")
    assert (done.returncode, done.stdout) == (0, "")
    assert re.fullmatch(rf"{STAMP} Done!\n", done.stderr)


def test_quiet_failure(folder) -> None:
    """With --quiet a failure is told all the same."""
    done = asyncflow("run", "flow.py", "--quiet", "--fail")
    assert (done.returncode, done.stdout) == (1, "")
    assert "ValueError: no good" in done.stderr
    assert "hello" not in done.stderr


WARNING_FLOW = """
from asyncflow import FlowSpec, step
import logging, os, threading

if "SETUP" in os.environ:
    logging.basicConfig(format="mine: %(message)s")

class WarningFlow(FlowSpec):
    @step
    def start(self):
        threading.Thread(target=threading.Event().wait, name="uploader").start()
        self.next(self.end)

    @step
    def end(self):
        pass
"""


@pytest.mark.parametrize("options", [[], ["--json"], ["--quiet"]])
def test_a_warning_is_a_line_like_those_of_the_log(folder, options) -> None:
    """On stderr; with --quiet there is none."""
    (folder / "warns.py").write_text(WARNING_FLOW)
    done = asyncflow("run", "warns.py", *options)
    told = [line for line in done.stderr.splitlines() if "thread" in line]
    assert len(told) == (options != ["--quiet"])
    assert all(re.match(f"{STAMP} Warning: a thread was still running when", line) for line in told)


def test_a_flow_that_sets_up_logging_has_warnings_where_it_wants_them(folder) -> None:
    """With --quiet as well."""
    (folder / "warns.py").write_text(WARNING_FLOW)
    done = asyncflow("run", "warns.py", "--quiet", env={**os.environ, "SETUP": "1"})
    told = [line for line in done.stderr.splitlines() if "thread" in line]
    assert len(told) == 1
    assert told[0].startswith("mine: a thread was still running")


def test_json(folder) -> None:
    """With --json stdout is one JSON object and nothing else; the log goes to stderr."""
    done = asyncflow("run", "flow.py", "--json", "--tag", "a", "--tag", "b")
    result = json.loads(done.stdout)
    assert result["status"] == "succeeded"
    assert result["failure"] is None
    assert "Done!" in done.stderr
    shown = json.loads(asyncflow("show", result["pathspec"], "--json").stdout)
    assert shown["tags"] == ["a", "b"]


def test_json_of_a_failure(folder) -> None:
    """With --json a failure is data: step, task, type, message, traceback."""
    done = asyncflow("run", "flow.py", "--json", "--fail")
    assert done.returncode == 1
    failure = json.loads(done.stdout)["failure"]
    assert (failure["step"], failure["task_id"]) == ("work", "2")
    assert (failure["type"], failure["message"]) == ("ValueError", "no good")
    assert failure["traceback"].startswith("Traceback")


def test_run_id_file(folder, started) -> None:
    """The run id is in its file while the run goes on."""
    process = started("--seconds", "30", "--run-id-file", "id")
    wait_for(process, "at work")
    assert (folder / "id").read_text().isdecimal()
    assert [path.name for path in folder.glob(".id*")] == []


def test_run_id_file_in_no_folder(folder) -> None:
    """A run id that could not be written is wrong usage, before anything has run."""
    done = asyncflow("run", "flow.py", "--run-id-file", "nowhere/id")
    assert done.returncode == 2
    assert "there is no folder nowhere" in done.stderr
    assert done.stdout == ""


def test_engine_that_cannot_go_on(folder) -> None:
    """When the disk takes no more, the error says so, and how to go on; exit status 1."""
    command = f"{PYTHON} -m asyncflow run flow.py --lines 20000 --json"
    done = run(["bash", "-c", f"ulimit -f 40; {command} 2>&1 >out | tail -n 4; cat out"])
    assert "was interrupted: cannot write to the journal" in done.stdout
    assert "asyncflow resume flow.py --origin-run-id" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "interrupted"


def test_store_that_may_not_be_written_to(folder, store) -> None:
    """The store is named, nothing is begun, and no resume is suggested that would fail alike."""
    assert asyncflow("run", "flow.py").returncode == 0
    before = sorted(store.rglob("*"))
    store.chmod(0o500)
    try:
        said = without_rights("run", "flow.py")
    finally:
        store.chmod(0o700)
    assert said.status == 1
    assert f"the store at {store} may not be written to; change its rights" in said.stderr
    assert "resume" not in said.stderr
    assert sorted(store.rglob("*")) == before


# --- a script as a program --------------------------------------------------------------------


def test_script_as_a_program(folder) -> None:
    """`python FILE run` runs the flow, and the commands it tells begin the same way."""
    done = run([sys.executable, "flow.py", "run", "--fail", "--lines=2"])
    assert done.returncode == 1
    assert "hello 1" in done.stdout
    assert re.search(r"python flow\.py logs ProcessFlow/\d+/work/2\n", done.stderr)
    assert re.search(r"python flow\.py resume --origin-run-id \d+\n", done.stderr)


def test_script_without_a_command(folder) -> None:
    """`python FILE` alone checks the flow, says how to go on, and runs nothing."""
    done = run([sys.executable, "flow.py"])
    assert done.returncode == 0
    assert done.stdout.startswith("ProcessFlow can be run: 3 steps.")
    assert "python flow.py --help" in done.stdout
    assert not (folder / "store").exists()


def test_script_help(folder) -> None:
    """`python FILE run --help` lists the parameters."""
    done = run([sys.executable, "flow.py", "run", "--help"])
    assert done.returncode == 0
    assert "--seconds FLOAT" in done.stdout


# --- signals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_cancels(started, number, status) -> None:
    """Ctrl-C and SIGTERM stop the run, its journal says so, and the way to go on is told.

    Only Ctrl-C is the wish of somebody who does not want this run.
    """
    process = started("--seconds", "600", "--grace", "600")  # neither is waited for
    wait_for(process, "at work")
    process.send_signal(number)
    out, err = process.communicate(timeout=180)
    assert process.returncode == status
    assert out.splitlines()[-1].endswith(f" Workflow cancelled: {number.name}.")
    resume = re.search(r"asyncflow (resume .*)", err)
    assert resume is not None
    assert err.count(resume[0]) == 1
    assert "Traceback" not in out + err
    run_id = resume[1].split()[-1]
    shown = json.loads(asyncflow("show", f"ProcessFlow/{run_id}", "--json").stdout)
    assert shown["status"] == "cancelled"
    told = asyncflow("events", f"ProcessFlow/{run_id}", "--json").stdout.splitlines()[-1]
    assert json.loads(told)["by_shutdown"] == (number == signal.SIGTERM)


def test_signal_while_the_run_is_being_started(folder) -> None:
    """A signal that comes while the run is being started leaves no run that nobody ended."""
    early = "default=lambda: os.kill(os.getpid(), 15) or 30.0, type=float)"
    (folder / "flow.py").write_text(FLOW.replace("default=0.0)", early))
    done = asyncflow("run", "flow.py")
    assert done.returncode == 143
    (shown,) = json.loads(asyncflow("runs", "--json").stdout)
    assert shown["status"] == "cancelled"


STUBBORN = """
from asyncflow import FlowSpec, step
import signal, time

class ProcessFlow(FlowSpec):
    @step
    def start(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("at work", flush=True)
        time.sleep(600)
        self.next(self.end)

    @step
    def end(self):
        pass
"""


def test_second_signal_kills(folder, started) -> None:
    """When a task does not let itself be stopped, a second Ctrl-C ends the process at once."""
    (folder / "flow.py").write_text(STUBBORN)
    process = started("--grace", "600")  # this is not waited for
    wait_for(process, "at work")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "a second one kills it" in process.stderr.readline()
    send_until_it_ends(process, signal.SIGINT)
    assert process.returncode == -signal.SIGINT
    assert re.fullmatch(
        r"\nThe run is interrupted\.\nTo go on:  asyncflow resume flow\.py --origin-run-id \d+\n",
        process.stderr.read(),
    )


def send_until_it_ends(process: subprocess.Popen[str], number: int) -> None:
    """Press Ctrl-C again and again: two in a moment are one."""
    while process.poll() is None:
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.05)


def test_ignored_signal_stays_ignored(folder) -> None:
    """Under `nohup`, and in the background of a script, what was ignored stays ignored."""
    command = [
        "sh",
        "-c",
        f"trap '' INT; exec {PYTHON} -m asyncflow run flow.py --seconds 0.3",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(process, "at work")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0
    assert "Done!" in out


# --- pipes ------------------------------------------------------------------------------------


def test_reader_that_goes_away(folder) -> None:
    """`asyncflow run | head` ends the log and not the run: no error, and the run succeeds."""
    command = f"{PYTHON} -m asyncflow run flow.py --lines 20000 --run-id-file id"
    done = run(["bash", "-c", f"set -o pipefail; {command} | head -n 2"])
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""
    run_id = (folder / "id").read_text()
    shown = json.loads(asyncflow("show", f"ProcessFlow/{run_id}", "--json").stdout)
    assert shown["status"] == "succeeded"


def test_closed_stdout(folder) -> None:
    """A run goes through without any standard output at all."""
    done = run(["bash", "-c", f"{PYTHON} -m asyncflow run flow.py >&-"])
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_an_answer_without_a_standard_output_is_an_error(folder) -> None:
    """It is lost, and that is told, as where it cannot be written for another reason."""
    assert asyncflow("run", "flow.py", "--run-id-file", "id").returncode == 0
    pathspec = f"ProcessFlow/{(folder / 'id').read_text()}"
    looking = ["runs", "runs --json", f"events {pathspec}", f"logs {pathspec}", "--help"]
    for command in [*looking, "run flow.py --json"]:
        done = run(["bash", "-c", f"{PYTHON} -m asyncflow {command} >&-"])
        assert (done.returncode, command) == (1, command)
        assert "standard output cannot be written to: Bad file descriptor" in done.stderr


# --- a terminal -------------------------------------------------------------------------------


def test_terminal_gets_bars(folder) -> None:
    """On a terminal there are bars while the run goes on, and Ctrl-C works there."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "asyncflow", "run", "flow.py", "--seconds", "30"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        preexec_fn=lambda: make_controlling_terminal(follower),  # noqa: PLW1509 - no threads here
    )
    os.close(follower)
    seen = read_until(leader, b"1 running")
    assert "work" in seen
    os.write(leader, b"\x03")
    assert process.wait(timeout=180) == 130
    rest = read_until(leader, b"To go on:")
    os.close(leader)
    assert "Workflow cancelled: SIGINT." in rest


def make_controlling_terminal(descriptor: int) -> None:
    """Have Ctrl-C on this terminal reach the process."""
    import fcntl
    import termios

    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)


def read_until(descriptor: int, words: bytes) -> str:
    """Read up to these words."""
    seen = b""
    deadline = time.monotonic() + 20
    while words not in seen:
        if not select.select([descriptor], [], [], deadline - time.monotonic())[0]:
            pytest.fail(f"waited in vain for {words!r}; seen: {seen!r}")
        seen += os.read(descriptor, 65536)
    return seen.decode()


# --- start-up time ----------------------------------------------------------------------------


def test_command_line_is_imported_late() -> None:
    """Importing the entry point imports neither click nor asyncio nor rich."""
    code = "import sys, asyncflow.cli; print({'click', 'asyncio', 'rich'} & set(sys.modules))"
    assert run([sys.executable, "-c", code]).stdout == "set()\n"


def test_plain_run_imports_no_rich(folder) -> None:
    """A run whose log goes to a pipe never loads rich, nor what only looking back needs."""
    done = run([sys.executable, "-X", "importtime", "-m", "asyncflow", "run", "flow.py"])
    assert done.returncode == 0
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "asyncflow.engine" in imported
    assert not {"rich", "asyncflow.cli.tables", "asyncflow.cli.progress_bars"} & imported


AT_ITS_END = """
import atexit, sys

def tell():
    modules = sorted(sys.modules)
    made = {
        each.__name__ for name in modules if name.startswith("asyncflow.")
        for each in list(vars(sys.modules[name]).values())
        if isinstance(each, type) and each.__module__.startswith("asyncflow.")
        and (each.__dict__.get("__dataclass_params__", Quick).init or is_slow_tuple(each))
    }
    print(len(made), *made, *modules, file=sys.stderr)

class Quick:
    init = False

def is_slow_tuple(each):
    return issubclass(each, tuple) and "__orig_bases__" in vars(each) and hasattr(each, "_fields")

atexit.register(tell)
sys.argv = ["asyncflow", "run", "flow.py"]
from asyncflow.cli import main
main()
"""


def test_a_run_imports_no_more_than_it_needs(folder) -> None:
    """Each module takes half a millisecond, and so does a class that the standard library makes.

    Of a worker, the process that runs the command has nothing but what the engine needs as well.
    """
    done = run([sys.executable, "-c", AT_ITS_END])
    assert done.returncode == 0
    slow, *modules = done.stderr.split()
    assert slow == "0", modules  # dataclasses and named tuples: `_quick_classes` has quick ones
    assert len(modules) <= 390  # of Python and the libraries, too; 378 were counted
    own = [name for name in modules if name.partition(".")[0] == "asyncflow"]
    assert len(own) <= 205, own  # 203 were counted
    needless = {"ctypes", "asyncflow.scheduling.resume", "asyncflow.workers.held_reports"}
    assert not needless & {*modules}
    of_worker = {name for name in own if name.startswith("asyncflow.workers.process.")}
    assert of_worker == {
        "asyncflow.workers.process.finalization",
        "asyncflow.workers.process.stop_signals",
        "asyncflow.workers.process.thread_context",
    }


# --- text of somebody else -----------------------------------------------------------------------

LOUD = """
from asyncflow import FlowSpec, step

class Loud(FlowSpec):
    @step
    def start(self):
        print("one \\x1b[31mred\\x1b[0m \\x1b]0;owned\\x07 two \\x1b[2J é")
        self.next(self.end)

    @step
    def end(self):
        pass
"""


def on_a_terminal(*arguments, **environ):
    """What a command sends to a terminal."""
    mine, its = pty.openpty()
    command = [sys.executable, "-m", "asyncflow", *arguments]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=its,
        env={**os.environ, "TERM": "xterm", **environ},
    ):
        os.close(its)
        shown = b""
        with suppress(OSError):  # the terminal's other end is closed
            while piece := os.read(mine, 4096):
                shown += piece
    os.close(mine)
    return shown.decode()


@pytest.fixture
def loud(tmp_path, monkeypatch):
    """A store with a run that printed escapes; the run's pathspec."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loud.py").write_text(LOUD)
    subprocess.run(
        [sys.executable, "-m", "asyncflow", "run", "loud.py", "--quiet"],
        check=True,
        capture_output=True,
    )
    [run] = Path(".asyncflow/flows/Loud").glob("[0-9]*")
    return f"Loud/{run.name}"


def test_a_terminal_sees_escapes_that_a_task_printed_and_a_pipe_gets_them(loud):
    """The log of a run, of a step and of a task alike; `--raw` is for who wants them."""
    for name in (loud, f"{loud}/start", f"{loud}/start/1"):
        shown = on_a_terminal("logs", name)
        assert "one \x1b[31mred\x1b[0m \\x1b]0;owned\\x07 two \\x1b[2J é" in shown
        assert "\x1b]0;owned\x07" in on_a_terminal("logs", name, "--raw")
        piped = subprocess.run(
            [sys.executable, "-m", "asyncflow", "logs", name],
            check=True,
            capture_output=True,
            text=True,
        )
        assert "\x1b]0;owned\x07 two \x1b[2J" in piped.stdout


@pytest.mark.parametrize("command", ["runs", "gc --dry-run", "verify", "show Nope", "limit list"])
def test_names_in_a_store_control_no_terminal(loud, command):
    """Neither on a terminal nor in a pipe, which often ends in one."""
    name = "\x1b]0;owned\x07\u202ex"
    flows = Path(".asyncflow/flows")
    for folder in (flows / f"F{name}", flows / "Loud" / name):
        folder.mkdir()
    (flows / name).touch()
    done = subprocess.run(
        [sys.executable, "-m", "asyncflow", *command.split()],
        check=False,
        capture_output=True,
        text=True,
    )
    for said in (done.stdout + done.stderr, on_a_terminal(*command.split())):
        assert not re.search("[\x1b\x07\u202e]", said)
    assert "Traceback" not in done.stderr


def test_in_a_locale_of_ascii_what_it_lacks_is_escaped_and_what_is_sound_is_sound(tmp_path):
    """Every line of the events is there, and the name of the flow is no damage."""
    (tmp_path / "size.py").write_text(LOUD.replace("Loud", "Größe"), encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    def asyncflow(*arguments, **environ):
        return subprocess.run(
            [sys.executable, "-m", "asyncflow", *arguments],
            check=False,
            cwd=tmp_path,
            capture_output=True,
            env={**os.environ, **environ},
        )

    assert asyncflow("run", "size.py", "--quiet").returncode == 0
    [folder] = (tmp_path / ".asyncflow/flows/Größe").glob("[0-9]*")
    run = f"Größe/{folder.name}"
    events = asyncflow("events", run, **ascii_only)
    assert events.returncode == 0, events.stderr
    assert events.stdout.count(b"\n") == asyncflow("events", run).stdout.count(b"\n")
    assert b"\\xe9" in events.stdout
    verified = asyncflow("verify", **ascii_only)
    assert verified.returncode == 0, verified.stdout
