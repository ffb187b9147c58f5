"""Reads the `Graph` of a flow class, without running a step.

A step has this form:

- It is a method with `@step`, `def` or `async def`, that takes `self`, or `self` and `inputs`.
  Keyword-only parameters ask for shared resources; see `asyncflow.flow.shared`.
- `self.next(...)` is the last statement of its body. Only statements that do nothing may follow: a
  comment, a string, `pass`, an empty `return`. The call is not nested in another statement (`if`,
  `for`, `try`, `with`), because the graph is known before the run. The last step has no such call.
- The call is `self.next(self.a)`, `self.next(self.a, self.b)`,
  `self.next(self.a, foreach="items")`, `self.next({"x": self.a, "y": self.b}, condition="kind")`
  or `self.next(self.a, num_parallel=NUMBER)`, where the number may be any expression.

A step is read from its source, in a file, a cell of a notebook, or at Python's prompt from 3.13 on.
Where there is none, `asyncflow.flow.step_bytecode` reads the first three of these calls, and no
other.
"""

from __future__ import annotations

import functools
import inspect
import os
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, cast

from asyncflow._quick_classes import dataclass
from asyncflow._support.notebook import shown_file
from asyncflow.errors import GraphError
from asyncflow.flow.constants import is_constant, written_classes
from asyncflow.flow.delayed_values import CONFIG_VALUES, has_configs
from asyncflow.flow.flow_decorators import flow_options_of, has_mutators
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import END, Node, Transition
from asyncflow.flow.parameters import Parameter, parameters_of
from asyncflow.flow.shared import Shared, check_shared, keyword_only, shared_of
from asyncflow.flow.step_options import is_step, options_of, plain_options
from asyncflow.flow.step_source import read_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncflow.flow.node import Case
    from asyncflow.flow.step_source import Argument, Body, NextCall

RESERVED_NAMES: Final = frozenset({"foreach_stack", "index", "input", "merge_artifacts", "next"})
"""`FlowSpec` uses these names itself, so no step, parameter or artifact can have them."""

_KEPT_GRAPHS: Final = 64  # for the flows used last; an application has a handful


def read_graph(cls: type) -> Graph:
    """The graph of a flow class, with inherited steps; it is read once for each class.

    Raises:
        GraphError: The steps do not form a graph that can be run, or have no source.
        ParameterError: A parameter has a name or a default that it cannot have, or a configuration
            has no value.
    """
    return _read_graph(prepare(cls))


def prepare(
    cls: type,
    configs: Mapping[str, object] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> type:
    """The class to use for a flow: configured, and changed by its mutators.

    It is the class itself unless the flow has configurations; `configs` has values for them by
    name, else they come from `environ`, or have their defaults.

    Raises:
        ParameterError: A configuration has no value, or cannot be read.
        Exception: Whatever a mutator raises.
    """
    if not configs and _is_plain(cls):
        return cls
    if configs or (has_configs(cls) and not hasattr(cls, CONFIG_VALUES)):
        from asyncflow.flow.configuration import configured_with

        cls = configured_with(cls, configs or {}, environ)
    if has_mutators(cls):
        from asyncflow.flow.mutators import apply_mutators

        apply_mutators(cls)
    return cls


@functools.lru_cache(_KEPT_GRAPHS)
def _is_plain(cls: type) -> bool:
    """Whether a flow has neither configurations nor mutators; to find out takes 30 µs."""
    return not (has_configs(cls) or has_mutators(cls))


@functools.lru_cache(_KEPT_GRAPHS)
def _read_graph(cls: type) -> Graph:
    steps = _steps_of(cls)
    _check_names(cls, steps)
    nodes = [_read_node(cls, step, steps) for step in steps.values()]
    check_shared(cls, nodes)
    return Graph(cls.__name__, nodes, flow_options_of(cls))


@dataclass(frozen=True, slots=True)
class _Step:
    """A step of a class, before its body is read."""

    name: str
    method: Any
    function: FunctionType
    """What the user wrote, under all decorators."""

    def error(self, message: str, line: int = 0) -> GraphError:
        code = self.function.__code__
        if code.co_name != self.name and "<locals>" in self.function.__qualname__:
            decorator = self.function.__qualname__.partition(".<locals>")[0]
            message += (
                f"; what was read is {code.co_name!r}, which the decorator {decorator!r} puts in "
                f"its place: give that @functools.wraps, so that the step itself is read"
            )
        return GraphError(
            f"step {self.name!r} {message}",
            step=self.name,
            file=shown_file(code.co_filename),
            line=line or code.co_firstlineno,
        )


def _steps_of(cls: type) -> dict[str, _Step]:
    """The steps by name, in the order of the source, base classes first."""
    methods: dict[str, Any] = {}
    for owner in written_classes(cls):
        for name, value in vars(owner).items():
            if is_step(value):
                methods[name] = value
            else:
                methods.pop(name, None)
    return {name: _Step(name, method, _innermost(name, method)) for name, method in methods.items()}


def _innermost(name: str, method: Any) -> FunctionType:
    """The function under the decorators, if they use `functools.wraps`."""
    function = inspect.unwrap(method)
    if isinstance(function, FunctionType):
        return function
    message = f"step {name!r} is {function!r}, but a step is a method written with `def`"
    if callable(function):
        kind = type(function).__name__
        message += f"; if {kind!r} is a decorator, have it call functools.update_wrapper"
    raise GraphError(message, step=name)


# --- names ------------------------------------------------------------------------------------


def _check_names(cls: type, steps: Mapping[str, _Step]) -> None:
    parameters_of(cls)
    _check_init(cls)
    for step in steps.values():
        if step.name.startswith("_"):
            raise step.error("has a name that begins with an underscore: rename it")
        replaced = _options(step.method).replaced_line
        if replaced:
            message = (
                f"has the name of something else in its class, first on line {replaced}: "
                f"rename one of them"
            )
            raise step.error(message)
        variable = (_options(step.method).options.get("catch") or {}).get("var")
        taken = {*RESERVED_NAMES, *steps, *shared_of(cls)}
        if variable is not None and (variable in taken or not _takes_values(cls, variable)):
            message = f"catches into self.{variable}, which means something else: rename `var`"
            raise step.error(message)
    for owner in written_classes(cls):
        for name, value in vars(owner).items():
            _check_attribute(owner, name, value, steps)


def _check_init(cls: type) -> None:
    init = cls.__init__  # type: ignore[misc]  # of the very class that is examined
    required = [
        each.name
        for each in [*inspect.signature(init).parameters.values()][1:]
        if each.default is each.empty and each.kind not in {each.VAR_POSITIONAL, each.VAR_KEYWORD}
    ]
    if required:
        message = (
            f"{cls.__name__!r} has an `__init__` that needs {', '.join(required)}, and each task "
            f"calls it without arguments: give them defaults, or make parameters of them"
        )
        raise _error_at(message, cls, "__init__", init)


def _takes_values(cls: type, name: str) -> bool:
    """Whether a step may assign this attribute; parameters and constants are read-only."""
    if is_constant(cls, name):
        return False
    found = inspect.getattr_static(cls, name, None)
    if isinstance(found, property):
        return found.fset is not None
    return not inspect.isdatadescriptor(found)


def _check_attribute(owner: type, name: str, value: object, steps: Mapping[str, _Step]) -> None:
    options = options_of(value)
    if name in RESERVED_NAMES:
        what = "a step" if is_step(value) else _kind(value)
        message = (
            f"{owner.__name__!r} has {what} {name!r}, a name that means something else in a flow"
        )
        raise _error_at(f"{message}: rename it", owner, name, value)
    if options is not None and not options.is_step and name not in steps:
        message = f"step {name!r} has decorators of a step, but not @step itself: add it"
        raise _error_at(message, owner, name, value)


def _error_at(message: str, owner: type, name: str, value: object) -> GraphError:
    code = getattr(value, "__code__", None)
    if code is not None:
        file, line = shown_file(code.co_filename), code.co_firstlineno
    else:
        try:
            file = shown_file(inspect.getsourcefile(owner) or "")
            line = inspect.getsourcelines(owner)[1]
        except (OSError, TypeError):  # typed at the prompt
            file, line = "", 0
    return GraphError(message, step=name if options_of(value) else "", file=file, line=line)


def _kind(value: object) -> str:
    if isinstance(value, Parameter):
        return "a parameter"
    return "a method" if isinstance(value, FunctionType) else "an attribute"


def _options(method: object) -> Any:
    return options_of(method)  # of a step, so never None


# --- steps ------------------------------------------------------------------------------------

_ASYNC: Final = inspect.CO_COROUTINE
_GENERATOR: Final = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def _read_node(cls: type, step: _Step, steps: Mapping[str, _Step]) -> Node:
    is_join = _takes_inputs(step)
    body = _read_body(step)
    _check_assigned(cls, step, body, steps)
    options = _options(step.method)
    is_only = len(steps) == 1 and not body.calls
    is_end = options.is_end or is_only
    transition = _transition(cls, step, body, is_end=is_end)
    for target in transition.steps:
        if target not in steps and hasattr(cls, target):
            message = f"leads to {target!r}, which is not a step: put @step on it"
            raise step.error(message, body.calls[0].line)
    is_async = _is_async(step.method)
    variables = {"environment", "secrets"} & options.options.keys()
    if is_async and variables and "isolate" not in options.options:
        message = (
            f"is `async def` and has @{min(variables)}, but its tasks run side by side in a "
            "process, and the variables belong to the process: put @isolate on it too, or write "
            "it as `def`"
        )
        raise step.error(message, body.line)
    for each in options.own:
        if not is_async and _is_async_decorator(each.kind):
            message = (
                f"is `def`, but its decorator {each.kind.__name__!r} is `async def`: write the "
                f"step as `async def` too, or the decorator without `async`"
            )
            raise step.error(message, body.line)
    return Node(
        name=step.name,
        next=transition.steps,
        foreach=transition.foreach,
        condition=transition.condition,
        cases=transition.cases,
        num_parallel=transition.num_parallel,
        is_join=is_join,
        is_async=is_async,
        is_start=options.is_start,
        is_end=is_end,
        line=body.line,
        file=shown_file(step.function.__code__.co_filename),
        doc=inspect.cleandoc(step.method.__doc__ or ""),
        shared=keyword_only(step.function),
        options=plain_options(options) | ({"arrivals": True} if body.reads_arrivals else {}),
    )


def _is_async_decorator(kind: Any) -> bool:
    return any(inspect.iscoroutinefunction(each) for each in (kind.pre_step, kind.post_step))


def _read_body(step: _Step) -> Body:
    body = read_source(step.function)
    if body is None:
        from asyncflow.flow.step_bytecode import from_bytecode

        body = from_bytecode(step.function.__code__)
    if body is None:
        message = (
            "has no source that can be found, and without it only self.next(self.STEP, …) and "
            'self.next(self.STEP, foreach="NAME") as its last statement can be read: '
            "save the flow in a file"
        )
        raise step.error(message)
    return body


def _takes_inputs(step: _Step) -> bool:
    code = step.function.__code__
    stars = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    if stars or code.co_argcount not in {1, 2}:
        message = (
            "has the wrong arguments: it takes `self` alone, or as a join `self, inputs`; "
            "what is shared comes after a `*`"
        )
        raise step.error(message)
    if code.co_flags & _GENERATOR:
        raise step.error("contains `yield`: a step keeps its results on `self`, and yields nothing")
    return code.co_argcount == 2  # noqa: PLR2004 - self and inputs


def _is_async(method: Any) -> bool:
    """Whether calling it gives a coroutine: it, or what it wraps, is `async def`."""
    while not (method.__code__.co_flags & _ASYNC if hasattr(method, "__code__") else False):
        if not hasattr(method, "__wrapped__"):
            return False
        method = method.__wrapped__
    return True


def _check_assigned(cls: type, step: _Step, body: Body, steps: Mapping[str, _Step]) -> None:
    for name, line in body.assigned.items():
        if isinstance(getattr(cls, name, None), Shared):
            message = f"assigns to self.{name}, which is shared by tasks: use another name"
            raise step.error(message, line)
        if name in RESERVED_NAMES:
            message = f"assigns to self.{name}, which means something else: use another name"
            raise step.error(message, line)
        # Its own name is the artifact within the task, and means the step again in later ones.
        if name in steps and name != step.name:
            message = f"assigns to self.{name}, which is a step: use another name"
            raise step.error(message, line)


# --- self.next --------------------------------------------------------------------------------


def _transition(cls: type, step: _Step, body: Body, *, is_end: bool) -> Transition:
    if step.name == END or is_end:
        if body.calls:
            message = "is the last one: remove its self.next(...)"
            raise step.error(message, body.calls[0].line)
        return Transition(())
    if not body.calls:
        message = "has no self.next(...): add self.next(self.NAME_OF_A_STEP) as its last statement"
        raise step.error(message, body.line)
    if len(body.calls) > 1:
        lines = ", ".join(str(call.line) for call in body.calls)
        message = (
            f"has more than one self.next(...) (lines {lines}): keep one, as its last statement; "
            f"it may name several steps"
        )
        raise step.error(message, body.calls[1].line)
    call = body.calls[0]
    transition = _read_transition(cls, step, call)
    if not call.is_last:
        message = (
            "has a self.next(...) that is not its last statement: put it at the end of the step, "
            "by itself and not within an if, a loop, a try or a with"
        )
        raise step.error(message, call.line)
    return transition


_KEYWORDS: Final = ("foreach", "condition", "num_parallel")


def _read_transition(cls: type, step: _Step, call: NextCall) -> Transition:
    for keyword in call.keywords:
        if keyword not in _KEYWORDS:
            from asyncflow._support.suggestions import did_you_mean  # loads `difflib`

            message = (
                f"has a self.next(...) that cannot be understood: {keyword!r} is not an argument "
                f"of it; it takes steps, and {', '.join(_KEYWORDS[:-1])} or {_KEYWORDS[-1]}"
                f"{did_you_mean(keyword, _KEYWORDS)}"
            )
            raise step.error(message, call.line)
    if "condition" in call.keywords or any(each.cases is not None for each in call.positional):
        return _conditional(cls, step, call)
    if "num_parallel" in call.keywords:
        return _gang(step, call)
    return Transition(_targets(step, call), _artifact_name(step, call, "foreach"))


def _gang(step: _Step, call: NextCall) -> Transition:
    """What a `self.next(self.STEP, num_parallel=...)` says; the number is known at run time."""
    given = call.keywords["num_parallel"]
    is_number = isinstance(given.constant, int) and not isinstance(given.constant, bool)
    is_constant = given.constant is not None or given.text == "None"
    if len(call.positional) != 1 or "foreach" in call.keywords:
        message = (
            "has a self.next(...) that cannot be understood: a gang is written "
            "self.next(self.STEP, num_parallel=NUMBER), with one step and nothing else"
        )
        raise step.error(message, call.line)
    if is_constant and not (is_number and cast("int", given.constant) > 0):
        message = f"has num_parallel={given.text}: a gang has a number of tasks, one or more"
        raise step.error(message, call.line)
    return Transition(_targets(step, call), num_parallel=given.text)


def _conditional(cls: type, step: _Step, call: NextCall) -> Transition:
    """What a `self.next({...}, condition="...")` says."""
    form = 'self.next({"one": self.A, "other": self.B}, condition="NAME_OF_AN_ARTIFACT")'
    condition = _artifact_name(step, call, "condition")
    given = [each.cases for each in call.positional]
    others = [name for name in ("foreach", "num_parallel") if name in call.keywords]
    if others:
        message = (
            f"has a self.next(...) with a condition and {others[0]}: leave {others[0]} out, and "
            "let a step that a case leads to fan out"
        )
        raise step.error(message, call.line)
    if condition is None or len(given) != 1 or given[0] is None:
        message = f"has a self.next(...) that cannot be understood: a condition is written {form}"
        raise step.error(message, call.line)
    if not given[0]:
        message = f"has a condition without cases; write them as a dict, as in {form}"
        raise step.error(message, call.line)
    cases: list[tuple[Case, str]] = []
    for key, value in given[0]:
        case = _config_case(cls, step, call, key) if key.path else key.constant
        if (key.text != "None" or key.path) and not isinstance(case, str | int | float):
            message = (
                f"has a self.next(...) that cannot be understood: {key.text} is not a case; write "
                f"a text, a number, True, False, None, or a value of a config, as self.settings.key"
            )
            raise step.error(message, call.line)
        if case in dict(cases):
            raise step.error(f"names the case {key.text} twice in self.next(...)", call.line)
        cases.append((cast("Case", case), _target(step, call, value)))
    steps = tuple(dict.fromkeys(target for _, target in cases))
    return Transition(steps, None, condition, tuple(cases))


def _config_case(cls: type, step: _Step, call: NextCall, key: Argument) -> object:
    """The value of a case that is written as one of a configuration."""
    name, *keys = key.path
    value = getattr(cls, CONFIG_VALUES, {}).get(name)
    try:
        for each in keys:
            value = getattr(value, each)
    except AttributeError as error:
        raise step.error(
            f"has the case {key.text}, which has no value: {error}", call.line
        ) from None
    return value


def _targets(step: _Step, call: NextCall) -> tuple[str, ...]:
    if not call.positional:
        message = "has a self.next(...) that names no step: write self.next(self.NAME_OF_A_STEP)"
        raise step.error(message, call.line)
    return tuple(_target(step, call, argument) for argument in call.positional)


def _target(step: _Step, call: NextCall, argument: Argument) -> str:
    if argument.step is not None:
        return argument.step
    name = argument.constant
    example = f"self.{name}" if isinstance(name, str) and name.isidentifier() else "self.STEP"
    message = (
        f"has a self.next(...) that cannot be understood: {argument.text} is not the name of a "
        f"step; write self.next({example})"
    )
    raise step.error(message, call.line)


def _artifact_name(step: _Step, call: NextCall, keyword: str) -> str | None:
    """The artifact that an argument of `self.next` names; None if there is no such argument."""
    given = call.keywords.get(keyword)
    if given is None:
        return None
    if isinstance(given.constant, str) and given.constant.isidentifier():
        return given.constant
    message = (
        f"has a self.next(...) that cannot be understood: {keyword} is {given.text}; write the "
        f'name of an artifact there, as in {keyword}="items" for self.items'
    )
    raise step.error(message, call.line)
