"""The objects of an object store: the one place that knows obstore, and what its answers mean.

Every request may fail, may be refused for a moment (503), or may time out after it was carried out.
So a request is repeated for as long as the `Objects` are patient, and each kind of write can tell
afterwards whether it was itself that wrote:

* `create` never replaces. Somebody is first, and everybody else reads what that one has written. A
  random word goes with the object, as an attribute: if it is there already, it was an earlier
  attempt of the same call that was first.
* `replace` writes over exactly the version that was read. The same rule applies.
* `put` and `delete` may be carried out twice without harm.

A conflict (409) means that another conditional write is going on: the request is repeated.
"""

from __future__ import annotations

import errno
import os
import re
import time
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property, partial
from random import uniform
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from asyncflow._support.buckets import s3_options
from asyncflow._support.commit_points import reached
from asyncflow._support.thread_pool import Threads
from asyncflow.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from asyncflow.codec import Chunk

Result = TypeVar("Result")

PATIENCE_SECONDS: Final = 60.0
"""How long a request is repeated; an outage of that length ends no run."""
_REQUEST_SECONDS: Final = 20
"""The most that one request may take. It bounds what is sent at once, see `MOST_BYTES`."""
_CONNECT_SECONDS: Final = 5
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 3.0
_THREADS: Final = 16  # requests at the same time, of one process
_DELETED_TOGETHER: Final = 1000  # as many as S3 takes in one request
_WRITTEN_BY: Final = "asyncflowwrite"
"""Azure takes letters, digits and `_` only, and some proxies drop what has a `_`."""
_STATUS: Final = re.compile(r"status code: (\d{3})")
_NO_BUCKET: Final = "there is no such bucket; create it"
_PASSING: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that may be another one a moment later."""


class ObjectFacts(NamedTuple):
    """What a store says about an object without sending it."""

    name: str
    size: int
    modified: float
    """When it was written, in seconds since 1970 by the clock of the store."""
    e_tag: str
    """Names this version of it, for `replace`: its ETag, and its generation where that counts."""


class ObjectStoreError(OSError):
    """An object store refuses a request, or does not answer."""


class _Obstore:
    """The package obstore, and its store for one place; it is made when it is first needed."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect

    @cached_property
    def api(self) -> Any:
        import obstore

        return obstore

    @cached_property
    def store(self) -> Any:
        return self._connect()


class Objects:
    """The objects below one prefix; threads may share one.

    Names are relative to the prefix, with `/` between their parts. Besides `FileNotFoundError`,
    which says that an object does not exist, every method may raise `ObjectStoreError`.
    """

    def __init__(
        self, connect: Callable[[], Any], location: str = "", *, patience_seconds: float
    ) -> None:
        """Make no request; `connect` makes a store of obstore, and `location` names it in errors.

        It is called for the first request. That takes some milliseconds, which a process that makes
        none need not spend.
        """
        self._obstore = _Obstore(connect)
        self.location: Final = location
        self.patience_seconds: Final = patience_seconds
        self._pid = os.getpid()
        self._threads: Threads | None = None

    @classmethod
    def open(cls, location: str, *, known: bool = False) -> Objects:
        """The objects at a URL such as `s3://bucket/prefix`. No request is made yet.

        A `known` one was opened on this machine before, so its options are looked at only when a
        request is to be made.

        Credentials and all other options come from the environment, by the names that obstore has
        for them, such as `AWS_ACCESS_KEY_ID`; those of S3 also from wherever boto3 finds them.

        Raises:
            StoreError: obstore is not installed, or refuses the URL or an option.
        """
        objects = cls(partial(_connected, location), location, patience_seconds=PATIENCE_SECONDS)
        if not known:
            objects._obstore.store  # noqa: B018 - raises if that cannot be
        return objects

    def with_patience(self, seconds: float) -> Objects:
        """The same objects, for a caller that waits so long for an answer."""
        return Objects(lambda: self._obstore.store, self.location, patience_seconds=seconds)

    def __repr__(self) -> str:
        return f"<Objects {self.location}>"

    # --- reading --------------------------------------------------------------------------------

    def get(self, name: str) -> bytes:
        """The bytes of an object."""
        return self._ask(
            name, lambda: bytes(self._obstore.api.get(self._obstore.store, name).bytes())
        )

    def get_with_facts(
        self, name: str, *, most_bytes: int | None = None
    ) -> tuple[bytes, ObjectFacts]:
        """The bytes of an object, and what the store says about this very version.

        Of one with more than `most_bytes` nothing is read: the bytes are empty then, and the facts
        say how many there are.
        """

        def ask() -> tuple[bytes, ObjectFacts]:
            answer = self._obstore.api.get(self._obstore.store, name)
            facts = _facts(answer.meta)
            if most_bytes is not None and facts.size > most_bytes:
                return b"", facts
            return bytes(answer.bytes()), facts

        return self._ask(name, ask)

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """A range of an object; shorter where the object ends before its end."""
        if length <= 0:
            return b""

        def ask() -> bytes:
            return bytes(
                self._obstore.api.get_range(self._obstore.store, name, start=start, length=length)
            )

        try:
            return self._ask(name, ask)
        except ObjectStoreError as error:
            if _status_of(str(error)) == 416:  # noqa: PLR2004 - nothing of the range exists
                return b""
            raise

    def stream(self, name: str, chunk_bytes: int = 4 << 20) -> Iterator[bytes]:
        """The bytes of a large object, in chunks of about that length; it is asked for once.

        A connection that breaks in the middle is an error: whoever wants to may begin again.
        """
        answer = self._ask(name, lambda: self._obstore.api.get(self._obstore.store, name))
        with self._naming(name):
            for chunk in answer.stream(min_chunk_size=chunk_bytes):
                yield bytes(chunk)

    def head(self, name: str) -> ObjectFacts:
        """What the store says about an object."""
        return self._ask(name, lambda: _facts(self._obstore.api.head(self._obstore.store, name)))

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        try:
            self.head(name)
        except FileNotFoundError:
            return False
        return True

    def listed(self, folder: str, *, after: str = "") -> Iterator[ObjectFacts]:
        """The objects below a folder, in the order of their names; only those behind `after`."""
        while True:
            found = self._ask(folder, partial(self._list, folder, after))
            yield from found
            if len(found) < _LISTED_TOGETHER:
                return
            after = found[-1].name

    def _list(self, folder: str, after: str) -> Sequence[ObjectFacts]:
        found: list[ObjectFacts] = []
        options = {"offset": after} if after else {}
        for chunk in self._obstore.api.list(
            self._obstore.store, folder or None, chunk_size=1000, **options
        ):
            found += map(_facts, chunk)
            if len(found) >= _LISTED_TOGETHER:
                break
        return found[:_LISTED_TOGETHER]

    def folders(self, folder: str) -> Sequence[str]:
        """The names of the folders directly in a folder, sorted; the names alone."""

        def ask() -> Sequence[str]:
            answer = self._obstore.api.list_with_delimiter(self._obstore.store, folder or None)
            return sorted(path.rpartition("/")[2] for path in answer["common_prefixes"])

        return self._ask(folder, ask)

    def has_any(self, folder: str) -> bool:
        """Whether there is any object below a folder."""

        def ask() -> bool:
            for chunk in self._obstore.api.list(self._obstore.store, folder or None, chunk_size=1):
                return bool(chunk)
            return False

        return self._ask(folder, ask)

    # --- writing --------------------------------------------------------------------------------

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Write an object; one of that name is replaced."""
        reached("object.put")
        self._ask(name, lambda: self._put(name, data))
        reached("object.written")

    def create(self, name: str, data: bytes | Sequence[Chunk]) -> bytes | None:
        """Write an object that does not exist yet; its bytes may be in several parts.

        Returns None if this call has written it. Else the bytes that somebody else has written
        there before, which stay.
        """
        return self._create(name, data)[1]

    def create_version(self, name: str, data: bytes) -> str | None:
        """The same; return the e_tag of what this call has written, or None if it was not first."""
        e_tag, there = self._create(name, data)
        return e_tag if there is None else None

    def _create(self, name: str, data: bytes | Sequence[Chunk]) -> tuple[str, bytes | None]:
        """The e_tag of the object, and its bytes if somebody else was first."""
        mine = _new_word()

        def ask() -> tuple[str, bytes | None]:
            try:
                return _e_tag(self._put(name, data, mode="create", attributes=mine)), None
            except (
                self._obstore.api.exceptions.AlreadyExistsError,
                self._obstore.api.exceptions.PreconditionError,
            ):
                pass
            try:
                answer = self._obstore.api.get(self._obstore.store, name)
            except FileNotFoundError as error:
                # A conflict with somebody who was not first in the end, or it was deleted.
                raise self._error(name, "it is written and deleted again and again") from error
            is_mine = _is_of(answer, mine)
            there = bytes(answer.bytes())  # in any case: an answer is read to its end
            return _e_tag(answer.meta), None if is_mine else there

        reached("object.create")
        made = self._ask(name, ask)
        reached("object.created")
        return made

    def replace(self, name: str, data: bytes, e_tag: str) -> str | None:
        """Write over that version of an object: the new version's e_tag, or None if it has changed.

        An object that is gone has changed.
        """
        mine = _new_word()

        def put(version: dict[str, str]) -> str | None:
            try:
                return _e_tag(self._put(name, data, mode=version, attributes=mine))
            except (FileNotFoundError, self._obstore.api.exceptions.PreconditionError):
                return None

        def ask() -> str | None:
            done = put(_version_of(e_tag))
            if done is not None:
                return done
            try:
                answer = self._obstore.api.get(self._obstore.store, name)
            except FileNotFoundError:
                return None
            is_mine, e_tag_there = _is_of(answer, mine), _e_tag(answer.meta)
            answer.bytes()  # an answer is read to its end
            if e_tag_there == e_tag and not is_mine:
                # Unchanged, and refused: Ceph 16 compares what is between the quotes.
                return put(_version_of(e_tag.replace('"', "")))
            return e_tag_there if is_mine else None

        reached("object.replace")
        new = self._ask(name, ask)
        reached("object.replaced")
        return new

    def put_file(self, name: str, path: str) -> None:
        """Write the bytes of a local file as an object, in several parts if it is large."""

        def ask() -> None:
            with open(path, "rb") as file:  # noqa: PTH123 - a path as text takes a fraction of the time
                self._put(name, file)

        reached("object.put")
        self._ask(name, ask)
        reached("object.written")

    def copy(self, name: str, new: str) -> None:
        """Give the bytes of an object a second name, within the store; one there is replaced."""
        self._ask(name, lambda: self._obstore.api.copy(self._obstore.store, name, new))

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that do not exist are none."""
        rest = [*names]
        while rest:
            some, rest = rest[:_DELETED_TOGETHER], rest[_DELETED_TOGETHER:]
            reached("object.delete")

            def ask(some: list[str] = some) -> None:
                try:
                    self._obstore.api.delete(self._obstore.store, some)
                except FileNotFoundError:  # Google's and Azure's say so, S3 does not
                    for name in some if len(some) > 1 else ():
                        self.delete([name])

            self._ask(some[0], ask)
            reached("object.deleted")

    def _put(self, name: str, data: Any, **options: Any) -> Any:
        return self._obstore.api.put(self._obstore.store, name, data, **options)

    # --- several at once ------------------------------------------------------------------------

    def each(self, function: Callable[[Any], Result], items: Sequence[Any]) -> list[Result]:
        """Call a function that makes requests with each of the items, some at the same time.

        The results are in order. The first error is raised when all calls have ended.
        """
        if len(items) <= 1:
            return [function(item) for item in items]
        if self._threads is None or self._pid != os.getpid():
            self._check_process()
            self._threads = Threads(_THREADS, "asyncflow-objects")
        futures = [self._threads.submit(function, item) for item in items]
        for each in futures:
            each.exception()
        return [each.result() for each in futures]

    # --- answers --------------------------------------------------------------------------------

    def _ask(self, name: str, ask: Callable[[], Result]) -> Result:
        """Make a request, again and again while its failure may pass."""
        self._check_process()
        until = time.monotonic() + self.patience_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                with self._naming(name):
                    return ask()
            except ObjectStoreError as error:
                rest = until - time.monotonic()
                if rest <= 0 or not _may_pass(error):
                    raise
            time.sleep(min(uniform(pause / 2, pause), rest))  # noqa: S311 - not all at once
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _check_process(self) -> None:
        """Refuse to go on in a forked child: there, obstore waits for threads that it has not."""
        if self._pid != os.getpid():
            message = (
                f"this process was forked from one that uses {self.location}, and cannot use it: "
                "start it with multiprocessing's method `spawn`"
            )
            raise StoreError(message)

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Turn obstore's errors into one that names the object and what to do."""
        errors = self._obstore.api.exceptions
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
                raise self._error(name, _NO_BUCKET) from error
            raise self._missing(name) from error
        except errors.NotFoundError as error:
            raise self._missing(name) from error
        except (
            errors.PermissionDeniedError,
            errors.UnauthenticatedError,
            PermissionError,
        ) as error:
            reason = f"{_text(error)}; check the credentials and what they may do"
            raise self._error(name, reason, errno.EACCES) from error
        except errors.BaseError as error:
            if "NoSuchBucket" in str(error):
                raise self._error(name, _NO_BUCKET) from error
            raise self._error(name, _text(error)) from error

    def _error(self, name: str, reason: str, number: int = errno.EREMOTEIO) -> ObjectStoreError:
        return ObjectStoreError(number, reason, self._full(name))

    def _missing(self, name: str) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._full(name))

    def _full(self, name: str) -> str:
        return f"{self.location}/{name}" if name else self.location


def _connected(location: str) -> Any:
    """A store of obstore at a URL.

    Raises:
        StoreError: obstore is not installed, or refuses the URL or an option.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        message = (
            f"the store {location} needs obstore, which is not installed: "
            "pip install 'asyncflow-engine[s3]'"
        )
        raise StoreError(message) from error
    is_s3 = location.lower().startswith("s3://")
    options, client_options = s3_options() if is_s3 else ({}, {})
    try:
        # Repeating is done here, in one place: `max_retries` is 0.
        client = from_url(
            location,
            client_options={
                **client_options,
                "timeout": timedelta(seconds=_REQUEST_SECONDS),
                "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
            },
            retry_config={"max_retries": 0},
            **options,
        )
    except (BaseError, ValueError, TypeError) as error:
        raise StoreError(f"the store {location} cannot be used: {_text(error)}") from error
    return client


_LISTED_TOGETHER: Final = 10_000
"""How many are listed before any is passed on: if a request fails, as many are listed again."""


def _new_word() -> dict[str, str]:
    return {_WRITTEN_BY: os.urandom(12).hex()}


def _is_of(answer: Any, word: dict[str, str]) -> bool:
    """Whether an object was written with this word."""
    attributes: dict[str, str] = answer.attributes
    return attributes.get(_WRITTEN_BY) == word[_WRITTEN_BY]


def _facts(meta: Any) -> ObjectFacts:
    modified: datetime = meta["last_modified"]
    return ObjectFacts(meta["path"], meta["size"], modified.timestamp(), _e_tag(meta))


def _e_tag(answer: Any) -> str:
    """Names a version: S3 and Azure compare the ETag, and Google the generation."""
    e_tag, generation = answer.get("e_tag") or "", answer.get("version")
    return f"{e_tag}\n{generation}" if generation else e_tag


def _version_of(e_tag: str) -> dict[str, str]:
    e_tag, _, generation = e_tag.partition("\n")
    return {"e_tag": e_tag, "version": generation} if generation else {"e_tag": e_tag}


def _status_of(text: str) -> int:
    found = _STATUS.search(text)
    return int(found[1]) if found else 0


def _may_pass(error: ObjectStoreError) -> bool:
    """Whether the same request may succeed a moment later."""
    if error.errno == errno.EACCES:
        return False
    status = _status_of(error.strerror or "")
    return status in _PASSING or not (status or _NO_BUCKET in (error.strerror or ""))


_METADATA_SERVICE: Final = "169.254.169.254"
"""Where a machine in a cloud tells its credentials; elsewhere there is nobody, or somebody else."""
_NO_CREDENTIALS: Final = (
    "there are no credentials for it: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or those of "
    "your store"
)


def _text(error: BaseException) -> str:
    """The first line of an error of obstore: the others are its inner state."""
    if _METADATA_SERVICE in str(error):  # asked for credentials where there were none
        return _NO_CREDENTIALS
    return str(error).partition("\n")[0].removesuffix(": ")[:500]
