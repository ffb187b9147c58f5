"""Commands that an error tells of, written so that they work when they are pasted."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path

from asyncflow.errors import AsyncflowError, SettingsError
from asyncflow.events import RunStarted, unpack_events
from asyncflow.settings import Settings
from asyncflow.store.journal import HEADER, JournalReader

_UNREADABLE = (AsyncflowError, OSError, ValueError, TypeError, LookupError, AttributeError)


def resume_command(pathspec: str, journal: Path) -> str:
    """The command that goes on with a run; its journal is `STORE/flows/NAME/RUN/journal`.

    Its file is FILE where the journal does not tell it, or it is there no more.
    """
    flow, _, run_id = pathspec.partition("/")
    words = ["asyncflow", "resume", f"{_file_of(journal)}:{flow}", "--origin-run-id", run_id]
    return shlex.join([*words, *_store_option(journal.parents[3])])


def logs_command(pathspec: str, journal: Path) -> str:
    """The command that shows what a task of that run has printed, or the run."""
    return shlex.join(["asyncflow", "logs", pathspec, *_store_option(journal.parents[3])])


def _file_of(journal: Path) -> str:
    with suppress(*_UNREADABLE), JournalReader(journal) as reader:
        for event in unpack_events(reader.read_one(len(HEADER)), "", ""):
            file = event.source.get("file") if isinstance(event, RunStarted) else None
            if file and Path(file).is_file():
                here = Path.cwd()
                path = Path(file)
                return str(path.relative_to(here) if path.is_relative_to(here) else path)
    return "FILE"


def _store_option(store: Path) -> list[str]:
    """`--store DIR`, where the command would look into another store without it."""
    with suppress(SettingsError, OSError):
        if Settings.read().store.absolute() == store:
            return []
    return ["--store", str(store)]
