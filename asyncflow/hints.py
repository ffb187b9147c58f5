"""What an error tells to do, written so that it works when it is pasted."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncflow.errors import AsyncflowError, SettingsError
from asyncflow.events import RunStarted, unpack_events
from asyncflow.settings import Settings
from asyncflow.store.journal import HEADER, JournalReader

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNREADABLE = (AsyncflowError, OSError, ValueError, TypeError, LookupError, AttributeError)


def resume_command(pathspec: str, journal: Path) -> str:
    """The command that goes on with a run; its journal is `STORE/flows/NAME/RUN/journal`.

    Its file is FILE where the journal does not tell it, or it is there no more. For a flow that has
    no file, such as one of a notebook, it is the line of Python.
    """
    flow, _, run_id = pathspec.partition("/")
    source = _source_of(journal)
    if source.get("kind") == "pickle":
        return f'await engine.resume({flow}, origin="{run_id}")'
    words = ["asyncflow", "resume", f"{_file_of(source)}:{flow}", "--origin-run-id", run_id]
    return shlex.join([*words, *_store_option(journal.parents[3])])


def logs_command(pathspec: str, journal: Path) -> str:
    """The command that shows what a task of that run has printed, or the run."""
    return shlex.join(["asyncflow", "logs", pathspec, *_store_option(journal.parents[3])])


def _source_of(journal: Path) -> Mapping[str, Any]:
    """Where the run's flow came from; nothing where the journal does not tell."""
    with suppress(*_UNREADABLE), JournalReader(journal) as reader:
        for event in unpack_events(reader.read_one(len(HEADER)), "", ""):
            if isinstance(event, RunStarted) and isinstance(event.source, dict):
                return event.source
    return {}


def _file_of(source: Mapping[str, Any]) -> str:
    with suppress(*_UNREADABLE):
        path = Path(source.get("file") or "FILE")
        if path.is_file():
            here = Path.cwd()
            return str(path.relative_to(here) if path.is_relative_to(here) else path)
    return "FILE"


def _store_option(store: Path) -> list[str]:
    """`--store DIR`, where the command would look into another store without it."""
    with suppress(SettingsError, OSError):
        if Settings.read().store.absolute() == store:
            return []
    return ["--store", str(store)]
