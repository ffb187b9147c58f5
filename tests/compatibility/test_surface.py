"""The public surface: which names there are, and what importing them costs."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import asyncflow

NAMES = [
    "S3",
    "USER_SKIP_STEP",
    "Artifact",
    "Config",
    "ConfigValue",
    "DataArtifact",
    "Engine",
    "Flow",
    "FlowMutator",
    "FlowSpec",
    "IncludeFile",
    "JSONType",
    "Metaflow",
    "NBRunner",
    "Parameter",
    "Run",
    "RunHandle",
    "Runner",
    "Step",
    "StepMutator",
    "Store",
    "Task",
    "UserStepDecorator",
    "batch",
    "card",
    "catch",
    "concurrency",
    "conda",
    "conda_base",
    "conda_environment_yml_parser",
    "config_expr",
    "copy_runs",
    "current",
    "default_metadata",
    "default_namespace",
    "environment",
    "errors",
    "events",
    "exit_hook",
    "get_metadata",
    "get_namespace",
    "gpu_profile",
    "inspect_spin",
    "isolate",
    "kubernetes",
    "limit",
    "metadata",
    "namespace",
    "package_sources",
    "page",
    "parallel",
    "parallel_imap_unordered",
    "parallel_map",
    "profile",
    "project",
    "pypi",
    "pypi_base",
    "pyproject_toml_parser",
    "requirements_txt_parser",
    "resources",
    "resume",
    "retry",
    "run",
    "run_sync",
    "schedule",
    "secrets",
    "shared",
    "step",
    "timeout",
    "trigger",
    "trigger_on_finish",
    "user_step_decorator",
    "yaml_parser",
]


def loaded_by(code):
    """The modules that are there after this code and were not before, in a fresh interpreter."""
    program = f"""if True:
        import sys
        before = set(sys.modules)
        {code}
        print(*sorted(set(sys.modules) - before))
    """
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=180)
    return set(done.stdout.split())


def test_the_names_are_these():
    """A name that comes or goes is a change for users: it belongs into the changelog."""
    assert asyncflow.__all__ == NAMES
    assert set(asyncflow.__all__) <= set(dir(asyncflow))


@pytest.mark.parametrize("name", asyncflow.__all__)
def test_every_name_is_there_and_says_what_it_is(name):
    """Each has a docstring, and comes again as the very same."""
    value = getattr(asyncflow, name)
    assert value.__doc__
    assert getattr(asyncflow, name) is value


def test_a_name_that_is_not_there_is_an_attribute_error():
    """As of any module."""
    with pytest.raises(AttributeError, match="module 'asyncflow' has no attribute 'Nothing'"):
        _ = asyncflow.Nothing


def test_a_name_that_metaflow_has_and_asyncflow_has_not_names_the_page():
    """As an attribute, and in an import."""
    page = "docs/how-to/move-from-metaflow.md"
    with pytest.raises(AttributeError, match=page):
        _ = asyncflow.NBDeployer
    with pytest.raises(ImportError, match=page):
        from asyncflow import NBDeployer  # noqa: F401 - the import is what is tested
    assert not hasattr(asyncflow, "Deployer")


@pytest.mark.parametrize(("name", "instead"), [("Deployer", "Engine"), ("R", "Python")])
def test_a_name_that_metaflow_alone_has_says_what_there_is_instead(name, instead):
    """Whoever reads the error needs no page."""
    with pytest.raises(AttributeError, match=instead):
        getattr(asyncflow, name)


def test_every_error_is_an_asyncflow_error():
    """One `except` catches all of them."""
    errors = importlib.import_module("asyncflow.errors")
    found = [each for each in vars(errors).values() if isinstance(each, type)]
    found = [each for each in found if issubclass(each, Exception) and "asyncflow" in str(each)]
    assert len(found) > 10
    assert all(issubclass(each, asyncflow.errors.AsyncflowError) for each in found)


def test_importing_asyncflow_loads_what_a_flow_file_needs_and_no_more():
    """No event loop, no command line, no values' library, none of what starts processes."""
    modules = loaded_by("import asyncflow")
    heavy = "asyncio anyio click rich structlog aiofiles cloudpickle msgpack blake3 numpy pandas"
    heavy += " subprocess multiprocessing tempfile logging json pickle ssl socket"
    assert modules & set(heavy.split()) == set()
    ours = {name for name in modules if name.startswith("asyncflow")}
    unwanted = {"engine", "client", "store", "codec", "cli", "worker", "pool", "bus", "scheduler"}
    assert ours & {f"asyncflow.{name}" for name in unwanted} == set()


def test_looking_back_loads_no_event_loop():
    """A program that only reads has no use for what runs flows."""
    modules = loaded_by("from asyncflow import Flow, Run, Step, Task, Artifact")
    unwanted = {
        "asyncio",
        "anyio",
        "click",
        "rich",
        "asyncflow.engine",
        "asyncflow.workers.local.pool",
    }
    assert modules & unwanted == set()


def test_running_loads_no_command_line_and_no_users_libraries():
    """Nor what is for a terminal, nor libraries whose values it can keep."""
    modules = loaded_by("from asyncflow import Engine, run, run_sync")
    unwanted = {"click", "rich", "numpy", "pandas", "polars", "pyarrow", "cloudpickle"}
    assert modules & unwanted == set()


def test_a_run_at_the_command_line_loads_no_library_that_it_can_do_without(tmp_path):
    """Each would be some milliseconds of every `asyncflow run`."""
    flow = tmp_path / "flow.py"
    flow.write_text(
        "from asyncflow import FlowSpec, step\n"
        "class Short(FlowSpec):\n"
        "    @step\n"
        "    def start(self):\n"
        "        self.items = [1, 2]\n"
        "        self.next(self.end)\n"
        "    @step\n"
        "    def end(self):\n"
        "        print(self.items)\n"
    )
    program = f"""if True:
        import atexit, sys
        sys.argv = ["asyncflow", "run", {str(flow)!r}, "--store", {str(tmp_path / "store")!r}]
        atexit.register(lambda: print(*sys.modules))
        from asyncflow.cli import main
        main()
    """
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=180)
    modules = set(done.stdout.splitlines()[-1].split())
    assert "asyncflow.engine.engine" in modules
    unwanted = "aiofiles anyio cloudpickle json pkgutil rich structlog tempfile"
    unwanted += " asyncflow.flow.step_bytecode asyncflow.client.json_data"
    assert modules & set(unwanted.split()) == set()


def test_the_first_test_of_a_flow_loads_no_library_that_it_can_do_without(tmp_path):
    """Whoever tests flows waits for it each time."""
    (tmp_path / "tested_flow.py").write_text(
        "from asyncflow import FlowSpec, step\n"
        "from asyncflow.testing import run_flow\n"
        "class Short(FlowSpec):\n"
        "    @step\n"
        "    def start(self):\n"
        "        self.next(self.end)\n"
        "    @step\n"
        "    def end(self):\n"
        "        self.x = 1\n"
        "assert run_flow(Short).data.x == 1\n"
    )
    modules = loaded_by(f"sys.path.insert(0, {str(tmp_path)!r}); import tested_flow")
    assert "asyncflow.engine.engine" in modules
    unwanted = "aiofiles anyio click json rich structlog"
    assert modules & set(unwanted.split()) == set()
