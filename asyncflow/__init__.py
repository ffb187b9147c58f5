"""Data and machine-learning workflows inside an asyncio program.

A flow is a class that extends `FlowSpec`; its steps are methods under `@step`, and what they keep
on `self` are its artifacts. `run` and `Engine` run it on warm worker processes; `Flow`, `Run`,
`Step`, `Task` and `Artifact` look back at what was run, from any process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.version import VERSION
from asyncflow.flow.current import current, set_client
from asyncflow.flow.decorators import (
    card,
    catch,
    concurrency,
    environment,
    isolate,
    limit,
    parallel,
    resources,
    retry,
    step,
    timeout,
)
from asyncflow.flow.include_file import IncludeFile
from asyncflow.flow.parameter_types import JSONType
from asyncflow.flow.parameters import Parameter
from asyncflow.flow.shared import shared
from asyncflow.flow.spec import FlowSpec, set_launcher

if TYPE_CHECKING:
    from asyncflow import errors, events
    from asyncflow.client import (
        Artifact,
        DataArtifact,
        Flow,
        Metaflow,
        Run,
        Step,
        Store,
        Task,
        default_metadata,
        default_namespace,
        get_metadata,
        get_namespace,
        inspect_spin,
        metadata,
        namespace,
    )
    from asyncflow.client.copies import copy_runs
    from asyncflow.datatools import S3
    from asyncflow.engine.engine import Engine
    from asyncflow.engine.own_engine import resume, run, run_sync
    from asyncflow.engine.run_handle import RunHandle
    from asyncflow.engine.runner import NBRunner, Runner
    from asyncflow.flow.config import Config, config_expr
    from asyncflow.flow.config_parsers import (
        conda_environment_yml_parser,
        pyproject_toml_parser,
        requirements_txt_parser,
        yaml_parser,
    )
    from asyncflow.flow.config_value import ConfigValue
    from asyncflow.flow.exit_hook import (
        exit_hook,
    )
    from asyncflow.flow.mutators import (
        FlowMutator,
        StepMutator,
    )
    from asyncflow.flow.own_decorators import (
        USER_SKIP_STEP,
        UserStepDecorator,
        user_step_decorator,
    )
    from asyncflow.flow.parallel_maps import (
        parallel_imap_unordered,
        parallel_map,
        profile,
    )
    from asyncflow.flow.project import project
    from asyncflow.flow.remote_decorators import (
        batch,
        conda,
        conda_base,
        gpu_profile,
        kubernetes,
        package_sources,
        pypi,
        pypi_base,
        schedule,
        trigger,
        trigger_on_finish,
    )
    from asyncflow.flow.step_secrets import (
        secrets,
    )
    from asyncflow.page.mounting import page

__version__ = VERSION

__all__ = [
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

# What a flow file needs is imported above. The rest is imported when it is first used: a worker
# needs no engine, and a program that only looks back needs no event loop.
_LATER: Final = {
    "Artifact": "asyncflow.client",
    "DataArtifact": "asyncflow.client",
    "Config": "asyncflow.flow.config",
    "ConfigValue": "asyncflow.flow.config_value",
    "Engine": "asyncflow.engine",
    "Flow": "asyncflow.client",
    "FlowMutator": "asyncflow.flow.mutators",
    "Metaflow": "asyncflow.client",
    "NBRunner": "asyncflow.engine.runner",
    "Run": "asyncflow.client",
    "RunHandle": "asyncflow.engine.run_handle",
    "Runner": "asyncflow.engine.runner",
    "S3": "asyncflow.datatools",
    "Step": "asyncflow.client",
    "StepMutator": "asyncflow.flow.mutators",
    "Store": "asyncflow.client",
    "Task": "asyncflow.client",
    "USER_SKIP_STEP": "asyncflow.flow.own_decorators",
    "UserStepDecorator": "asyncflow.flow.own_decorators",
    "batch": "asyncflow.flow.remote_decorators",
    "conda": "asyncflow.flow.remote_decorators",
    "conda_base": "asyncflow.flow.remote_decorators",
    "copy_runs": "asyncflow.client.copies",
    "default_metadata": "asyncflow.client",
    "default_namespace": "asyncflow.client",
    "conda_environment_yml_parser": "asyncflow.flow.config_parsers",
    "config_expr": "asyncflow.flow.config",
    "errors": "",
    "events": "",
    "exit_hook": "asyncflow.flow.exit_hook",
    "get_metadata": "asyncflow.client",
    "get_namespace": "asyncflow.client",
    "gpu_profile": "asyncflow.flow.remote_decorators",
    "inspect_spin": "asyncflow.client",
    "kubernetes": "asyncflow.flow.remote_decorators",
    "metadata": "asyncflow.client",
    "namespace": "asyncflow.client",
    "package_sources": "asyncflow.flow.remote_decorators",
    "page": "",
    "parallel_imap_unordered": "asyncflow.flow.parallel_maps",
    "parallel_map": "asyncflow.flow.parallel_maps",
    "profile": "asyncflow.flow.parallel_maps",
    "project": "asyncflow.flow.project",
    "pypi": "asyncflow.flow.remote_decorators",
    "pypi_base": "asyncflow.flow.remote_decorators",
    "pyproject_toml_parser": "asyncflow.flow.config_parsers",
    "requirements_txt_parser": "asyncflow.flow.config_parsers",
    "resume": "asyncflow.engine",
    "run": "asyncflow.engine",
    "run_sync": "asyncflow.engine",
    "schedule": "asyncflow.flow.remote_decorators",
    "secrets": "asyncflow.flow.step_secrets",
    "trigger": "asyncflow.flow.remote_decorators",
    "trigger_on_finish": "asyncflow.flow.remote_decorators",
    "user_step_decorator": "asyncflow.flow.own_decorators",
    "yaml_parser": "asyncflow.flow.config_parsers",
}

_DEPLOYING: Final = (
    "nothing is deployed: cron or a timer runs `asyncflow run FILE`, or a program with an "
    "`asyncflow.Engine` starts runs when it wants to"
)
_EVENTS_OF_OTHERS: Final = "a program starts runs, with `asyncflow.Engine` or `run`"
_OF_METAFLOW: Final = {
    "DeployedFlow": _DEPLOYING,
    "Deployer": _DEPLOYING,
    "JSONTypeClass": "`JSONType` is the type of a parameter",
    "NBDeployer": _DEPLOYING,
    "R": "flows are written in Python",
    "airflow_external_task_sensor": _EVENTS_OF_OTHERS,
    "airflow_s3_key_sensor": _EVENTS_OF_OTHERS,
    "namespaced_event_name": _EVENTS_OF_OTHERS,
    "plugins": "decorators of your own are `UserStepDecorator` and `FlowMutator`",
    "pytorch_parallel": "`@parallel` gives a step its place in its gang",
    "unbounded_test_foreach_internal": "a foreach may run over a generator",
}
"""What Metaflow has under these names and asyncflow has not, and what to use instead."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise _missing(name)
    import importlib

    module = importlib.import_module(_LATER[name] or f"{__name__}.{name}")
    value = getattr(module, name) if _LATER[name] else module
    globals()[name] = value
    return value


def _missing(name: str) -> Exception:
    """The error for a name that is not here; it says more about one that Metaflow has."""
    message = f"module {__name__!r} has no attribute {name!r}"
    if name not in _OF_METAFLOW:
        return AttributeError(message)
    message = (
        f"{__name__} has no {name!r}, which Metaflow has: {_OF_METAFLOW[name]}. The page "
        '"Move from Metaflow" of the documentation (docs/how-to/move-from-metaflow.md) says more'
    )
    import sys

    # `from asyncflow import Deployer` would replace the message of an AttributeError by its own
    frame = sys._getframe(2)  # noqa: SLF001 - nothing else tells what asks for the name
    importing = frame.f_code.co_name == "_handle_fromlist"
    return ImportError(message, name=__name__) if importing else AttributeError(message)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _launch(flow: type[FlowSpec]) -> None:
    from asyncflow import cli
    from asyncflow.flow import loader

    if loader.is_program():
        cli.launch(flow)


def _look_back(kind: str, pathspec: str, store: str) -> Any:
    from asyncflow import client

    return getattr(client, kind)(pathspec, store=store or None)


set_launcher(_launch)
set_client(_look_back)
