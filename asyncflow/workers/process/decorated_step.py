"""Runs a step within the user's own decorators: their code before it, and their code after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from asyncflow.errors import FlowError
from asyncflow.flow.own_decorators import decorator_named
from asyncflow.flow.step_options import OwnDecorator, options_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncflow.flow.join_inputs import Inputs
    from asyncflow.flow.node import Node, Transition
    from asyncflow.flow.own_decorators import UserStepDecorator
    from asyncflow.flow.spec import FlowSpec

_PAIR: Final = 2


def own_decorators_of(flow: type[FlowSpec], node: Node) -> list[OwnDecorator]:
    """The user's decorators of a step, the outermost first.

    Those that the command line has put there are known to the graph alone.
    """
    named = [
        OwnDecorator(decorator_named(each["with"], flow), (), each["kwargs"])
        for each in node.options["own"]
        if each["with"]
    ]
    options = options_of(getattr(flow, node.name, None))
    return [*named, *reversed(options.own if options is not None else [])]


class DecoratedTask(Protocol):
    """What a decorated step needs of its task."""

    transition: Transition | None
    """Set by `self.next(...)`."""

    @property
    def step(self) -> str:
        """The step's name."""

    @property
    def node(self) -> Node:
        """The step in the graph."""

    @property
    def flow(self) -> FlowSpec:
        """The instance."""


class DecoratedStep:
    """One attempt of a step with decorators."""

    def __init__(
        self,
        task: DecoratedTask,
        decorators: Sequence[OwnDecorator],
        inputs: Sequence[Inputs],
        body: Callable[[], Any],
    ) -> None:
        """Prepare it; `inputs` has those of a join, and `body` calls the step."""
        self._task, self._decorators, self._body = task, decorators, body
        self._inputs = inputs[0] if inputs else None
        self._goes_on = False  # though the step has not called `self.next`
        self._arguments: dict[str, Any] = {}  # for `self.next`

    def run(self) -> None:
        """Run a `def` step.

        Raises:
            Exception: What the outermost decorator lets out.
        """
        running = self._run()
        try:
            running.send(None)
        except StopIteration as end:
            error: BaseException | None = end.value
        else:
            running.close()
            name = self._task.step
            message = f"step {name!r} is `def`, but what decorates it has awaited something"
            raise FlowError(message, step=name)
        if error is not None:
            raise error

    async def run_async(self) -> None:
        """Run an `async def` step.

        Raises:
            Exception: What the outermost decorator lets out.
        """
        error = await self._run()
        if error is not None:
            raise error

    async def _run(self) -> BaseException | None:
        """Run it, and return what is to be raised: a coroutine lets no StopIteration out."""
        error = await self._around(self._decorators)
        if error is None and self._goes_on:
            try:
                self._go_on()
            except Exception as wrong:  # noqa: BLE001 - raised by `run`
                return wrong
        return error

    async def _around(self, decorators: Sequence[OwnDecorator]) -> BaseException | None:
        """Run the step within these decorators; return what they let out."""
        if not decorators:
            return await self._called(self._body)
        (kind, args, kwargs), *within = decorators
        task = self._task
        decorator: UserStepDecorator = object.__new__(cast("type[Any]", kind))
        try:
            decorator.init(*args, **kwargs)
            instead = decorator.pre_step(task.step, task.flow, self._inputs)
            instead = await _settled(instead)
        except BaseException as failure:  # noqa: BLE001 - raised by `run`
            return failure
        error: BaseException | None = None
        if decorator.skip_step:
            self._skip(decorator.skip_step)
        elif instead is not None:
            given = (task.flow,) if self._inputs is None else (task.flow, self._inputs)
            error = await self._called(instead, *given)
        else:
            error = await self._around(within)
        return await self._after(decorator, error)

    async def _called(self, function: Callable[..., Any], *given: Any) -> BaseException | None:
        try:
            await _settled(function(*given))
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            return error
        return None

    async def _after(
        self, decorator: UserStepDecorator, error: BaseException | None
    ) -> BaseException | None:
        task = self._task
        try:
            said = decorator.post_step(task.step, task.flow, cast("Any", error))
            said = await _settled(said)
            if isinstance(said, tuple) and len(said) == _PAIR:
                said, arguments = said
                if arguments:
                    self._skip(arguments)
            if not isinstance(said, BaseException | None):
                name = type(decorator).__name__
                message = f"post_step of {name!r} returns {said!r}: return an exception, or None"
                raise FlowError(message, step=task.step)  # noqa: TRY301 - like the user's own
        except BaseException as second:  # noqa: BLE001 - raised by `run`
            said = second
        if error is not None and not isinstance(error, Exception):
            return error  # it is stopped, and no decorator decides about that
        if error is not None and said is None:
            self._goes_on = True
        return cast("BaseException | None", said)

    def _skip(self, arguments: object) -> None:
        """Go on as the source says, with these arguments for `self.next` if it is a dict."""
        self._goes_on = True
        if isinstance(arguments, dict) and arguments:
            self._arguments = arguments
            self._task.transition = None  # what the step has said is replaced

    def _go_on(self) -> None:
        """Go on where the step's source says, unless the step has done so itself."""
        task, node = self._task, self._task.node
        if task.transition is not None or not node.next:
            return
        flow: Any = task.flow
        steps: list[Any] = [getattr(flow, name) for name in node.next]
        if node.condition is not None:
            steps = [{case: getattr(flow, name) for case, name in node.cases}]
        given: dict[str, Any] = {"foreach": node.foreach, "condition": node.condition}
        if node.num_parallel is not None and node.num_parallel.isdecimal():
            given["num_parallel"] = int(node.num_parallel)
        flow.next(*steps, **{**given, **self._arguments})


async def _settled(value: Any) -> Any:
    return await value if hasattr(type(value), "__await__") else value
