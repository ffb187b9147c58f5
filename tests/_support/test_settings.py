"""Settings: where each comes from, and what they refuse."""

from __future__ import annotations

import math
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow._support import machine
from asyncflow._support.machine import usable_cpus
from asyncflow._support.settings import Settings
from asyncflow.errors import SettingsError


@pytest.fixture
def project(tmp_path):
    """Writes `[tool.asyncflow]` into the `pyproject.toml` of a folder, and gives the folder."""

    def write(table):
        (tmp_path / "pyproject.toml").write_text(f"[tool.asyncflow]\n{table}\n")
        return tmp_path

    return write


def test_without_anything_each_setting_has_its_default(tmp_path):
    """No argument, no variable, no project: the defaults."""
    assert Settings.read(environ={}, directory=tmp_path) == Settings()


@given(
    argument=st.none() | st.integers(0, 99),
    variable=st.none() | st.integers(0, 99),
    table=st.none() | st.integers(0, 99),
)
def test_argument_before_environment_before_project_before_default(
    tmp_path_factory, argument, variable, table
):
    """The first that is there counts, whichever of the four are."""
    folder = tmp_path_factory.mktemp("project")
    if table is not None:
        (folder / "pyproject.toml").write_text(f"[tool.asyncflow]\nworkers = {table}\n")
    environ = {} if variable is None else {"ASYNCFLOW_WORKERS": str(variable)}
    read = Settings.read(environ=environ, directory=folder, workers=argument)
    there = [value for value in (argument, variable, table) if value is not None]
    assert read.workers == (there[0] if there else Settings().workers)


def test_every_setting_can_come_from_the_environment(tmp_path):
    """`ASYNCFLOW_` and the name in capitals, as text."""
    environ = {
        "ASYNCFLOW_STORE": "elsewhere",
        "ASYNCFLOW_GRACE_SECONDS": "0.5",
        "ASYNCFLOW_ON_FAILURE": "finish",
        "ASYNCFLOW_DURABILITY": "power",
        "ASYNCFLOW_EVENT_BUFFER": "7",
    }
    read = Settings.read(environ=environ, directory=tmp_path)
    assert read.store == Path("elsewhere")
    assert (read.grace_seconds, read.on_failure) == (0.5, "finish")
    assert (read.durability, read.event_buffer) == ("power", 7)


def test_a_variable_that_is_empty_counts_as_not_there(project):
    """`ASYNCFLOW_STORE=` is how a shell takes a variable away."""
    folder = project('store = "here"')
    assert Settings.read(environ={"ASYNCFLOW_STORE": ""}, directory=folder).store == Path("here")


def test_the_project_is_that_of_the_working_directory(project, monkeypatch):
    """Nothing need be told: `pyproject.toml` is looked for where the program runs."""
    monkeypatch.chdir(project("workers = 3\ngrace_seconds = 2"))
    read = Settings.read(environ={})
    assert (read.workers, read.grace_seconds) == (3, 2.0)


@pytest.mark.parametrize(
    "text",
    ["", "[project]\nname = 'asyncflow'\n", "[tool.other]\nworkers = 3\n", "[tool.asyncflow]\n"],
)
def test_a_project_that_sets_nothing_changes_nothing(tmp_path, text):
    """Not even one whose name is ours."""
    (tmp_path / "pyproject.toml").write_text(text)
    assert Settings.read(environ={}, directory=tmp_path) == Settings()


@pytest.mark.parametrize(
    ("given_values", "complaint"),
    [
        ({"workers": "many"}, "the setting 'workers' takes a whole number, not 'many'"),
        ({"workers": 2.5}, "the setting 'workers' takes a whole number, not 2.5"),
        ({"workers": True}, "the setting 'workers' takes a whole number, not True"),
        ({"workers": -1}, "workers must be 0 or more, not -1"),
        ({"grace_seconds": "soon"}, "the setting 'grace_seconds' takes a number, not 'soon'"),
        ({"grace_seconds": "nan"}, "the setting 'grace_seconds' takes a number, not 'nan'"),
        ({"grace_seconds": -1}, "grace_seconds must be 0 or more, not -1"),
        ({"sync_seconds": -1}, "sync_seconds must be 0 or more, not -1"),
        ({"event_buffer": 0}, "event_buffer must be 1 or more, not 0"),
        ({"store": 5}, "the setting 'store' takes a path, not 5"),
        ({"store": ""}, "the setting 'store' takes a folder, not empty text"),
        ({"on_failure": "panic"}, "on_failure must be 'cancel' or 'finish', not 'panic'"),
        ({"durability": "eternal"}, "durability must be 'crash' or 'power', not 'eternal'"),
        ({"grace_seconds": "inf"}, "grace_seconds must be 1,000,000,000 or less, not inf"),
        ({"sync_seconds": 1e300}, "sync_seconds must be 1,000,000,000 or less, not 1e+300"),
        ({"wrokers": 2}, "there is no setting 'wrokers'; there are "),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(tmp_path, given_values, complaint):
    """The error names the setting, what it takes and what it got."""
    with pytest.raises(SettingsError) as caught:
        Settings.read(environ={}, directory=tmp_path, **given_values)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("given_values", "complaint"),
    [
        ({"workers": "x"}, "the setting 'workers' takes a whole number, not 'x'"),
        ({"max_runs": 1.5}, "the setting 'max_runs' takes a whole number, not 1.5"),
        ({"workers": None}, "the setting 'workers' takes a whole number, not None"),
        ({"workers": math.inf}, "the setting 'workers' takes a whole number, not inf"),
        ({"grace_seconds": math.nan}, "the setting 'grace_seconds' takes a number, not nan"),
        ({"grace_seconds": math.inf}, "grace_seconds must be 1,000,000,000 or less, not inf"),
        ({"blocked_seconds": -1}, "blocked_seconds must be 0 or more, not -1"),
        ({"store": 5}, "the setting 'store' takes a path, not 5"),
        ({"store": ""}, "the setting 'store' takes a folder, not empty text"),
        ({"durability": 3}, "the setting 'durability' takes text, not 3"),
        ({"on_failure": "panic"}, "on_failure must be 'cancel' or 'finish', not 'panic'"),
    ],
)
def test_settings_that_are_made_in_the_program_are_checked_too(given_values, complaint):
    """As if they came from elsewhere."""
    with pytest.raises(SettingsError) as caught:
        Settings(**given_values)
    assert str(caught.value).startswith(complaint)


def test_settings_that_are_made_in_the_program_have_their_types():
    """A path may be given as text, and a number of seconds as a whole one."""
    given_values: dict[str, Any] = {"store": "here", "grace_seconds": 2}
    made = Settings(**given_values)
    assert (made.store, made.grace_seconds) == (Path("here"), 2.0)
    assert isinstance(made.grace_seconds, float)


def test_an_error_says_where_the_value_came_from(project):
    """The variable, or the file, that is to be mended."""
    with pytest.raises(SettingsError, match=r"not 'x'; it comes from ASYNCFLOW_WORKERS$"):
        Settings.read(environ={"ASYNCFLOW_WORKERS": "x"}, directory=project(""))
    with pytest.raises(
        SettingsError, match=r"takes a path, not 5; it comes from .*pyproject.toml$"
    ):
        Settings.read(environ={}, directory=project("store = 5"))
    with pytest.raises(SettingsError, match=r"'power', not 'zz'; it comes from .*pyproject.toml$"):
        Settings.read(environ={}, directory=project("durability = 'zz'"))
    with pytest.raises(SettingsError, match=r"pyproject.toml: there is no setting 'worker';"):
        Settings.read(environ={}, directory=project("worker = 5"))


@pytest.mark.parametrize("name", [each.name for each in fields(Settings) if each.name != "store"])
def test_each_variable_that_makes_no_sense_is_named(tmp_path, name):
    """Text where a number is wanted, a number that is too low, a word that is none of the two."""
    variable = f"ASYNCFLOW_{name.upper()}"
    for value in ("zz", "-1"):
        with pytest.raises(SettingsError) as caught:
            Settings.read(environ={variable: value}, directory=tmp_path)
        assert str(caught.value).endswith(f"it comes from {variable}")
        assert any(word in str(caught.value) for word in (" takes ", " must be "))


@pytest.mark.parametrize("text", ["[tool.asyncflow]\nworkers = \n", "[tool]\nasyncflow = 5\n"])
def test_a_project_file_that_cannot_be_understood_is_named(tmp_path, text):
    """With what is wrong in it."""
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"pyproject\.toml"):
        Settings.read(environ={}, directory=tmp_path)


def test_settings_do_not_change():
    """An engine's settings are those it was given; a type checker says so too."""
    with pytest.raises(AttributeError):
        Settings().workers = 5  # type: ignore[misc]  # frozen: that is examined


def test_workers_are_as_many_as_there_are_usable_cpus(monkeypatch, tmp_path):
    """The CPUs that this process may use, at most the container's quota, at least one."""
    allowed = len(os.sched_getaffinity(0))
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(machine, "_CPU_QUOTA", quota)
    for text, expected in [
        ("max 100000", allowed),
        ("100000 100000", 1),
        ("10000 100000", 1),
        (f"{allowed * 200000} 100000", allowed),
    ]:
        quota.write_text(text)
        assert usable_cpus() == expected
    assert Settings().worker_count == usable_cpus()
    assert Settings(workers=7).worker_count == 7


def test_the_memory_is_that_of_the_machine_or_of_the_container(monkeypatch, tmp_path):
    """In MB; a limit above what there is means nothing."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "_MEMORY_LIMIT", limit)
    for text, expected in [("max", there), (f"{100 << 20}", 100.0), (f"{1 << 62}", there)]:
        limit.write_text(text)
        assert machine.memory_megabytes() == expected
    assert Settings().machine == (machine.usable_cpus(), 0.0, there)
    assert Settings(cpus=3, memory=5, gpus=1).machine == (3.0, 1.0, 5.0)


def test_usable_cpus_follow_the_affinity(monkeypatch, tmp_path):
    """A process that was pinned to one CPU has one worker."""
    monkeypatch.setattr(machine, "_CPU_QUOTA", tmp_path / "none")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_a_project_file_is_parsed_once_and_again_when_it_has_changed(project, monkeypatch):
    """A test reads the settings for each run."""
    folder = project("workers = 3")
    os.utime(folder / "pyproject.toml", (1e9, 1e9))
    assert Settings.read(directory=folder, environ={}).workers == 3
    with monkeypatch.context() as patch:
        patch.setattr("tomllib.loads", None)
        assert Settings.read(directory=folder, environ={}).workers == 3
    project("workers = 4")
    assert Settings.read(directory=folder, environ={}).workers == 4
    (folder / "pyproject.toml").unlink()
    assert Settings.read(directory=folder, environ={}).workers == 0
