"""What a shell is told when the user presses TAB: files, and what is in the store.

click asks while it completes a command line; see https://click.palletsprojects.com, Shell
Completion. An error is no completion: what the user has typed so far may not make sense yet.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Final

from asyncflow.errors import AsyncflowError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import click
    from click.shell_completion import CompletionItem

    from asyncflow.store.interface import RunStore

_SHOWN: Final = 100
"""The most completions of one kind: more cannot be read."""
_LOOKED_AT: Final = 10_000
"""The most runs or tasks that are looked at; whoever has more types a digit more."""
_HARMLESS: Final = re.compile(r"[\w.-]+")
"""Names that no shell takes for anything else; click's scripts do not quote them."""
_RUN, _STEP, _TASK = 2, 3, 4


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:  # noqa: ARG001 - click's
    """Leave it to the shell, which knows the files."""
    from click.shell_completion import CompletionItem  # what most commands do not need

    return [CompletionItem(incomplete, type="file")]


def pathspecs(parts: int) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Complete pathspecs of up to so many parts: 1 a flow, 2 a run, 5 an artifact."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's
        try:
            return _completions(incomplete, parts, ctx.params.get("store"))
        except (AsyncflowError, OSError, ValueError):
            return []

    return complete


def _completions(text: str, parts: int, location: Path | str | None) -> list[str]:
    """Whatever goes on is followed by `/`. If it is the only one, what is in it comes at once.

    A shell puts a space behind the only completion, but not behind what several have in common.
    """
    from asyncflow._support.settings import Settings
    from asyncflow.store import open_store

    store = open_store(Settings.read(store=location).store)
    found = _next_part(store, text, parts)
    while len(found) == 1 and found[0].endswith("/"):
        within = _next_part(store, found[0], parts)
        if not within:
            break
        found = within
    return found


def _next_part(store: RunStore, text: str, parts: int) -> list[str]:
    head, slash, begun = text.rpartition("/")
    fits = (
        f"{head}{slash}{name}{'/' if level < parts else ''}"
        for name, level in islice(_names(store, head, begun), _LOOKED_AT)
        if name.startswith(begun) and level <= parts and _HARMLESS.fullmatch(name)
    )
    return list(islice(fits, _SHOWN))


def _names(store: RunStore, head: str, begun: str) -> Iterable[tuple[str, int]]:
    """What may stand behind `head`, and as which part of a pathspec it counts."""
    from asyncflow import client
    from asyncflow.client.run_names import LATEST, whole_name

    if not head:
        flows = store.flows()
        yield from ((flow, 1) for flow in flows)
        yield LATEST, _RUN
        if begun.isdecimal():
            yield from ((run, _RUN) for flow in flows for run in store.runs(flow))
        return
    whole = whole_name(store, head)
    level = whole.count("/") + 2
    if level == _RUN:
        yield from ((run, level) for run in store.runs(whole))
        yield LATEST, level
    elif level == _STEP:
        yield from ((step.id, level) for step in client.Run(whole, store=store.location))
    elif level == _TASK:
        yield from ((task.id, level) for task in client.Step(whole, store=store.location))
    else:
        yield from ((each.id, level) for each in client.Task(whole, store=store.location))
