"""The examples, run as the README says, and read back from another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*arguments, program=("-m", "asyncflow", "run")):
    """What a command prints; it has to succeed."""
    command = [sys.executable, *program, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def script(store):
    """Runs a file as a program, against this test's store."""
    return lambda path, *arguments: run(path, *arguments, program=())


def test_the_artifact_flow_prints_what_became_of_its_artifact(store):
    """Each of the four steps is logged in the shape that the design shows."""
    printed = run(EXAMPLES / "artifact_flow.py")
    assert "/transform/2 (pid " in printed
    assert "Artifact is in state `created`" in printed
    assert printed.rstrip().endswith("Done!")


def test_an_example_runs_as_a_program_too(store, script):
    """`python FILE run` does the same, with parameters."""
    printed = script(EXAMPLES / "artifact_flow.py", "run", "--greeting", "found")
    assert "Artifact is in state `found`" in printed


def test_the_sweep_finds_a_good_model_and_another_process_reads_it(store, script):
    """The best setting reads at least 97 of 100 held-out digits right."""
    run(EXAMPLES / "artifact_flow.py", "--quiet")
    printed = run(
        EXAMPLES / "digits_sweep.py", "--folds", 2, "--costs", 10, "--gammas", "0.001,0.1"
    )
    assert "Confusion matrix" in printed
    back = script(EXAMPLES / "read_back.py")
    assert "sklearn.svm" in back
    accuracy = float(back.partition("accuracy ")[2].split()[0])
    assert accuracy > 0.97


def test_pages_are_fetched_side_by_side(store):
    """A hundred pages of a server that takes 0.2 s for each come in less than 20 s."""
    printed = run(EXAMPLES / "fetch_pages.py", "--pages", 100, "--delay", 0.2)
    seconds = float(printed.partition("words in ")[2].split()[0])
    assert seconds < 20  # the machine may be busy


def test_steps_are_timed_by_a_decorator_that_a_mutator_puts_on_them(store):
    """A step that has the decorator keeps its own."""
    printed = run(EXAMPLES / "timed_steps.py")
    assert " s of 60 s" in printed
    assert "The sum is 4999950000" in printed
    assert " s of 5 s" in printed
