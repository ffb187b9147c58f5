"""The inputs of a join, and how `merge_artifacts` merges them.

An input is a task that leads to the join. Its artifacts come from an `InputSource`: they are read
on first access, and compared without being read.
"""

from __future__ import annotations

from _thread import RLock  # that of `threading` is a function around it
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, overload
from weakref import WeakValueDictionary

from asyncflow._support.suggestions import did_you_mean
from asyncflow.errors import FlowError, MergeArtifactsError
from asyncflow.flow.node import Fanout
from asyncflow.values import is_same

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Callable,
        Collection,
        Iterable,
        Iterator,
        Mapping,
        MutableMapping,
        Sequence,
    )

    from asyncflow.flow.graph import Graph
    from asyncflow.values import ArtifactRef


class InputSource(Protocol):
    """What a join can ask one of the tasks that lead to it."""

    @property
    def step(self) -> str:
        """The step that it ran."""
        ...

    @property
    def index(self) -> int | None:
        """The index of its item in the innermost foreach."""
        ...

    @property
    def graph(self) -> Graph:
        """The graph of the flow."""
        ...

    def refs(self) -> Mapping[str, ArtifactRef]:
        """Its artifacts, unread."""
        ...

    def has(self, name: str) -> bool:
        """Whether it has an artifact of this name."""
        ...

    def load(self, name: str) -> object:
        """Load the value of an artifact."""
        ...

    def input(self) -> object:
        """Its item of the innermost foreach."""
        ...

    def stack(self) -> list[tuple[int, int | None, object]]:
        """Index, count and item of every foreach around it, outermost first."""
        ...


class Inputs:
    """The tasks that lead to a join: by index, by iteration, and by name if they are branches.

    `inputs.train` is the branch whose last step is `train`. Each input has one view, made on first
    access. The view holds the values read through it, with changes that the join makes in place.
    Views of branches are few and are kept while the join runs. A view of a foreach is kept only
    while it is referenced, so a join over 100,000 tasks needs no more memory than one over ten.
    """

    def __init__(
        self, names: Sequence[str] | None, count: int, make: Callable[[int], InputView]
    ) -> None:
        """Represent `count` inputs; `make` makes a view on first access; branches have names."""
        self._names = tuple(names) if names is not None else None
        self._range = range(count)
        self._make = make
        self._views: MutableMapping[int, InputView] = WeakValueDictionary() if names is None else {}

    def _view(self, index: int) -> InputView:
        view = self._views.get(index)
        if view is None:
            view = self._views[index] = self._make(index)
        return view

    def __len__(self) -> int:
        return len(self._range)

    @overload
    def __getitem__(self, index: int) -> InputView: ...
    @overload
    def __getitem__(self, index: slice) -> Inputs: ...
    def __getitem__(self, index: int | slice) -> InputView | Inputs:
        if isinstance(index, slice):
            some, view = self._range[index], self._view
            names = None if self._names is None else self._names[index]
            return Inputs(names, len(some), lambda at: view(some[at]))
        try:
            return self._view(self._range[index])
        except IndexError:
            message = f"there is no input {index}: the join has {len(self)}"
            raise IndexError(message) from None

    def __iter__(self) -> Iterator[InputView]:
        return (self._view(index) for index in self._range)

    async def __aiter__(self) -> AsyncIterator[InputView]:
        for view in self:
            yield view

    def __getattr__(self, name: str) -> InputView:
        names = self.__dict__.get("_names")
        if names is not None and name in names:
            return self._view(names.index(name))
        if names is None:
            message = f"inputs of a foreach have no names, so {name!r} is not one: use inputs[0]"
        else:
            hint = did_you_mean(name, names)
            message = f"no input is called {name!r}: there are {', '.join(names)}{hint}"
        raise AttributeError(message, name=name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(self._names or ())]

    def __repr__(self) -> str:
        names = f": {', '.join(self._names)}" if self._names else ""
        return f"<Inputs of {len(self)} tasks{names}>"

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError(_UNPICKLABLE_INPUTS)


class Arriving(Protocol):
    """The inputs of a join that has begun before the last of them."""

    def __len__(self) -> int:
        """How many there are so far."""
        ...

    @property
    def are_all(self) -> bool:
        """Whether no more will come."""
        ...

    async def wait(self, number: int) -> bool:
        """Wait until there are more than `number`; False if that will not be."""
        ...

    def in_order(self) -> Sequence[int]:
        """The numbers of all inputs, in the order of their items."""
        ...


class ArrivingInputs(Inputs):
    """The inputs of a foreach that can be read as they arrive, and together when all are there."""

    def __init__(self, arriving: Arriving, make: Callable[[int], InputView]) -> None:
        """`make` makes the view of the input that was the n-th to arrive."""
        self._arriving = arriving
        self._order: Sequence[int] = ()
        super().__init__(None, 0, make)

    def _view(self, index: int) -> InputView:
        return super()._view(self._all()[index])

    def _all(self) -> Sequence[int]:
        if not self._arriving.are_all:
            message = (
                f"only {len(self._arriving)} inputs have arrived by now: first go through "
                "`async for input in inputs`, then all are there"
            )
            raise FlowError(message)
        if len(self._order) != len(self._arriving):
            self._order = self._arriving.in_order()
            self._range = range(len(self._order))
        return self._order

    def __len__(self) -> int:
        return len(self._all())

    def __getitem__(self, index: Any) -> Any:
        self._all()
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[InputView]:
        self._all()
        return super().__iter__()

    async def __aiter__(self) -> AsyncIterator[InputView]:
        number = 0
        while await self._arriving.wait(number):
            yield super()._view(number)
            number += 1

    def __repr__(self) -> str:
        return f"<Inputs of {len(self._arriving)} tasks so far>"


class InputView:
    """A task that leads to a join. Its artifacts are attributes, read on first access."""

    def __init__(self, source: InputSource) -> None:
        vars(self)["_asyncflow_source"] = source

    @property
    def index(self) -> int | None:
        """The index of the task's item in the innermost foreach."""
        return _source_of(self).index

    @property
    def input(self) -> Any:
        """The task's item of the innermost foreach."""
        return _source_of(self).input()

    def foreach_stack(self) -> list[tuple[int, int | None, Any]]:
        """Index, count and item of every foreach around the task, outermost first.

        While a foreach runs over a generator, its tasks do not know the count: it is None.
        """
        return _source_of(self).stack()

    def __getattr__(self, name: str) -> Any:
        source = vars(self).get("_asyncflow_source")
        if source is None or not source.has(name):
            raise AttributeError(_absent(source, name), name=name)
        return load_once(vars(self), name, lambda: source.load(name))

    def __setattr__(self, name: str, value: object) -> None:
        message = f"inputs are read-only: assign to self.{name} instead"
        raise AttributeError(message, name=name)

    def __delattr__(self, name: str) -> None:
        message = "inputs are read-only"
        raise AttributeError(message, name=name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *refs_of(self)})

    def __repr__(self) -> str:
        source = _source_of(self)
        index = "" if source.index is None else f"[{source.index}]"
        return f"<input {source.step}{index}: {', '.join(source.refs()) or 'no artifacts'}>"

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError(_UNPICKLABLE_INPUTS)


Lock = TypeVar("Lock")

LOCKS: Final = "_asyncflow_locks"


def lock_of(values: dict[str, Any], name: str, make: Callable[[], Lock]) -> Lock:
    """The lock for one name of an instance's `__dict__`, which also holds the lock."""
    locks: dict[tuple[object, str], Lock] | None = values.get(LOCKS)
    if locks is None:
        locks = values.setdefault(LOCKS, {})
    return locks.get((make, name)) or locks.setdefault((make, name), make())


def load_once(
    values: dict[str, Any],
    name: str,
    load: Callable[[], Any],
    is_wanted: Callable[[], bool] = lambda: True,
) -> Any:
    """Get a value from an instance's `__dict__`; the first caller loads it into there.

    Callers in other threads wait meanwhile and get the same object. If `is_wanted` is false after
    loading, the value is returned but not kept.
    """
    with lock_of(values, name, RLock):
        if name in values:
            return values[name]
        value = load()
        return values.setdefault(name, value) if is_wanted() else value


_UNPICKLABLE_INPUTS: Final = (
    "inputs of a join cannot be pickled: keep the artifacts that are needed, as in "
    "self.best = max(each.score for each in inputs)"
)


def _source_of(view: InputView) -> InputSource:
    source: InputSource = vars(view)["_asyncflow_source"]
    return source


def refs_of(view: InputView) -> Mapping[str, ArtifactRef]:
    """The artifacts of an input, unread."""
    return _source_of(view).refs()


def _absent(source: InputSource | None, name: str) -> str:
    if source is None:
        return f"no attribute {name!r}"
    text = f"the input {source.step!r} has no artifact {name!r}; it has {', '.join(source.refs())}"
    if hint := did_you_mean(name, source.refs()):
        return text + hint
    passed = source.graph.before(source.step) | {source.step}
    return text + lost_in_joins(name, source.graph, passed)


def lost_in_joins(
    name: str, graph: Graph, passed: Collection[str], makers: Sequence[str] = ()
) -> str:
    """What to do if an artifact is missing because a join has not handed it on.

    `passed` are the steps before this one, `makers` those of them that are known to assign it. The
    result is empty if no join can be the cause.
    """
    joins = [node.name for node in graph if node.is_join and node.name in passed]
    if makers:
        joins = [join for join in joins if graph.before(join).intersection(makers)]
    if not joins:
        return ""
    made = f"{makers[0]!r} assigns it, but a" if makers else "if a step before made it: a"
    return (
        f"; {made} join passes on only what it assigns or merges: in "
        f"{' and '.join(map(repr, joins))}, call self.merge_artifacts(inputs) or assign "
        f"self.{name} = {_one_of_inputs(graph, joins[0], makers)}.{name}, and resume from "
        f"{joins[0]!r}"
    )


def _one_of_inputs(graph: Graph, join: str, makers: Sequence[str]) -> str:
    """An input of a join that has what these steps have made."""
    if graph[str(graph[join].joins)].fanout is Fanout.BRANCH:
        for maker in makers:
            if join in graph[maker].next:
                return f"inputs.{maker}"
    return "inputs[0]"


# --- merging ----------------------------------------------------------------------------------


class Merge:
    """One call of `merge_artifacts`."""

    def __init__(
        self, step: str, include: list[str], exclude: list[str], settled: set[str]
    ) -> None:
        if include and exclude:
            message = "merge_artifacts takes `include` or `exclude`, not both"
            raise MergeArtifactsError(message, step=step)
        self._step, self._include = step, include
        self._wanted = set(include)
        self._left_alone = settled | set(exclude)
        self._merged: dict[str, ArtifactRef] = {}
        self._conflicts: dict[str, None] = {}

    def run(self, inputs: Iterable[Any]) -> dict[str, ArtifactRef]:
        """The refs to take over."""
        for view in inputs:
            if not isinstance(view, InputView):
                message = f"merge_artifacts takes the inputs of a join, not {view!r}"
                raise FlowError(message, step=self._step)
            self._take(refs_of(view))
        if self._conflicts:
            names = list(self._conflicts)
            message = (
                f"step {self._step!r} cannot merge {', '.join(names)}: the inputs have different "
                f"values; assign self.{names[0]} before merging, or exclude it"
            )
            raise MergeArtifactsError(message, artifacts=names, step=self._step)
        missing = [
            name
            for name in self._include
            if name not in self._merged and name not in self._left_alone
        ]
        if missing:
            message = f"step {self._step!r} cannot merge {', '.join(missing)}: no input has it"
            raise MergeArtifactsError(message, artifacts=missing, step=self._step)
        return self._merged

    def _take(self, refs: Mapping[str, ArtifactRef]) -> None:
        for name, ref in refs.items():
            if name in self._left_alone or (self._wanted and name not in self._wanted):
                continue
            known = self._merged.setdefault(name, ref)
            if known is not ref and not is_same(known, ref):
                self._conflicts[name] = None
