"""The task that a flow instance is bound to, and the artifacts that the instance has.

An artifact that a step assigns is kept in the instance's `__dict__`. An inherited one is loaded
from a `BoundTask` on first access, and then kept there too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from asyncflow.errors import ArtifactError
from asyncflow.flow.join_inputs import LOCKS, load_once

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from asyncflow.flow.graph import Graph
    from asyncflow.flow.node import Transition
    from asyncflow.values import ArtifactRef

STATE: Final = "_asyncflow_state"
"""The attribute of an instance that has the task."""
INPUT: Final = "_asyncflow_input"
"""The attribute that has the task's item, once the step has asked for it."""
_OURS: Final = "_asyncflow_"
"""The prefix of all attributes that are not the user's."""
_USUAL: Final = (STATE, INPUT, LOCKS)
"""Those that tasks have."""


class BoundTask(Protocol):
    """What a flow instance needs from the task that it is bound to."""

    transition: Transition | None
    """Set by `self.next(...)`."""
    choice: str
    """The step that a condition has chosen; empty where there is none."""
    num_parallel: int | None
    """How many tasks the gang of the next step has; None where there is none."""

    @property
    def constants(self) -> Mapping[str, object]:
        """Values of parameters that were read before, for another task, and cannot be changed."""
        ...

    @property
    def step(self) -> str:
        """The step that runs."""
        ...

    @property
    def graph(self) -> Graph:
        """The graph of the flow."""
        ...

    @property
    def index(self) -> int | None:
        """The index of the task's item in the innermost foreach; None outside of any."""
        ...

    def names(self) -> Collection[str]:
        """The artifacts that the task has inherited."""
        ...

    def load(self, name: str) -> object:
        """Load the value of an inherited artifact; called once for each, unless it is forgotten.

        Raises:
            KeyError: No inherited artifact has this name.
        """
        ...

    def forget(self, name: str) -> None:
        """Drop an inherited artifact from the task."""
        ...

    def adopt(self, name: str, ref: ArtifactRef) -> None:
        """Add an artifact of an input to the task, without reading it."""
        ...

    def input(self) -> object:
        """The item that the task is for; None outside of any foreach."""
        ...

    def stack(self) -> list[tuple[int, int | None, object]]:
        """Index, count and item of every foreach around the task, outermost first."""
        ...


def task_of(instance: object) -> BoundTask | None:
    """The task that an instance is bound to; None for one on which methods are tried."""
    state: BoundTask | None = vars(instance).get(STATE)
    return state


def load_inherited(instance: object, name: str) -> Any:
    """Load an inherited artifact of an instance that is bound to a task, and keep it there."""
    values = vars(instance)
    state: BoundTask = values[STATE]
    # The loop's thread may delete it while another thread loads it.
    return load_once(values, name, lambda: state.load(name), lambda: name in state.names())


def artifacts_of(instance: object) -> dict[str, Any]:
    """The artifacts that a task has assigned or read; new and changed ones must be stored.

    Raises:
        ArtifactError: An artifact has a name that cannot be stored.
    """
    kept = vars(instance).copy()
    for name in _USUAL:
        kept.pop(name, None)
    try:
        names = "/" + "/".join(kept)
    except TypeError:  # one is no text
        names = "/_"
    if "/_" not in names and names.isascii():
        return kept
    for name in kept:  # the copy: a thread that outlives the step may go on assigning
        check_name(name)
    return {
        name: value
        for name, value in kept.items()
        if name[:1] != "_" or not name.startswith((_OURS, "__"))
    }


def check_name(name: object) -> None:
    """Refuse a name under which no artifact can be stored.

    Raises:
        ArtifactError: It is such a name.
    """
    if isinstance(name, str):
        try:
            name.encode()
        except UnicodeEncodeError:
            why = "its name holds half a surrogate pair, or a byte that is not UTF-8"
        else:
            return
    else:
        why = "its name is no text"
    message = f"an artifact cannot be called {name!r}: {why}; assign it to another name"
    raise ArtifactError(message)
