"""Records of `logging` say which task has made them.

Each has the attributes `flow`, `run`, `step`, `task` and `attempt`. They are empty, and 0, where no
task runs. So a format may name them: `%(step)s/%(task)s %(message)s`. What a call gives as `extra`
under one of these names stays.

`logging.setLogRecordFactory` is no place for that: a record that has the attributes when `extra` is
added to it refuses names that are there already, and `extra={"step": 3}` would raise.
"""

from __future__ import annotations

import functools
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from asyncflow.flow.current import running_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from logging import LogRecord
    from types import ModuleType

_MODULE: Final = "logging"
_NO_TASK: Final = {"flow": "", "run": "", "step": "", "task": "", "attempt": 0}


def name_tasks_in_records() -> None:
    """Have records name their tasks from now on, in this process. Harmless when repeated.

    `logging` is not imported for that: many flows never need it.
    """
    module = sys.modules.get(_MODULE)
    if module is not None:
        _name_tasks(module)
    elif not any(isinstance(finder, _WhenImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenImported())


@contextmanager
def tasks_named_in_records() -> Iterator[None]:
    """The same within the block alone, for a process that has records of its own as well."""
    import logging

    before = logging.Logger.makeRecord
    name_tasks_in_records()
    ours = logging.Logger.makeRecord
    try:
        yield
    finally:
        if ours is not before and logging.Logger.makeRecord is ours:
            logging.Logger.makeRecord = before  # type: ignore[method-assign] # as it was found


def _name_tasks(module: ModuleType) -> None:
    made = getattr(module, "Logger").makeRecord  # noqa: B009 - the module may be any for the type checker
    if getattr(made, "names_tasks", False):
        return
    module.Logger.makeRecord = _naming(made)


def _naming(make: Callable[..., LogRecord]) -> Callable[..., LogRecord]:
    @functools.wraps(make)
    def make_record(*args: Any, **kwargs: Any) -> LogRecord:
        record = make(*args, **kwargs)
        task = running_task()
        if task is None:
            named: dict[str, object] = _NO_TASK
        else:
            named = {
                "flow": task.flow_name,
                "run": task.run_id,
                "step": task.step_name,
                "task": task.task_id,
                "attempt": task.attempt,
            }
        for name, value in named.items():
            record.__dict__.setdefault(name, value)
        return record

    make_record.names_tasks = True  # type: ignore[attr-defined] # a mark for the second call
    return make_record


class _WhenImported:
    """Finds `logging` when it is imported, and changes it then."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if name != _MODULE:
            return None
        with suppress(ValueError):  # another thread imports it at the same time
            sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            _name_tasks(module)

        spec.loader.exec_module = execute_and_change  # type: ignore[method-assign] # of this one loader
        return spec
