"""The arguments of a `@card`, as the graph of a run has them.

A graph may be of an earlier version, which recorded whatever was given, or damaged: what makes no
sense there reads as if it had not been given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncflow._quick_classes import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT, BLANK, HTML = "default", "blank", "html"
EDITABLE: Final = frozenset({DEFAULT, BLANK})
"""The types that come with asyncflow and that a step may add components to."""
BUILT_IN: Final = frozenset({DEFAULT, BLANK, HTML})
TIMEOUT_SECONDS: Final = 45.0
REFRESH_SECONDS: Final = 0.1
"""How often a card is shown anew at most, if its decorator says nothing."""
MOST_CARDS: Final = 50
"""The most cards of a step that are kept."""
ID_CHARACTERS: Final = 100
"""The longest id, and the longest name of a type."""


class CardOptions(NamedTuple):
    """The arguments of one `@card`."""

    number: int
    """Which of the step's cards it is, from 0, in the order in which the decorators stand."""
    type: str
    id: str | None
    options: Mapping[str, Any]
    timeout: float
    save_errors: bool
    customize: bool
    refresh_interval: float
    is_editable: bool
    """Whether the step may add components to it."""
    name: str = ""
    """Names it among the step's cards: its id, or its type, with a number if that is not alone."""

    @property
    def label(self) -> str:
        """The type, and the id if it has one."""
        return self.type if self.id is None else f"{self.type} {self.id}"


def card_options(recorded: object) -> list[CardOptions]:
    """The cards of a step whose graph has this for `card`, in the order of the decorators."""
    if not isinstance(recorded, list):
        return []
    given = [each if isinstance(each, dict) else {} for each in reversed(recorded)][:MOST_CARDS]
    cards: list[CardOptions] = []
    names: set[str] = set()
    for number, each in enumerate(given):
        card = _options(number, each)
        wanted = card.id or card.type
        numbered = (f"{wanted}-{count}" for count in range(2, MOST_CARDS + 2))
        name = next(name for name in (wanted, *numbered) if name not in names)
        names.add(name)
        cards.append(card._replace(name=name))
    return cards


def _options(number: int, given: dict[str, Any]) -> CardOptions:
    kind, name, options = given.get("type"), given.get("id"), given.get("options")
    kind = kind[:ID_CHARACTERS] if isinstance(kind, str) and kind else DEFAULT
    return CardOptions(
        number,
        kind,
        name[:ID_CHARACTERS] if isinstance(name, str) and name else None,
        options if isinstance(options, dict) else {},
        _seconds(given.get("timeout"), TIMEOUT_SECONDS),
        _is_true(given.get("save_errors", True)),
        _is_true(given.get("customize", False)),
        _seconds(given.get("refresh_interval"), REFRESH_SECONDS),
        _is_true(given.get("editable", kind in EDITABLE)),
    )


def _seconds(given: object, default: float) -> float:
    try:
        seconds = float(given)  # type: ignore[arg-type] # what is no number raises
    except (TypeError, ValueError):
        return default
    return seconds if 0 <= seconds < float("inf") else default


def _is_true(given: object) -> bool:
    """Whether it is true; on a command line it is text."""
    return given is True or str(given).lower() == "true"
