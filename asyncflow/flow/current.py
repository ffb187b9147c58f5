"""`current`: information about the running task, for the code of a step.

    from asyncflow import current
    print(current.pathspec)

It uses the context of the calling code (`contextvars`), so it is right in every task, even if a
worker runs many `async def` steps at once. A thread that a step starts inherits the context. If a
thread has none, the process has only one task at a time, and `current` refers to that task.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

from asyncflow._quick_classes import NamedTuple
from asyncflow.errors import FlowError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextvars import Context, Token

    from asyncflow.card_content.collector import CardCollector
    from asyncflow.flow.graph import Graph
    from asyncflow.flow.spec import FlowSpec


def _no_parameter(name: str) -> Any:
    raise KeyError(name)


def not_awaitable(name: str, of: object) -> Awaitable[Any]:
    """Refuse `current.load` where nothing can be awaited."""
    read = f"self.{name}" if of is None else f"the input's attribute {name!r}"
    raise FlowError(f"current.load is for async steps: in a `def` step, read {read}")


class Parallel(NamedTuple):
    """Where a task stands in its gang."""

    main_ip: str
    """The address at which the nodes reach node 0."""
    num_nodes: int
    """How many nodes the gang has."""
    node_index: int
    """Which one this task is, from 0."""
    control_task_id: str
    """The id of the task that is node 0."""


class CardsOfTask(Protocol):
    """The cards of a task."""

    @property
    def collector(self) -> CardCollector:
        """What the step adds to them."""
        ...


class TaskContext(NamedTuple):
    """What is known about the running task; the worker makes it.

    A tuple, because a worker makes one for each task, and a frozen dataclass takes 2 µs.
    """

    flow_name: str
    run_id: str
    step_name: str
    task_id: str
    attempt: int
    """0 for the first."""
    graph: Graph
    parameter_names: tuple[str, ...] = ()
    load_parameter: Callable[[str], Any] = _no_parameter
    """Loads the value of a parameter on first access."""
    load: Callable[[str, Any], Awaitable[Any]] = not_awaitable
    """Loads an artifact of the task or of one of its inputs."""
    tags: tuple[str, ...] = ()
    origin_run_id: str | None = None
    """The run that this one resumes."""
    parallel: Parallel | None = None
    """Where the task stands in its gang; None if its step is none."""
    store: str = ""
    """The location of the store."""
    flow: type[FlowSpec] | None = None
    """The flow class."""
    cards: CardsOfTask | None = None
    """The cards of the task; None if its step has none."""

    @property
    def pathspec(self) -> str:
        """`Flow/run/step/task`."""
        return f"{self.flow_name}/{self.run_id}/{self.step_name}/{self.task_id}"


_task: ContextVar[TaskContext | None] = ContextVar("asyncflow_task", default=None)
_solos: Final[list[TaskContext]] = []
"""The one task of this process, for threads without a context. In a test's process, workers are
threads, and then there may be several, which end in any order."""


class EnteredTask:
    """Makes a task the current one within a block.

    With `solo` it is the only task of the process, so threads without a context see it too.
    """

    __slots__ = ("_context", "_solo", "_token")

    def __init__(self, context: TaskContext, *, solo: bool) -> None:
        self._context, self._solo = context, solo

    def __enter__(self) -> None:
        self._token: Token[TaskContext | None] = _task.set(self._context)
        if self._solo:
            _solos.append(self._context)

    def __exit__(self, *_: object) -> None:
        if self._solo:
            _solos.remove(self._context)
        _task.reset(self._token)


def running_task() -> TaskContext | None:
    """The task that the calling code runs in; None outside of a task."""
    return _task.get() or (_solos[-1] if _solos else None)


def task_in(context: Context) -> TaskContext | None:
    """The task that code in this context belongs to; can be called in any thread."""
    return context.get(_task)


def leave_task() -> None:
    """Detach this context from its task: what it does from now on belongs to no task."""
    _task.set(None)


class ParameterValues(Mapping[str, Any]):
    """The run's parameters, as attributes and as a mapping; each is read on access."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context

    def __getitem__(self, name: str) -> Any:
        if name not in self._context.parameter_names:
            raise KeyError(name)
        return self._context.load_parameter(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._context.parameter_names:
            message = f"flow {self._context.flow_name!r} has no parameter {name!r}"
            raise AttributeError(message)
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._context.parameter_names)

    def __len__(self) -> int:
        return len(self._context.parameter_names)

    def __repr__(self) -> str:
        return f"<parameters {', '.join(self) or 'none'}>"


class CurrentProject:
    """The part of `current` that is about the flow's `@project`.

    If the flow has none, each of these raises AttributeError.
    """

    __slots__ = ()

    @property
    def project_name(self) -> str:
        """The project of the flow's `@project`."""
        return str(_project()["name"])

    @property
    def branch_name(self) -> str:
        """The run's branch in its project: `user.NAME`, `test.BRANCH`, `prod` or `prod.BRANCH`."""
        return str(_project()["branch_name"])

    @property
    def is_production(self) -> bool:
        """Whether the run is one of production in its project."""
        return bool(_project()["production"])

    @property
    def is_user_branch(self) -> bool:
        """Whether the run is in the branch of the user who started it."""
        return bool(_project()["is_user_branch"])

    @property
    def project_flow_name(self) -> str:
        """`PROJECT.BRANCH.FLOW`."""
        return str(_project()["flow_name"])


class Current(CurrentProject):
    """The task that the calling code runs in.

    Outside of a task, `is_running_flow` is false, and all other attributes raise AttributeError.
    """

    __slots__ = ()

    @property
    def is_running_flow(self) -> bool:
        """Whether this code runs in a task."""
        return running_task() is not None

    @property
    def flow_name(self) -> str:
        """The name of the flow's class."""
        return _context().flow_name

    @property
    def run_id(self) -> str:
        """The run's id within its flow."""
        return _context().run_id

    @property
    def step_name(self) -> str:
        """The step that runs."""
        return _context().step_name

    @property
    def task_id(self) -> str:
        """The task's id within its run: 1, 2, 3… as text."""
        return _context().task_id

    @property
    def attempt(self) -> int:
        """Which attempt of the task this is, 0 for the first."""
        return _context().attempt

    @property
    def retry_count(self) -> int:
        """How many attempts there were before: Metaflow's name for `attempt`."""
        return _context().attempt

    @property
    def pathspec(self) -> str:
        """`Flow/run/step/task`."""
        return _context().pathspec

    @property
    def parameter_names(self) -> list[str]:
        """The attributes of the flow that are parameters."""
        return list(_context().parameter_names)

    @property
    def parameters(self) -> ParameterValues:
        """The values of the parameters."""
        return ParameterValues(_context())

    @property
    def tags(self) -> set[str]:
        """The tags that the run was started with; changing the set changes nothing."""
        return set(_context().tags)

    @property
    def origin_run_id(self) -> str | None:
        """The run that this one resumes; None if it resumes none."""
        return _context().origin_run_id

    @property
    def parallel(self) -> Parallel:
        """In a step under `@parallel`, which node of its gang this task is, and of how many."""
        parallel = _context().parallel
        if parallel is None:
            message = f"step {self.step_name!r} has no @parallel: its tasks are no gang"
            raise AttributeError(message, name="parallel")
        return parallel

    @property
    def card(self) -> CardCollector:
        """In a step under `@card`, its card: `current.card.append(Markdown("…"))`.

        Another one of several is `current.card["id"]`. See `asyncflow.cards`.
        """
        cards = _context().cards
        if cards is None:
            message = f"step {self.step_name!r} has no card: put @card on it"
            raise AttributeError(message, name="card")
        return cards.collector

    @property
    def graph(self) -> dict[str, Any]:
        """The graph of the flow as Metaflow describes it; `current.run.graph` is a `Graph`.

        It has `steps` (by name: `type`, `next`, `doc`, `decorators`, `line` and others), `doc`,
        `parameters`, `constants`, `decorators`, `start_step` and `end_step`.
        """
        context = _context()
        if context.flow is None:
            raise AttributeError("the graph is not available here", name="graph")
        from asyncflow.flow.graph_info import graph_info

        return graph_info(context.graph, context.flow)

    @property
    def graph_info(self) -> dict[str, Any]:
        """The same as `graph`, under Metaflow's other name."""
        return self.graph

    @property
    def run(self) -> Any:
        """The client's `Run` of the running task."""
        context = _context()
        return _look_back("Run", f"{context.flow_name}/{context.run_id}", context.store)

    @property
    def task(self) -> Any:
        """The client's `Task` of the running task."""
        context = _context()
        return _look_back("Task", context.pathspec, context.store)

    @property
    def trigger(self) -> None:
        """What has triggered the run: always None, because nothing here triggers runs."""
        _context()

    @property
    def tempdir(self) -> str:
        """The folder for temporary files of this machine."""
        import tempfile

        _context()
        return tempfile.gettempdir()

    @property
    def resources(self) -> dict[str, Any]:
        """What the step's `@resources` asks for, by name; empty if it has none."""
        context = _context()
        return dict(context.graph[context.step_name].options.get("resources") or {})

    @property
    def username(self) -> str:
        """Who runs the flow."""
        from asyncflow._support.user_name import user_name

        _context()
        return user_name()

    @property
    def namespace(self) -> str:
        """`user:NAME`, as in Metaflow."""
        return f"user:{self.username}"

    def load(self, name: str, of: Any = None) -> Awaitable[Any]:
        """In an async step, read a large artifact while other tasks go on.

        `await current.load("model")` returns `self.model`, and later uses of `self.model` need no
        reading. A thread reads, verifies and unpickles the artifact; code of its class runs in that
        thread too. `"input"` stands for `self.input`.

        Args:
            name: The artifact or parameter.
            of: In a join, the input whose artifact to read: `await current.load("model",
                inputs.train)` returns `inputs.train.model`.

        Raises:
            AttributeError: There is no such artifact, or no task runs here.
            FlowError: The step is not an async step.
            ArtifactError: The artifact cannot be read.

        Cancelled: the thread goes on reading, and the result is dropped. The task does not end
        before the thread has finished.
        """
        return _context().load(name, of)

    def get(self, name: str, default: Any = None) -> Any:
        """The attribute of this name, or the default if there is none."""
        return getattr(self, name, default)

    def __contains__(self, name: str) -> bool:
        return getattr(self, name, None) is not None

    def __repr__(self) -> str:
        return f"<current {self.pathspec}>" if self.is_running_flow else "<current: no task>"


_client: Callable[[str, str, str], Any] | None = None


def set_client(client: Callable[[str, str, str], Any]) -> None:
    """Set what makes an object of the client, which this floor must not import.

    It is called with the name of its class, a pathspec and the location of the store.
    """
    global _client  # noqa: PLW0603 - one for the process, set when asyncflow is imported
    _client = client


def _look_back(kind: str, pathspec: str, store: str) -> Any:
    if _client is None:
        raise FlowError("there is no client to look back with: import asyncflow")
    return _client(kind, pathspec, store)


def _context() -> TaskContext:
    context = running_task()
    if context is None:
        message = "no task runs here: `current` has a task only in the code of its step"
        raise AttributeError(message)
    return context


def _project() -> Mapping[str, Any]:
    context = _context()
    found = context.graph.options.get("project")
    if found is None:
        message = f"{context.flow_name} is in no project: put @project on it"
        raise AttributeError(message)
    project: Mapping[str, Any] = found
    return project


current = Current()
"""The only instance of `Current`."""
