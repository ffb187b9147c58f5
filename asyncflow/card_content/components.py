"""Components of text and numbers."""

from __future__ import annotations

import inspect
import json
import re
import reprlib
import textwrap
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.safe_text import class_name
from asyncflow._support.tracebacks import describe_exception
from asyncflow.card_content.component import (
    CardComponent,
    Images,
    Part,
    error_part,
    optional,
    plain_number,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_REPR_BYTES: Final = 64 << 10
_LABEL_BYTES: Final = 1 << 10
_LIST_ITEM: Final = re.compile(r"[-*+] |\d+[.)] ")

_short_repr: Final = reprlib.Repr()
_short_repr.maxlevel = 5
_short_repr.maxdict = _short_repr.maxlist = _short_repr.maxtuple = _short_repr.maxset = 100
_short_repr.maxfrozenset = _short_repr.maxdeque = _short_repr.maxarray = 100
_short_repr.maxstring = _short_repr.maxother = _short_repr.maxlong = 2000


class Markdown(CardComponent):
    """Text in Markdown. HTML within it is shown as text.

    Args:
        text: The text. White space that all lines begin with is removed, or all but the first.
    """

    def __init__(self, text: str | None = None) -> None:
        self._text = text

    def update(self, text: str | None = None) -> None:
        """Replace the text."""
        self._text = text

    def _part(self, images: Images, depth: int) -> Part:  # noqa: ARG002 - the signature is the base class's
        return {"kind": "markdown", "text": _dedented(text(self._text or ""))}


def _dedented(given: str) -> str:
    """The text without the white space that it has only because it stands within indented code."""
    first, line_end, rest = given.partition("\n")
    if first and not first[0].isspace() and not _LIST_ITEM.match(first):
        plain = textwrap.dedent(rest)
        indented = next((line for line in rest.splitlines() if line.strip()), "")
        if rest != plain and indented.startswith("    "):
            return first + line_end + plain
    return textwrap.dedent(given)


class Artifact(CardComponent):
    """Any Python value, as its `repr` shows it.

    Args:
        artifact: The value. It is shown as it is when the card is, not when this is made.
        name: A label.
        compressed: Whether to leave out what is long, as `reprlib` does.
    """

    def __init__(self, artifact: Any, name: str | None = None, compressed: bool = True) -> None:  # noqa: FBT001, FBT002 - Metaflow's signature
        self._artifact, self._name, self._compressed = artifact, name, compressed

    def update(self, artifact: Any) -> None:
        """Replace the value."""
        self._artifact = artifact

    def _part(self, images: Images, depth: int) -> Part:  # noqa: ARG002 - the signature is the base class's
        shown = _short_repr.repr(self._artifact) if self._compressed else repr(self._artifact)
        return {
            "kind": "artifact",
            "name": optional(self._name),
            "type": class_name(type(self._artifact)),
            "text": text(shown, _REPR_BYTES),
        }


class Error(CardComponent):
    """An exception, with its traceback.

    Args:
        exception: The exception, or text about what went wrong.
        title: What stands above it.
    """

    def __init__(self, exception: object, title: str | None = None) -> None:
        self._exception, self._title = exception, title

    def _part(self, images: Images, depth: int) -> Part:  # noqa: ARG002 - the signature is the base class's
        if not isinstance(self._exception, BaseException):
            return error_part(optional(self._title) or "Error", text(self._exception))
        described = describe_exception(self._exception)
        message = f"{described.type}: {described.message}"
        return error_part(optional(self._title) or described.type, message, described.traceback)


class ProgressBar(CardComponent):
    """How far something is.

    Args:
        max: The value at which it is done.
        label: What it is about.
        value: How far it is.
        unit: What is counted.
        metadata: What else is to be said, such as the speed.
    """

    def __init__(
        self,
        max: float = 100,  # noqa: A002 - Metaflow's
        label: str | None = None,
        value: float = 0,
        unit: str | None = None,
        metadata: str | None = None,
    ) -> None:
        self._max, self._label, self._value = max, label, value
        self._unit, self._metadata = unit, metadata

    def update(self, new_value: float, metadata: str | None = None) -> None:
        """Set how far it is."""
        self._value = new_value
        if metadata is not None:
            self._metadata = metadata

    def _part(self, images: Images, depth: int) -> Part:  # noqa: ARG002 - the signature is the base class's
        return {
            "kind": "progress",
            "max": plain_number(self._max),
            "value": plain_number(self._value),
            "label": optional(self._label),
            "unit": optional(self._unit),
            "details": optional(self._metadata),
        }


class ValueBox(CardComponent):
    """One number, or a short text, in large letters.

    Args:
        title: What stands above it.
        value: The number or the text.
        subtitle: What stands below the title.
        theme: `default`, `success`, `warning`, `danger` or `bg-gradient-indigo-purple`.
        change_indicator: What it is compared with, such as "up 3% since yesterday".
    """

    def __init__(
        self,
        title: str | None = None,
        value: str | float = "",
        subtitle: str | None = None,
        theme: str | None = None,
        change_indicator: str | None = None,
    ) -> None:
        self._shown: dict[str, Any] = {}
        self.update(title, value, subtitle, theme, change_indicator)

    def update(
        self,
        title: str | None = None,
        value: str | float | None = None,
        subtitle: str | None = None,
        theme: str | None = None,
        change_indicator: str | None = None,
    ) -> None:
        """Replace what is given; the rest stays."""
        given = {
            "title": title,
            "value": value,
            "subtitle": subtitle,
            "theme": theme,
            "change": change_indicator,
        }
        self._shown.update({name: each for name, each in given.items() if each is not None})

    def _part(self, images: Images, depth: int) -> Part:  # noqa: ARG002 - the signature is the base class's
        labels = {name: optional(each) for name, each in self._shown.items()}
        value = self._shown.get("value", "")
        shown = text(value, _LABEL_BYTES) if isinstance(value, str) else plain_number(value)
        return {"kind": "value", **labels, "value": shown}


class PythonCode(CardComponent):
    """Code in Python.

    Args:
        code_func: A function, whose source is shown.
        code_string: The code itself.
    """

    def __init__(
        self, code_func: Callable[..., Any] | None = None, code_string: str | None = None
    ) -> None:
        self._code_func, self._code_string = code_func, code_string

    def _part(self, images: Images, depth: int) -> Part:  # noqa: ARG002 - the signature is the base class's
        code = self._code_string
        if self._code_func is not None:
            code = inspect.getsource(self._code_func)
        if code is None:
            return error_part("PythonCode takes a function or code_string=...")
        return {"kind": "code", "text": textwrap.dedent(text(code)).strip("\n")}


class JSONViewer(CardComponent):
    """Data as JSON, in parts that can be folded.

    Args:
        data: What JSON can express, or text that is JSON; of anything else its text is shown.
        collapsible: Whether its parts can be folded.
        max_height: How high it may be before it scrolls, such as `"300px"`.
        show_copy_button: Whether there is a button that copies it.
        title: What stands above it.
    """

    _kind = "json"

    def __init__(
        self,
        data: Any,
        collapsible: bool = True,  # noqa: FBT001, FBT002 - Metaflow's signature
        max_height: str | None = None,
        show_copy_button: bool = True,  # noqa: FBT001, FBT002 - Metaflow's signature
        title: str | None = None,
    ) -> None:
        self._data, self._collapsible, self._max_height = data, collapsible, max_height
        self._show_copy_button, self._title = show_copy_button, title

    def update(self, data: Any) -> None:
        """Replace the data."""
        self._data = data

    def _part(self, images: Images, depth: int) -> Part:  # noqa: ARG002 - the signature is the base class's
        return {
            "kind": self._kind,
            "text": text(self._shown()),
            "title": optional(self._title),
            "folds": bool(self._collapsible),
            "height": optional(self._max_height),
            "copies": bool(self._show_copy_button),
        }

    def _shown(self) -> str:
        return json.dumps(self._plain(), indent=2, ensure_ascii=False, default=str)

    def _plain(self) -> Any:
        if isinstance(self._data, str):
            try:
                return json.loads(self._data)
            except ValueError:
                pass
        return self._data


class YAMLViewer(JSONViewer):
    """Data as YAML, if PyYAML is installed; else as JSON. Its arguments are those of JSONViewer."""

    _kind = "yaml"

    def _shown(self) -> str:
        try:
            yaml = import_module("yaml")
        except ImportError:
            return super()._shown()
        plain = json.loads(super()._shown())  # so that no code of its classes is in the text
        dumped: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
        return dumped
