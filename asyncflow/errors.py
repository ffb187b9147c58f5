"""Every exception that asyncflow raises, in one flat tree.

A class's docstring is its default message: what is wrong and what to do about it. Details are
attributes, so that a program need not parse the text. Nothing here imports the rest of asyncflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence


class AsyncflowError(Exception):
    """Something went wrong in asyncflow."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class NotInstalledError(AsyncflowError, ImportError):
    """A package that this needs is not installed."""


# --- the language -----------------------------------------------------------------------------


class FlowError(AsyncflowError):
    """The flow cannot be run as it is written."""

    def __init__(self, message: str = "", *, step: str = "", file: str = "", line: int = 0) -> None:
        self.step, self.file, self.line = step, file, line
        where = f"{file}:{line}: " if file and line else ""
        super().__init__(f"{where}{message}" if message else "")


class UnguardedRunError(FlowError):
    """The file starts a run whenever it is imported, and workers import it too."""


class GraphError(FlowError):
    """The steps of the flow do not form a graph that can be run."""


class ParameterError(AsyncflowError):
    """A parameter was given a value that it cannot take."""

    def __init__(self, message: str = "", *, parameter: str = "") -> None:
        self.parameter = parameter
        super().__init__(message)


class TransitionError(FlowError):
    """A step ended without a legal `self.next(...)`."""


class MergeArtifactsError(FlowError):
    """The inputs of a join disagree about artifacts; assign them in the join, or exclude them."""

    def __init__(self, message: str = "", *, artifacts: Sequence[str] = (), step: str = "") -> None:
        self.artifacts = tuple(artifacts)
        super().__init__(message, step=step)


class ParallelMapError(FlowError):
    """A function that `parallel_map` has called in a process of its own has failed there."""


# --- values and store -------------------------------------------------------------------------


class ArtifactError(AsyncflowError):
    """An artifact could not be written or read."""

    def __init__(self, message: str = "", *, artifact: str = "", pathspec: str = "") -> None:
        self.artifact, self.pathspec = artifact, pathspec
        super().__init__(message)


class ArtifactPickleError(ArtifactError):
    """An artifact cannot be pickled; keep it out of `self` or make it picklable."""


class ArtifactCorruptError(ArtifactError):
    """The stored bytes of an artifact are not the bytes that were written."""


class ArtifactMissingError(ArtifactError):
    """The file that holds an artifact is gone from the store."""


class StoreError(AsyncflowError):
    """The store cannot be used."""


class StoreFormatError(StoreError):
    """The store was written by another, newer version of asyncflow."""


class JournalError(StoreError):
    """The journal of a run cannot be read or written."""


class RecordError(JournalError):
    """A record is complete, but it is not one that asyncflow writes."""


class LimitError(StoreError):
    """A named limit cannot be enforced."""


class NotFoundError(AsyncflowError, KeyError):
    """There is no such flow, run, step, task or artifact in the store."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class NamespaceMismatchError(NotFoundError):
    """It is in the store, but not in the namespace; `namespace(None)` shows everything."""


class TagError(AsyncflowError, ValueError):
    """The tags of a run cannot be changed so."""


class ArtifactNotFoundError(NotFoundError, AttributeError):
    """There is no artifact of this name; also an AttributeError, so that `hasattr` works."""

    def __init__(self, message: str = "", *, artifact: str = "") -> None:
        self.artifact = artifact
        super().__init__(message)


# --- S3 ---------------------------------------------------------------------------------------


class S3Error(AsyncflowError):
    """Something went wrong in S3; the errors below say what."""


class S3FailedError(S3Error):
    """S3 could not do what it was asked, after several attempts."""


class S3AddressError(S3Error):
    """This is not an address that S3 can use here, or its bucket does not exist."""


class S3NotFoundError(S3Error):
    """There is no such object in S3, or no such local file to put there."""


class S3AccessDeniedError(S3Error):
    """The credentials do not allow this in S3."""


class S3RangeError(S3Error):
    """The object in S3 has no byte in this range."""


class S3ObjectError(S3Error):
    """Only text, bytes and binary files that are readable and seekable can be put to S3."""


class S3DiskSpaceError(S3Error):
    """There is no space left on the disk for what comes from S3."""


# --- running ----------------------------------------------------------------------------------


class PoolError(AsyncflowError):
    """The worker pool cannot go on."""


class ClusterError(PoolError):
    """The cluster cannot run the tasks."""


class AgentGoneError(ClusterError):
    """The agent of a lease has ended, and its workers with it."""


class WorkerDiedError(PoolError):
    """A worker exited while it held a task; what the task had done is unknown."""


class TaskTimeoutError(AsyncflowError, TimeoutError):
    """A task took longer than its step's `@timeout` allows."""


class TaskCancelledError(AsyncflowError):
    """A task was stopped because its run was ending."""


class EngineClosedError(AsyncflowError):
    """The engine is closed; open one with `async with Engine() as engine`."""


class RunFailedError(AsyncflowError):
    """The run failed.

    `failure` describes the task that failed first: step, task, attempt, exception type, message and
    traceback text. `run` is the client's view of the run, to look at the tasks that finished.
    """

    def __init__(self, message: str = "", *, run: Any = None, failure: Any = None) -> None:
        self.run: Any = run
        """An `asyncflow.Run`."""
        self.failure: Any = failure
        """An `asyncflow.values.Failure`."""
        super().__init__(message)


class RunCancelledError(AsyncflowError):
    """The run was cancelled; its finished tasks are kept, and it can be resumed."""

    def __init__(self, message: str = "", *, run: Any = None) -> None:
        self.run: Any = run
        """An `asyncflow.Run`."""
        super().__init__(message)


class RunInterruptedError(AsyncflowError):
    """The run's engine is gone without recording an end; resume the run to go on."""

    def __init__(self, message: str = "", *, pathspec: str = "") -> None:
        self.pathspec = pathspec
        super().__init__(message)

    @classmethod
    def of(cls, pathspec: str, resume: str) -> Self:
        """The error for the run `Flow/run`; the command `resume` resumes it."""
        message = (
            f"{pathspec} was interrupted: its engine is gone without recording an end\n"
            f"To go on from there: {resume}"
        )
        return cls(message, pathspec=pathspec)


# --- watching ---------------------------------------------------------------------------------


class RunNotActiveError(AsyncflowError):
    """No engine runs the run, so nobody can do what was asked of it: it has ended, or been left."""


class SubscriptionBusyError(AsyncflowError):
    """Two tasks iterate over one subscription at once; give each a subscription of its own."""


class UnknownEventError(AsyncflowError, LookupError):
    """A later version of asyncflow wrote this event; skip it, or upgrade."""


# --- keeping ----------------------------------------------------------------------------------


class ResumeError(AsyncflowError):
    """The run cannot be resumed."""


class RemoveError(AsyncflowError):
    """The run cannot be removed."""


class CopyError(AsyncflowError):
    """The run cannot be copied."""


class WorkingDirectoryError(AsyncflowError):
    """A relative path cannot be resolved: the working directory was deleted."""

    def __init__(self, path: object) -> None:
        super().__init__(
            f"{path} is relative to the working directory, which was deleted: "
            "change to another, or give the absolute path"
        )


class SettingsError(AsyncflowError):
    """A setting has a value that it cannot take."""
