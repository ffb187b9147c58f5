"""One frozen `Settings`, read once.

Argument, else `ASYNCFLOW_*`, else `[tool.asyncflow]` of `pyproject.toml`, else the default.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from asyncflow.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cpus() -> int:
    """How many CPUs this process may use: its affinity, and its container's quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        count = os.cpu_count() or 1
    try:
        quota, period = _CGROUP_QUOTA.read_text().split()
        count = min(count, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or `max`: no quota
        pass
    return max(1, count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What can be set for an engine and a client."""

    store: Path = Path(".asyncflow")
    """Where runs, journals and artifacts live."""
    workers: int = 0
    """How many worker processes at the most; 0 for as many as this process may use CPUs."""
    grace_seconds: float = 5.0
    """How long a running step has between SIGTERM and SIGKILL when its run is cancelled."""
    on_failure: str = "cancel"
    """What a task's failure does to those of its run that are running: `cancel`, or `finish`."""
    blocked_seconds: float = 1.0
    """How long an async step may block its worker's event loop before a warning; 0 for any time."""
    event_buffer: int = 10_000
    """How many events wait for a slow subscriber before it reads on from the journal."""
    sync_seconds: float = 1.0
    """How long, at most, a journal's events wait before they are synced in the background."""
    durability: str = "crash"
    """What an announced task survives: a `crash` of every process, or a cut of the `power` too."""

    max_running_tasks: int = 0
    """How many tasks of a run workers may have at a time, if it is told nothing else; 0 for any."""
    max_runs: int = 0
    """How many runs an engine has at a time; to start one more waits. 0 for any number."""

    def __post_init__(self) -> None:
        for name in ("workers", "max_running_tasks", "max_runs", "blocked_seconds"):
            if getattr(self, name) < 0:
                message = f"{name} must be 0 or more, not {getattr(self, name)}"
                raise SettingsError(message)
        if self.durability not in {"crash", "power"}:
            message = f"durability must be 'crash' or 'power', not {self.durability!r}"
            raise SettingsError(message)
        if self.on_failure not in {"cancel", "finish"}:
            message = f"on_failure must be cancel or finish, not {self.on_failure!r}"
            raise SettingsError(message)
        if self.event_buffer < 1:
            message = f"event_buffer must be 1 or more, not {self.event_buffer}"
            raise SettingsError(message)

    @property
    def worker_count(self) -> int:
        """`workers`, with 0 replaced by what it stands for."""
        return self.workers or usable_cpus()

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
        found = {name: value for name, value in given.items() if value is not None}
        for name in (f.name for f in fields(cls)):
            text = environ.get(f"ASYNCFLOW_{name.upper()}")
            if name not in found and text:
                found[name] = text
        for name, value in _project_table(directory or Path()).items():
            found.setdefault(name, value)
        return cls(**{name: _convert(name, value) for name, value in found.items()})


_CONVERTERS: dict[str, Any] = {f.name: type(f.default) for f in fields(Settings)}


def _convert(name: str, value: Any) -> Any:
    if name not in _CONVERTERS:
        message = f"there is no setting {name!r}; there are {', '.join(sorted(_CONVERTERS))}"
        raise SettingsError(message)
    kind = Path if issubclass(_CONVERTERS[name], Path) else _CONVERTERS[name]
    try:
        return kind(value)
    except (TypeError, ValueError):
        message = f"the setting {name!r} takes {kind.__name__.lower()}, not {value!r}"
        raise SettingsError(message) from None


def _project_table(directory: Path) -> dict[str, Any]:
    """`[tool.asyncflow]` of the `pyproject.toml` in the directory."""
    path = directory / "pyproject.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return {}
    if "[tool.asyncflow]" not in text:
        return {}
    import tomllib  # noqa: PLC0415 - start-up time: few projects have the table

    try:
        table: dict[str, Any] = tomllib.loads(text)["tool"]["asyncflow"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        message = f"{path} cannot be read: {error}"
        raise SettingsError(message) from error
    return table
