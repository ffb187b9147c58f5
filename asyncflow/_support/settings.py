"""One frozen `Settings`, read once.

A setting comes from an argument, else from `ASYNCFLOW_*`, else from `[tool.asyncflow]` of
`pyproject.toml`, else from its default.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from asyncflow._quick_classes import dataclass
from asyncflow._support.locations import absolute_location, store_location
from asyncflow._support.machine import memory_megabytes, usable_cpus
from asyncflow.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of an engine and of a client."""

    store: Path | str = Path(".asyncflow")
    """Where runs, journals and artifacts live: a folder, or the URL of an object store as text."""
    workers: int = 0
    """The most worker processes; 0 for one per CPU that this process may use."""
    grace_seconds: float = 5.0
    """The time between SIGTERM and SIGKILL for a running step when its run is cancelled."""
    on_failure: str = "cancel"
    """What a task's failure does to the run's other running tasks: `cancel` them, or let them
    `finish`."""
    blocked_seconds: float = 1.0
    """How long an async step may block its worker's event loop before a warning; 0 for no
    warning."""
    import_seconds: float = 600.0
    """How long a worker may import a flow before a task that waits for it fails; 0 for no limit."""
    event_buffer: int = 10_000
    """How many events wait for a slow subscriber before it reads on from the journal."""
    sync_seconds: float = 1.0
    """How long, at most, a journal's events wait before they are synced in the background."""
    durability: str = "crash"
    """What announced events survive: a `crash` of every process, or a cut of the `power` too."""
    keep_code: str = "all"
    """What is kept of a flow's source with each run: `all` files of its folder that it imports, the
    `flow`'s own file, or `none`."""

    datatools_s3root: str = ""
    """Where `S3(run=self)` keeps the data of runs: `s3://BUCKET/PREFIX`."""

    cpus: float = 0.0
    """How many CPUs there are for tasks under `@resources`; 0 for those that this process may use.
    """
    memory: float = 0.0
    """How much memory there is for them, in MB; 0 for that of the machine or the container."""
    gpus: float = 0.0
    """How many GPUs there are for them."""
    max_running_tasks: int = 0
    """The most tasks of a run that workers may have at a time, unless the run says otherwise; 0 for
    no limit."""
    max_runs: int = 0
    """The most runs that an engine has at a time; further ones wait to start. 0 for as many as the
    limit on open files allows."""

    def __post_init__(self) -> None:
        """Check the type and the range of each value.

        Raises:
            SettingsError: A value is wrong; the error names the setting and what it takes.
        """
        for each in fields(self):
            value = _convert(each.name, getattr(self, each.name), "")
            _check(each.name, value)
            object.__setattr__(self, each.name, value)  # a path given as text, for example

    @property
    def worker_count(self) -> int:
        """`workers`, with 0 replaced by the number of CPUs."""
        return self.workers or usable_cpus()

    @property
    def machine(self) -> tuple[float, float, float]:
        """CPUs, GPUs and megabytes of memory for tasks under `@resources`."""
        return self.cpus or usable_cpus(), self.gpus, self.memory or memory_megabytes()

    @classmethod
    def read(
        cls,
        *,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
        **given: Any,
    ) -> Self:
        """Collect the settings; an argument that is None counts as not given.

        Raises:
            SettingsError: A value is of the wrong kind, or a name in `[tool.asyncflow]` is unknown.
        """
        environ = os.environ if environ is None else environ
        found = {name: (value, "") for name, value in given.items() if value is not None}
        for name in (f.name for f in fields(cls)):
            variable = f"ASYNCFLOW_{name.upper()}"
            if environ.get(variable):
                found.setdefault(name, (environ[variable], variable))
        path = (directory or Path()) / "pyproject.toml"
        for name, value in _project_table(path).items():
            found.setdefault(name, (value, f"[tool.asyncflow] of {path}"))
        converted = {name: _convert(name, *value) for name, value in found.items()}
        for name, value in converted.items():
            _check(name, value, found[name][1])
        return cls(**converted)


def store_arguments(store: str) -> list[str]:
    """`--store DIR` for a command, if it would otherwise look into another store."""
    with suppress(SettingsError, OSError):
        if str(absolute_location(Settings.read().store)) == store:
            return []
    return ["--store", store]


_CHOICES: Final = {
    "durability": ("crash", "power"),
    "keep_code": ("all", "flow", "none"),
    "on_failure": ("cancel", "finish"),
}
_AT_LEAST: Final = {
    "workers": 0,
    "grace_seconds": 0,
    "blocked_seconds": 0,
    "import_seconds": 0,
    "sync_seconds": 0,
    "event_buffer": 1,
    "cpus": 0,
    "memory": 0,
    "gpus": 0,
    "max_running_tasks": 0,
    "max_runs": 0,
}
_MOST_SECONDS: Final = 10**9  # thirty years; clocks and waits of the system reach little further


def _check(name: str, value: Any, where: str = "") -> None:
    """Check that a value of the right type makes sense; `where` names its source."""
    source = f"; it comes from {where}" if where else ""
    choices = _CHOICES.get(name)
    if choices and value not in choices:
        message = f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}{source}"
        raise SettingsError(message)
    if name == "datatools_s3root" and value and not value.startswith("s3://"):
        message = f"{name} must be s3://BUCKET/PREFIX, not {value!r}{source}"
        raise SettingsError(message)
    least = _AT_LEAST.get(name)
    if least is not None and value < least:
        message = f"{name} must be {least} or more, not {value:g}{source}"
        raise SettingsError(message)
    if name.endswith("_seconds") and value > _MOST_SECONDS:
        message = f"{name} must be {_MOST_SECONDS:,} or less, not {value:g}{source}"
        raise SettingsError(message)


_CONVERTERS: dict[str, Any] = {f.name: type(f.default) for f in fields(Settings)}
_NUMBERS: dict[type[Any], str] = {int: "a whole number", float: "a number"}


def _convert(name: str, value: Any, where: str) -> Any:
    if name not in _CONVERTERS:
        source = f"{where}: " if where else ""
        there = ", ".join(sorted(_CONVERTERS))
        message = f"{source}there is no setting {name!r}; there are {there}"
        raise SettingsError(message)
    kind = _CONVERTERS[name]
    is_place = issubclass(kind, Path)
    if is_place and value == "":  # otherwise Path would turn it into the working directory
        source = f"; it comes from {where}" if where else ""
        message = f"the setting {name!r} takes a folder, not empty text{source}"
        raise SettingsError(message)
    try:
        if kind in _NUMBERS:
            return _number(kind, value)
        if isinstance(value, str | os.PathLike):
            return store_location(value) if is_place else kind(value)
    except (TypeError, ValueError, OverflowError):
        pass
    source = f"; it comes from {where}" if where else ""
    takes = _NUMBERS.get(kind, "a path" if is_place else "text")
    message = f"the setting {name!r} takes {takes}, not {value!r}{source}"
    raise SettingsError(message)


def _number(kind: type[Any], value: Any) -> Any:
    number = kind(value)
    # int() would cut a fraction off, and no comparison holds for NaN: both are mistakes.
    if isinstance(value, bool) or (not isinstance(value, str) and number != value):
        raise ValueError
    if number != number:  # noqa: PLR0124 - not a number
        raise ValueError
    return number


_tables: Final[dict[str, tuple[tuple[int, ...], dict[str, Any]]]] = {}
"""The tables that were read last, by their files, and when each file was written."""
_KEPT_TABLES: Final = 16
_TICK_NANOSECONDS: Final = 100_000_000


def _project_table(path: Path) -> dict[str, Any]:
    """`[tool.asyncflow]` of a `pyproject.toml`; nothing where there is none.

    It is read again only when the file has changed: a test reads the settings for each run.
    """
    try:
        place = os.path.abspath(path)  # noqa: PTH100 - text, and no look at links
        found = os.stat(place)  # noqa: PTH116 - text, and no look at links
    except OSError:
        return {}
    stamp = found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
    kept = _tables.get(place)
    # a file that was just written may change again within the same tick of its clock
    if kept is None or kept[0] != stamp or time.time_ns() - found.st_mtime_ns < _TICK_NANOSECONDS:
        kept = stamp, _read_table(path)
        _tables[place] = kept
        for oldest in [*_tables][:-_KEPT_TABLES]:
            _tables.pop(oldest, None)
    return kept[1]


def _read_table(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    if "asyncflow" not in text:
        return {}
    import tomllib

    try:
        table = tomllib.loads(text).get("tool", {}).get("asyncflow", {})
    except tomllib.TOMLDecodeError as error:
        message = f"{path} cannot be read: {error}"
        raise SettingsError(message) from error
    if not isinstance(table, dict):
        message = f"in {path}, tool.asyncflow must be a table of settings, not {table!r}"
        raise SettingsError(message)
    return table
