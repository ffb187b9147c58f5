"""`current.card`: what a step adds to its cards.

`CardCollector` has the cards of a task. Which of them `current.card.append` means follows from
Metaflow's rules; another one is `current.card["id"]`. Nothing here raises because of a card: what
is wrong is printed to the task's log, as Metaflow does.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.safe_text import class_name
from asyncflow.card_content.component import CardComponent, error_part, part_of, warn
from asyncflow.card_content.components import Error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, ValuesView

    from asyncflow.card_content.component import Images, Part
    from asyncflow.card_content.options import CardOptions

MOST_COMPONENTS: Final = 1_000
"""The most components of a card."""
_SHOWN_COMPONENTS: Final = (CardComponent,)


class _Missing(CardComponent):
    """Stands where there is no component of an id: its `update` says so, and it is not shown."""

    def __init__(self, name: str) -> None:
        self._name = name

    def update(self, *_: Any, **__: Any) -> None:
        warn(f"the card has no component {self._name!r} to update")


class CardComponents:
    """The components of one card, in order; those with an id also by that."""

    def __init__(self) -> None:
        self._by_id: dict[str, CardComponent] = {}
        self._left_out = 0
        self._numbers = 0
        self.changed_at = time.time()
        """When a component was last added or removed."""

    def append(self, component: object, id: str | None = None) -> None:  # noqa: A002 - Metaflow's
        """Add a component at the end."""
        if len(self._by_id) >= MOST_COMPONENTS and str(id) not in self._by_id:
            if not self._left_out:
                warn(f"a card has at most {MOST_COMPONENTS} components: the others are left out")
            self._left_out += 1
            return
        if not isinstance(component, _SHOWN_COMPONENTS):
            warn(f"{class_name(type(component))} is no component: use one of asyncflow.cards")
            component = _Unknown(component)
        self._numbers += 1
        key = str(id) if id is not None else component.component_id
        key = key or f"{type(component).__name__.lower()}_{self._numbers}"
        component.component_id = key
        self._by_id[key] = component
        self.changed_at = time.time()

    def extend(self, components: Iterable[object]) -> None:
        """Add several components at the end."""
        try:
            for component in components:
                self.append(component)
        except Exception as error:  # noqa: BLE001 - whatever the iterable does: it is shown
            self.append(Error(error, "The components that were to be added"))

    def clear(self) -> None:
        """Remove all of them."""
        self._by_id.clear()
        self._left_out = 0
        self.changed_at = time.time()

    def keys(self) -> list[str]:
        """The ids, also those that were given to components without one."""
        return list(self._by_id)

    def values(self) -> ValuesView[CardComponent]:
        """The components."""
        return self._by_id.values()

    def __getitem__(self, key: str) -> CardComponent:
        found = self._by_id.get(key)
        if found is None:
            found = self._by_id[key] = _Missing(key)
        return found

    def __setitem__(self, key: str, component: object) -> None:
        self.append(component, id=key)

    def __delitem__(self, key: str) -> None:
        if self._by_id.pop(key, None) is None:
            warn(f"the card has no component {key!r} to delete")
        self.changed_at = time.time()

    def __contains__(self, key: object) -> bool:
        return key in self._by_id

    def __iter__(self) -> Iterator[CardComponent]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def parts(self, images: Images) -> list[Part]:
        """The components as plain data."""
        shown = (component for component in self if not isinstance(component, _Missing))
        parts = [part_of(component, images) for component in shown]
        if self._left_out:
            parts.append(error_part(f"{self._left_out} more components are left out"))
        return parts

    def __repr__(self) -> str:
        return f"<CardComponents {', '.join(self._by_id) or 'none'}>"


class _Unknown(CardComponent):
    """Something that was added and is no component."""

    def __init__(self, value: object) -> None:
        self._value = value

    def _part(self, images: Images, depth: int) -> Part:  # noqa: ARG002 - the signature is the base class's
        return error_part(
            f"{class_name(type(self._value))} is no component",
            "Use one of asyncflow.cards: Markdown(...) for text, Artifact(...) for any value.",
        )


class CardManager:
    """One card of the running task: `current.card["id"]`."""

    def __init__(self, options: CardOptions, publish: Callable[[], object]) -> None:
        self.options = options
        """The arguments of its `@card`."""
        self._publish = publish
        self._components = CardComponents()
        self.data: Any = None
        """What was given to `refresh` last."""
        self.warning: str = ""
        """What is shown above the components, as the step has used a card that is not there."""

    @property
    def components(self) -> CardComponents:
        """Its components; by id, they can be replaced and updated."""
        return self._components

    def append(self, component: object, id: str | None = None) -> None:  # noqa: A002 - Metaflow's
        """Add a component at the end; by its id it is found in `components`."""
        self._components.append(component, id)

    def extend(self, components: Iterable[object]) -> None:
        """Add several components at the end."""
        self._components.extend(components)

    def clear(self) -> None:
        """Remove all components."""
        self._components.clear()

    def refresh(self, data: Any = None, force: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - Metaflow's
        """Show the card as it is now to whoever looks at it while the step runs.

        Called more often than the card's `refresh_interval`, it shows the last state in time.

        Args:
            data: For a type of card of your own: passed to its `render_runtime`.
            force: Metaflow's; without effect.
        """
        self.data = data
        self._publish()

    def replace(self, components: Iterable[object]) -> None:
        """Have these components, and no others."""
        self.clear()
        self.extend(components)

    def __iter__(self) -> Iterator[CardComponent]:
        return iter(self._components)

    def __len__(self) -> int:
        return len(self._components)

    def __repr__(self) -> str:
        return f"<CardManager {self.options.label}: {len(self)} components>"


class CardCollector:
    """The cards of the running task: `current.card`.

    Its methods work on the only card that can be added to; among several, on the one without an
    id, or on the one with `customize=True`. The others are found by their ids.
    """

    def __init__(self, options: Iterable[CardOptions], publish: Callable[[], object]) -> None:
        self.cards = [CardManager(each, publish) for each in options]
        """All cards of the step, in the order of its decorators."""
        self._by_id = self._found_by_id()
        self._default = self._find_default()
        self._warned: set[str] = set()

    def _found_by_id(self) -> dict[str, CardManager]:
        found: dict[str, CardManager] = {}
        twice: set[str] = set()
        for card in self.cards:
            name = card.options.id
            if name is not None:
                if name in found:
                    twice.add(name)
                found[name] = card
        for name in sorted(twice):
            warn(f"several @card have the id {name!r}: current.card[{name!r}] finds none of them")
            del found[name]
        return found

    def _find_default(self) -> CardManager | None:
        editable = [card for card in self.cards if card.options.is_editable]
        if len(editable) == 1:
            return editable[0]
        chosen = [card for card in editable if card.options.customize]
        if len(chosen) == 1:
            return chosen[0]
        if chosen:
            warn("several @card have customize=True: it is as if none had it")
        unnamed = [card for card in editable if card.options.id is None]
        return unnamed[0] if len(unnamed) == 1 else None

    def __getitem__(self, name: str) -> CardManager:
        found = self._by_id.get(name)
        if found is not None:
            return found
        known = ", ".join(map(repr, self._by_id)) or "none"
        self._warn_once(
            name,
            f"current.card[{name!r}]: no @card of this step has this id; there are {known}. "
            "What is added to it is not shown.",
        )
        return self._no_card()

    def __setitem__(self, name: str, components: Iterable[object]) -> None:
        found = self._by_id.get(name)
        if found is not None:
            found.replace(components)
        else:
            self[name]  # warns

    def _no_card(self) -> CardManager:
        """A card that nobody sees."""
        return CardManager(self.cards[0].options, int)

    def _warn_once(self, name: str, message: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            warn(message)
            for card in self.cards:
                card.warning = "\n".join(filter(None, (card.warning, message)))

    def _card(self, method: str) -> CardManager | None:
        if self._default is not None:
            return self._default
        if len(self.cards) == 1:
            kind = self.cards[0].options.type
            message = f"current.card.{method}: nothing can be added to a card of type {kind!r}"
        else:
            message = (
                f"current.card.{method} does not know which of {len(self.cards)} cards is meant: "
                'give each @card an id, and use current.card["id"]'
            )
        self._warn_once("", message)
        return None

    def append(self, component: object, id: str | None = None) -> None:  # noqa: A002 - Metaflow's
        """Add a component at the end; by its id it is found in `components`."""
        card = self._card("append")
        if card is not None:
            card.append(component, id)

    def extend(self, components: Iterable[object]) -> None:
        """Add several components at the end."""
        card = self._card("extend")
        if card is not None:
            card.extend(components)

    def clear(self) -> None:
        """Remove all components."""
        if self._default is not None:
            self._default.clear()

    def refresh(self, data: Any = None, force: bool = False) -> None:  # noqa: FBT001, FBT002 - Metaflow's
        """Show the card as it is now to whoever looks at it."""
        if self._default is not None:
            self._default.refresh(data, force)

    @property
    def components(self) -> CardComponents:
        """The components of the card; those of none that is shown if it is not clear which."""
        return (self._card("components") or self._no_card()).components

    def get(self, type: str | None = None) -> list[CardManager]:  # noqa: A002 - Metaflow's
        """The cards of this type."""
        return [card for card in self.cards if card.options.type == type]

    def __iter__(self) -> Iterator[CardComponent]:
        return iter(self._default or ())

    def __len__(self) -> int:
        return len(self._default or ())

    def __repr__(self) -> str:
        return f"<CardCollector {', '.join(card.options.label for card in self.cards)}>"
