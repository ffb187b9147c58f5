"""Moves objects between S3 and local files, many at a time, on an event loop of its own thread.

So a step that awaits the result does not have its own loop blocked. An object of more than some MiB
is fetched in parts, which are written to their places in its file; memory stays bounded by the
number of requests at a time.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import tempfile
import threading
from dataclasses import dataclass
from functools import partial
from io import BufferedIOBase, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from asyncflow._support.buckets import load_obstore, open_bucket
from asyncflow.errors import (
    AsyncflowError,
    S3AccessDeniedError,
    S3AddressError,
    S3DiskSpaceError,
    S3FailedError,
    S3NotFoundError,
    S3ObjectError,
    S3RangeError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
    from concurrent.futures import Future

    from asyncflow.datatools.s3_addresses import Address, Wanted

Item = TypeVar("Item")
Result = TypeVar("Result")

_REQUESTS: Final = 64  # at a time, by one S3
_PART: Final = 8 * 2**20
"""Bytes of a part of a large object. Amazon advises 8 to 16 MiB for parallel ranges."""
_CHUNK: Final = 2**20  # bytes that one request has in memory
_LISTED: Final = 1000  # keys in an answer, which is S3's own limit
_NAME_CHARACTERS: Final = 100
_UNSAFE: Final = re.compile(r"[^\w.-]")
_LAST: Final = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Found:
    """An object in S3, and where its bytes are if they were fetched."""

    size: int
    """Of the whole object."""
    last_modified: int
    content_type: str | None = None
    metadata: Mapping[str, str] | None = None
    path: str | None = None
    start: int = 0
    length: int = 0
    """How many bytes were fetched, from `start` on."""


@dataclass(frozen=True, slots=True)
class GivenUpload:
    """Something to put."""

    address: Address
    value: Any
    """Bytes, a binary file, or the path of a local file."""
    attributes: Mapping[str, str]


class Transfers:
    """A thread with an event loop, on which objects are moved until `close`."""

    def __init__(self, folder: str, options: Mapping[str, str]) -> None:
        self._obstore = load_obstore()
        self._folder, self._options = folder, options
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._work, name="asyncflow-s3", daemon=True)
        self._changing = threading.Lock()
        self._ready = threading.Event()
        self._closed = False

    # --- the thread -----------------------------------------------------------------------------

    def submit(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Begin a coroutine on the loop; cancelling the future cancels it.

        Raises:
            S3FailedError: It is closed, or this process was forked from the one that made it.
        """
        try:
            self._start()
        except BaseException:
            work.close()
            raise
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _start(self) -> None:
        if os.getpid() != self._pid:
            raise S3FailedError("this S3 was made before a fork: make one in this process")
        with self._changing:
            if self._closed:
                raise S3FailedError("this S3 is closed: use it within its `with` block")
            if not self._thread.is_alive():
                self._thread.start()
                self._ready.wait()

    def close(self) -> None:
        """Cancel what is on its way, and end the thread. Harmless when repeated."""
        if os.getpid() != self._pid:
            return
        with self._changing:
            self._closed = True
            if self._thread.is_alive():
                self._loop.call_soon_threadsafe(self._over.set)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def _work(self) -> None:
        asyncio.run(self._stay())

    async def _stay(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self._slots = asyncio.Semaphore(_REQUESTS)
        self._ready.set()
        await self._over.wait()

    # --- many at a time -------------------------------------------------------------------------

    async def each(
        self, do: Callable[[Item], Awaitable[Result]], items: Sequence[Item]
    ) -> list[Result]:
        """The results for all items, in their order; the first error ends the others."""
        results: list[Any] = [None] * len(items)
        waiting = iter(enumerate(items))

        async def work() -> None:
            for at, item in waiting:
                results[at] = await do(item)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_REQUESTS, len(items))):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        return results

    # --- getting --------------------------------------------------------------------------------

    async def fetch(self, wanted: Wanted, *, if_there: bool = False) -> Found | None:
        """Fetch an object or a range of it into a file of its own; None if it may be missing.

        Raises:
            S3Error: It is missing, or cannot be fetched.
        """
        address, part = wanted
        with _Explained(address.url):
            options = {} if part is None else {"range": part}
            name = _UNSAFE.sub("_", address.key.rpartition("/")[2])[-_NAME_CHARACTERS:]
            bucket = open_bucket(address.bucket, **self._options)
            try:
                async with self._slots:
                    result = await self._obstore.get_async(bucket, address.key, options=options)
                    start, end = result.range
                    descriptor, path = tempfile.mkstemp(f"-{name}", "", self._folder)
                    try:
                        first = end if end - start <= 2 * _PART else start + _PART
                        await _write(descriptor, result, 0, first - start)
                        attributes, meta = result.attributes, result.meta
                    except BaseException:
                        os.close(descriptor)
                        raise
            except FileNotFoundError:
                if if_there:
                    return None
                raise
            try:
                if first < end:
                    fetch = partial(self._fetch_part, bucket, address.key, meta, descriptor, start)
                    parts = [(at, min(at + _PART, end)) for at in range(first, end, _PART)]
                    await self.each(fetch, parts)
            finally:
                os.close(descriptor)
            return _found(meta, attributes, path, start, end - start)

    async def _fetch_part(
        self,
        bucket: Any,
        key: str,
        meta: Mapping[str, Any],
        descriptor: int,
        start: int,
        part: tuple[int, int],
    ) -> None:
        options = {"range": part}
        if meta["e_tag"]:
            options["if_match"] = meta["e_tag"]  # else it may be another object by now
        async with self._slots:
            result = await self._obstore.get_async(bucket, key, options=options)
            await _write(descriptor, result, part[0] - start, part[1] - part[0])

    async def look(self, address: Address, *, if_there: bool = False) -> Found | None:
        """What is known of an object without fetching it; None if it may be missing.

        Raises:
            S3Error: It is missing, or that cannot be told.
        """
        with _Explained(address.url):
            bucket = open_bucket(address.bucket, **self._options)
            try:
                async with self._slots:
                    result = await self._obstore.get_async(
                        bucket, address.key, options={"head": True}
                    )
            except FileNotFoundError:
                if if_there:
                    return None
                raise
            return _found(result.meta, result.attributes, None, 0, 0)

    # --- listing --------------------------------------------------------------------------------

    async def list_level(self, address: Address) -> tuple[dict[str, int], list[str]]:
        """Objects in a folder with their sizes, and the folders in it, by their keys.

        Raises:
            S3Error: It cannot be listed.
        """
        with _Explained(address.url):
            bucket = open_bucket(address.bucket, **self._options)
            async with self._slots:
                found = await self._obstore.list_with_delimiter_async(
                    bucket, address.key.rstrip("/") or None
                )
        return {each["path"]: each["size"] for each in found["objects"]}, found["common_prefixes"]

    async def list_all(self, address: Address, *, exact: bool) -> dict[str, int]:
        """All objects below a folder, or with `exact` all whose keys begin so, with their sizes.

        Raises:
            S3Error: They cannot be listed.
        """
        prefix, offset = address.key.rstrip("/"), None
        if exact:
            # obstore lists folders; a listing of the one above begins close before the prefix
            prefix = address.key.rpartition("/")[0]
            last = address.key[len(prefix) + bool(prefix) :][-1:]
            if last and ord(last) > ord("0"):
                offset = f"{address.key[:-1]}{chr(ord(last) - 1)}{_LAST}"
        found: dict[str, int] = {}
        with _Explained(address.url):
            bucket = open_bucket(address.bucket, **self._options)
            async with self._slots:
                pages = self._obstore.list(
                    bucket, prefix or None, offset=offset, chunk_size=_LISTED
                )
                async for page in pages:
                    for each in page:
                        if not exact or each["path"].startswith(address.key):
                            found[each["path"]] = each["size"]
                    if exact and page and page[-1]["path"][: len(address.key)] > address.key:
                        break  # keys come in their order
        return found

    # --- putting --------------------------------------------------------------------------------

    async def put(self, upload: GivenUpload, *, overwrite: bool) -> bool:
        """Put an object; False if it is there and stays as it is.

        Raises:
            S3Error: It cannot be put.
        """
        address, value = upload.address, upload.value
        with _Explained(address.url, value):
            if not overwrite and await self.look(address, if_there=True) is not None:
                return False
            bucket = open_bucket(address.bucket, **self._options)
            if isinstance(value, RawIOBase | BufferedIOBase):
                value.seek(0)
            put = partial(
                self._obstore.put_async,
                bucket,
                address.key,
                value,
                attributes=dict(upload.attributes) or None,
            )
            from obstore.exceptions import AlreadyExistsError

            async with self._slots:
                if overwrite or _size_of(value) > _PART:  # parts cannot be put on a condition
                    await put(chunk_size=_PART, max_concurrency=4)
                    return True
                try:
                    await put(mode="create")
                except AlreadyExistsError:
                    return False
            return True


async def _write(descriptor: int, result: Any, offset: int, size: int) -> None:
    """Write the next `size` bytes of an answer to a file, from `offset` on."""
    end = offset + size
    if not size:
        return
    async for chunk in result.stream(min_chunk_size=_CHUNK):
        view = memoryview(chunk)[: end - offset]
        while view:
            written = os.pwrite(descriptor, view, offset)
            offset, view = offset + written, view[written:]
        if offset == end:
            return
    raise S3FailedError(f"the answer ended {end - offset} bytes early")


def _found(
    meta: Mapping[str, Any],
    attributes: Mapping[str, str],
    path: str | None,
    start: int,
    length: int,
) -> Found:
    content_type, metadata = None, {}
    for name, value in attributes.items():
        if name.lower() == "content-type":
            content_type = value
        else:
            metadata[name] = value
    modified = int(meta["last_modified"].timestamp())
    return Found(meta["size"], modified, content_type, metadata, path, start, length)


def as_upload(value: Any, key: object) -> Any:
    """A value that can be put: bytes, or a binary file.

    Raises:
        S3ObjectError: It is something else.
    """
    if isinstance(value, RawIOBase | BufferedIOBase):
        if value.readable() and value.seekable():
            return value
        raise S3ObjectError(f"the file for the key {key!r} is not readable or not seekable")
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    kind = type(value).__name__
    raise S3ObjectError(f"the value for the key {key!r} is neither text nor bytes, but of {kind}")


def local_file(path: str | os.PathLike[str]) -> Path:
    """A local file to put.

    Raises:
        S3NotFoundError: It does not exist.
    """
    found = Path(path)
    if not found.exists():
        raise S3NotFoundError(f"there is no local file {path}")
    return found


def _size_of(value: Any) -> int:
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, Path):
        return value.stat().st_size
    size: int = value.seek(0, os.SEEK_END)
    value.seek(0)
    return size


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Explained:
    """Turns the errors of obstore and of the disk into ours, which name the address."""

    def __init__(self, url: str, value: object = None) -> None:
        self._url, self._file = url, value if isinstance(value, Path) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, AsyncflowError):
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> AsyncflowError:
        if isinstance(error, OSError) and error.errno is not None:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                return S3DiskSpaceError(f"no space is left on the disk for {self._url}: {error}")
            return S3FailedError(f"{self._url}: {error}")
        if isinstance(error, FileNotFoundError):
            return S3NotFoundError(self._missing(str(error)))
        return _explain(error, self._url)

    def _missing(self, said: str) -> str:
        if _NO_BUCKET in said:
            return f"{self._url}: there is no such bucket"
        if self._file is not None and not self._file.exists():
            return f"there is no local file {self._file}"
        return f"there is no object {self._url}"


def _explain(error: Exception, url: str) -> AsyncflowError:
    from obstore import exceptions

    said = str(error)
    if _ROLE in said:
        return S3AccessDeniedError(
            f"there are no credentials for {url}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or install boto3, with which those in ~/.aws are found"
        )
    denied = exceptions.PermissionDeniedError | exceptions.UnauthenticatedError
    if _NO_BUCKET in said:
        return S3NotFoundError(f"{url}: there is no such bucket")
    if isinstance(error, denied) or "403 Forbidden" in said:
        return S3AccessDeniedError(f"the credentials do not allow this: {url}")
    if isinstance(error, exceptions.PreconditionError):
        return S3FailedError(f"{url} was changed while it was fetched")
    if "416 Range Not Satisfiable" in said:
        return S3RangeError(f"{url} has no byte in the range that was asked for")
    kind = S3AddressError if isinstance(error, ValueError) else S3FailedError
    return kind(f"{url}: {_DEBUG.split(said)[0].strip()}")


_NO_BUCKET: Final = "<Code>NoSuchBucket</Code>"
_ROLE: Final = "/latest/api/token"  # obstore's last resort: the role of a machine at Amazon
_DEBUG: Final = re.compile(r"\s*Debug source:")  # what obstore adds for those who know its code
