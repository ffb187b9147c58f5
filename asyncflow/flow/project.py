"""`@project`: runs of flows that belong together, in branches beside each other.

The graph of a run holds where it belongs, under `project`:

    name            of the project
    branch          as it was given, or None
    production      whether the run is one of production
    branch_name     user.NAME, test.BRANCH, prod or prod.BRANCH
    is_user_branch  whether it is the branch of whoever runs the flow
    flow_name       PROJECT.BRANCH.FLOW
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from asyncflow.errors import ParameterError
from asyncflow.flow.decorator_arguments import mistake
from asyncflow.flow.flow_decorators import FlowClass, delayed_on_flow, note_on_flow
from asyncflow.flow.graph import Graph

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAME: Final = re.compile(r"[a-z0-9_]+")
_BRANCH: Final = re.compile(r"[\w.-]+", re.ASCII)


def project(
    *, name: str, branch: str | None = None, production: bool = False
) -> Callable[[FlowClass], FlowClass]:
    """Make the runs of a flow part of a project.

    Each run is in a branch: that of the user, `test.BRANCH` with `--branch BRANCH`, or `prod` with
    `--production`. `current.project_name` and `current.branch_name` tell it to the steps, and the
    run has the system tags `project:NAME` and `project_branch:BRANCH`.

    Args:
        name: The project: small letters, digits and underscores.
        branch: The branch of all runs, which then cannot be given another one.
        production: Whether all runs are of production.

    Raises:
        FlowError: The name or the branch cannot be one.
    """
    given: dict[str, Any] = {"name": name, "branch": branch, "production": production}
    delayed = delayed_on_flow(project, (), given)
    if delayed is not None:
        decorate: Callable[[FlowClass], FlowClass] = delayed
        return decorate
    if not _NAME.fullmatch(str(name)):
        message = f"@project takes a name of small letters, digits and underscores, not {name!r}"
        raise mistake(message)
    if branch is not None and not _is_branch(branch):
        message = f"@project takes letters, digits, `_`, `-` and `.` as `branch`, not {branch!r}"
        raise mistake(message)
    return note_on_flow("project", {**given, "production": bool(production)})


def _is_branch(branch: object) -> bool:
    return isinstance(branch, str) and _BRANCH.fullmatch(branch) is not None


def placed_in_project(
    graph: Graph,
    *,
    branch: str | None,
    production: bool | None,
    user: str,
    origin: Mapping[str, Any] | None = None,
) -> Graph:
    """The graph of a run of this user, with what `@project` means for it.

    Args:
        graph: The graph of the flow.
        branch: The branch that the run is given.
        production: Whether it is given to be of production.
        user: Who starts the run.
        origin: What the graph of the resumed run says under `project`; its branch is kept if the
            run is given none.

    Raises:
        ParameterError: The flow has no `@project`, or the branch cannot be one.
    """
    said = graph.options.get("project")
    if said is None:
        if branch is None and production is None:
            return graph
        message = f"{graph.flow} is in no project, so it has no branches: put @project on it"
        raise ParameterError(message)
    if branch is not None and said["branch"] is not None:
        message = f"{graph.flow} has the branch {said['branch']!r} in its @project: give no other"
        raise ParameterError(message)
    if branch is not None and not _is_branch(branch):
        message = f"a branch has letters, digits, `_`, `-` and `.` in its name, not {branch!r}"
        raise ParameterError(message)
    if origin is not None and branch is None and production is None:
        branch, production = origin["branch"], origin["production"]
    branch = branch if branch is not None else said["branch"]
    production = bool(said["production"] if production is None else production)
    if production:
        branch_name = "prod" if branch is None else f"prod.{branch}"
    else:
        branch_name = f"user.{user}" if branch is None else f"test.{branch}"
    options = {
        "name": said["name"],
        "branch": branch,
        "production": production,
        "branch_name": branch_name,
        "is_user_branch": branch is None and not production,
        "flow_name": f"{said['name']}.{branch_name}.{graph.flow}",
    }
    return graph.with_options({**graph.options, "project": options})
