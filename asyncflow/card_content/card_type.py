"""Types of cards of one's own.

A type is a subclass of `CardType`. It is found by its `type`: in the module of the flow, among the
classes that were imported, and among the entry points `asyncflow.cards` of installed packages.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from asyncflow.card_content.options import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncflow.card_content.component import CardComponent

ENTRY_POINTS: Final = "asyncflow.cards"
"""The group of entry points by which packages offer types of cards."""

_known: Final[dict[str, type[CardType]]] = {}


class CardType:
    """A type of cards of your own: subclass it, name it by `type`, and write `render`.

    The card is made when the step has ended, in the worker, and stored. So whoever looks at it
    later runs none of this.

    Args:
        options: The `options` of the `@card`.
        components: What the step has added, if `ALLOW_USER_COMPONENTS` is true.
        graph: The graph of the flow, as Metaflow describes it.
        flow: The flow.
    """

    type: ClassVar[str] = ""
    """The name by which `@card(type=…)` finds it."""
    ALLOW_USER_COMPONENTS: ClassVar[bool] = False
    """Whether the step may add components to such a card."""
    RUNTIME_UPDATABLE: ClassVar[bool] = False
    """Whether `render_runtime` makes the card while the step runs, after each `refresh`."""
    RELOAD_POLICY_NEVER = "never"
    RELOAD_POLICY_ALWAYS = "always"
    RELOAD_POLICY_ONCHANGE = "onchange"
    RELOAD_POLICY: ClassVar[str] = "never"
    """Metaflow's; without effect: a page draws a card anew when it changes."""
    scope: ClassVar[str] = "task"
    """Metaflow's; without effect."""

    def __init__(
        self,
        options: dict[str, Any] | None = None,
        components: Iterable[CardComponent] = (),
        graph: dict[str, Any] | None = None,
        flow: Any = None,
        **_: Any,
    ) -> None:
        self.options = options or {}
        self.components = list(components)
        self.graph, self.flow = graph, flow

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        name = cls.__dict__.get("type")
        if isinstance(name, str) and name:
            _known[name] = cls

    def render(self, task: Any) -> Any:
        """What is on the card: HTML as text, a component, or a list of components.

        `task` is the client's `Task`; its `data` has what the step has set.
        """
        message = f"the card type {self.type!r} has no render(task)"
        raise NotImplementedError(message)

    def render_runtime(self, task: Any, data: Any) -> Any:
        """The same while the step runs, with what was given to `refresh`."""
        del data
        return self.render(task)


MetaflowCard = CardType
"""Metaflow's name for it."""


def find_type(name: str, flow: type | None = None) -> type[CardType] | None:
    """The type of this name; None for one that comes with asyncflow, and if there is none.

    Raises:
        Exception: Whatever the import of a package raises that offers it.
    """
    if name in BUILT_IN:
        return None
    module = sys.modules.get(getattr(flow, "__module__", ""))
    for value in list(vars(module).values()) if module is not None else ():
        if isinstance(value, type) and issubclass(value, CardType) and value.type == name:
            return value
    return _known.get(name) or _offered(name)


def _offered(name: str) -> type[CardType] | None:
    """The type that an installed package offers: the name of the entry point, or the class's."""
    found = list(entry_points(group=ENTRY_POINTS))
    for point in sorted(found, key=lambda each: each.name != name):  # that of the name first
        kind = point.load()
        is_type = isinstance(kind, type) and issubclass(kind, CardType)
        if is_type and name in {point.name, kind.type}:
            return cast("type[CardType]", kind)
    return None
