"""`S3`: objects in S3, with Metaflow's names and behaviour.

    with S3(run=self) as s3:
        s3.put("model", blob)
        pages = [page.text for page in s3.get_many(["a.html", "b.html"])]

All methods work on many objects in parallel. In an `async def` step, `async with` gives the same
methods to await:

    async with S3(run=self) as s3:
        pages = [page.text for page in await s3.get_many(["a.html", "b.html"])]
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import weakref
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from asyncflow.datatools.s3_addresses import (
    Address,
    Wanted,
    of_object,
    options_of,
    parse,
    root_of,
    url_of,
    wanted,
)
from asyncflow.datatools.s3_objects import (
    USER_METADATA,
    RangeInfo,
    S3GetObject,
    S3Object,
    S3PutObject,
)
from asyncflow.datatools.s3_transfers import Found, GivenUpload, Transfers, as_upload, local_file
from asyncflow.errors import (
    S3AccessDeniedError,
    S3AddressError,
    S3DiskSpaceError,
    S3FailedError,
    S3NotFoundError,
    S3ObjectError,
    S3RangeError,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Coroutine, Iterable, Mapping
    from concurrent.futures import Future
    from io import BufferedIOBase, RawIOBase

    from asyncflow.client import Run
    from asyncflow.flow.spec import FlowSpec

    Key = str | S3GetObject
    PutValue = str | bytes | RawIOBase | BufferedIOBase

__all__ = [
    "S3",
    "AsyncS3",
    "MetaflowS3AccessDenied",
    "MetaflowS3Exception",
    "MetaflowS3InsufficientDiskSpace",
    "MetaflowS3InvalidObject",
    "MetaflowS3InvalidRange",
    "MetaflowS3NotFound",
    "MetaflowS3URLException",
    "RangeInfo",
    "S3GetObject",
    "S3Object",
    "S3PutObject",
]

Result = TypeVar("Result")

MetaflowS3AccessDenied: Final = S3AccessDeniedError
MetaflowS3Exception: Final = S3FailedError
MetaflowS3InsufficientDiskSpace: Final = S3DiskSpaceError
MetaflowS3InvalidObject: Final = S3ObjectError
MetaflowS3InvalidRange: Final = S3RangeError
MetaflowS3NotFound: Final = S3NotFoundError
MetaflowS3URLException: Final = S3AddressError


class AsyncS3:
    """The methods of `S3` to await; `async with S3(…) as s3` gives one.

    Cancelled: what is on its way is given up. An object that was being put is there whole or not
    at all.
    """

    def __init__(self, root: str | None, folder: str, transfers: Transfers) -> None:
        self._root, self._folder, self._transfers = root, folder, transfers

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._root or 'of whole addresses'}>"

    async def get(
        self,
        key: Key | None = None,
        return_missing: bool = False,  # noqa: FBT001, FBT002 - as in Metaflow
        return_info: bool = True,  # noqa: FBT001, FBT002 - as in Metaflow
    ) -> S3Object:
        """As `S3.get`."""
        return (await self.get_many([key], return_missing, return_info))[0]

    async def get_many(
        self,
        keys: Iterable[Key | None],
        return_missing: bool = False,  # noqa: FBT001, FBT002 - as in Metaflow
        return_info: bool = True,  # noqa: FBT001, FBT002 - as in Metaflow
    ) -> list[S3Object]:
        """As `S3.get_many`."""
        objects = [wanted(self._root, key) for key in keys]
        found = await self._submitted(self._fetch(objects, if_there=return_missing))
        return [
            self._object(self._root, each.address.url, fetched, info=return_info)
            for each, fetched in zip(objects, found, strict=True)
        ]

    async def get_recursive(
        self,
        keys: Iterable[str | None],
        return_info: bool = False,  # noqa: FBT001, FBT002 - as in Metaflow
    ) -> list[S3Object]:
        """As `S3.get_recursive`."""
        addresses = [parse(url_of(self._root, key)) for key in keys]
        fetched = await self._submitted(self._fetch_below(addresses))
        return [
            self._object(self._root if return_info else above.url, url, found, info=return_info)
            for above, url, found in fetched
        ]

    async def get_all(self, return_info: bool = False) -> list[S3Object]:  # noqa: FBT001, FBT002 - as in Metaflow
        """As `S3.get_all`."""
        if self._root is None:
            raise S3AddressError("get_all is for an S3 that was given run or s3root")
        return await self.get_recursive([None], return_info)

    async def put(
        self,
        key: str | S3PutObject,
        obj: PutValue,
        overwrite: bool = True,  # noqa: FBT001, FBT002 - as in Metaflow
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """As `S3.put`."""
        value = as_upload(obj, key)
        upload = self._upload(key, value, content_type, metadata)
        await self._submitted(self._put([upload], overwrite=overwrite))
        return upload.address.url

    async def put_many(
        self,
        key_objs: Iterable[tuple[str, PutValue] | S3PutObject],
        overwrite: bool = True,  # noqa: FBT001, FBT002 - as in Metaflow
    ) -> list[tuple[str, str]]:
        """As `S3.put_many`."""
        return await self._put_all(
            [
                (each.key, as_upload(each.value, each.key), each)
                if isinstance(each, S3PutObject)
                else (each[0], as_upload(each[1], each[0]), None)
                for each in key_objs
            ],
            overwrite=overwrite,
        )

    async def put_files(
        self,
        key_paths: Iterable[tuple[str, str | os.PathLike[str]] | S3PutObject],
        overwrite: bool = True,  # noqa: FBT001, FBT002 - as in Metaflow
    ) -> list[tuple[str, str]]:
        """As `S3.put_files`."""
        return await self._put_all(
            [
                (each.key, local_file(each.path or ""), each)
                if isinstance(each, S3PutObject)
                else (each[0], local_file(each[1]), None)
                for each in key_paths
            ],
            overwrite=overwrite,
        )

    async def list_paths(self, keys: Iterable[str] | None = None) -> list[S3Object]:
        """As `S3.list_paths`."""
        addresses = [
            parse(url_of(self._root, key).rstrip("/") + "/")
            for key in ([None] if keys is None else keys)
        ]
        levels = await self._submitted(self._transfers.each(self._transfers.list_level, addresses))
        listed = []
        for above, (objects, folders) in zip(addresses, levels, strict=True):
            start = f"s3://{above.bucket}/"
            listed += [
                S3Object(above.url, start + key, None, size) for key, size in objects.items()
            ]
            listed += [S3Object(above.url, f"{start}{key}/", None) for key in folders]
        return listed

    async def list_recursive(self, keys: Iterable[str] | None = None) -> list[S3Object]:
        """As `S3.list_recursive`."""
        addresses = [parse(url_of(self._root, key)) for key in ([None] if keys is None else keys)]
        listed = await self._submitted(self._list(addresses, exact=False))
        return [
            S3Object(above.url, f"s3://{above.bucket}/{key}", None, size)
            for above, objects in zip(addresses, listed, strict=True)
            for key, size in objects.items()
        ]

    async def info(self, key: str | None = None, return_missing: bool = False) -> S3Object:  # noqa: FBT001, FBT002 - as in Metaflow
        """As `S3.info`."""
        return (await self.info_many([key], return_missing))[0]

    async def info_many(
        self,
        keys: Iterable[str | None],
        return_missing: bool = False,  # noqa: FBT001, FBT002 - as in Metaflow
    ) -> list[S3Object]:
        """As `S3.info_many`."""
        addresses = [of_object(url_of(self._root, key)) for key in keys]

        async def look(address: Address) -> Found | None:
            return await self._transfers.look(address, if_there=return_missing)

        found = await self._submitted(self._transfers.each(look, addresses))
        return [
            self._object(self._root, address.url, each, info=True)
            for address, each in zip(addresses, found, strict=True)
        ]

    # --- what runs on the other loop ------------------------------------------------------------

    async def _submitted(self, work: Coroutine[Any, Any, Result]) -> Result:
        return await asyncio.wrap_future(self._transfers.submit(work))

    async def _fetch(self, objects: list[Wanted], *, if_there: bool) -> list[Found | None]:
        async def fetch(each: Wanted) -> Found | None:
            return await self._transfers.fetch(each, if_there=if_there)

        return await self._transfers.each(fetch, objects)

    async def _list(self, addresses: list[Address], *, exact: bool) -> list[dict[str, int]]:
        async def list_all(address: Address) -> dict[str, int]:
            return await self._transfers.list_all(address, exact=exact)

        return await self._transfers.each(list_all, addresses)

    async def _fetch_below(self, addresses: list[Address]) -> list[tuple[Address, str, Found]]:
        listed = await self._list(addresses, exact=True)
        below = [
            (above, Address(f"s3://{above.bucket}/{key}", above.bucket, key), size)
            for above, objects in zip(addresses, listed, strict=True)
            for key, size in objects.items()
        ]

        async def fetch(each: tuple[Address, Address, int]) -> Found | None:
            # an empty object with a name that ends with a slash is listed without the slash
            _, address, size = each
            return await self._transfers.fetch(Wanted(address, None), if_there=not size)

        found = await self._transfers.each(fetch, below)
        return [
            (above, address.url, fetched)
            for (above, address, _), fetched in zip(below, found, strict=True)
            if fetched is not None
        ]

    async def _put(self, uploads: list[GivenUpload], *, overwrite: bool) -> list[bool]:
        async def put(upload: GivenUpload) -> bool:
            return await self._transfers.put(upload, overwrite=overwrite)

        return await self._transfers.each(put, uploads)

    # --- making what goes in and comes out ------------------------------------------------------

    async def _put_all(
        self, items: list[tuple[str, Any, S3PutObject | None]], *, overwrite: bool
    ) -> list[tuple[str, str]]:
        uploads = [
            self._upload(
                key, value, *((each.content_type, each.metadata) if each else (None, None))
            )
            for key, value, each in items
        ]
        done = await self._submitted(self._put(uploads, overwrite=overwrite))
        return [
            (key, upload.address.url)
            for (key, *_), upload, is_new in zip(items, uploads, done, strict=True)
            if is_new
        ]

    def _upload(
        self, key: Any, value: Any, content_type: str | None, metadata: Mapping[str, str] | None
    ) -> GivenUpload:
        attributes = {"Content-Type": content_type} if content_type else {}
        if metadata:
            attributes[USER_METADATA] = json.dumps(metadata)
        return GivenUpload(of_object(url_of(self._root, key)), value, attributes)

    def _object(self, prefix: str | None, url: str, found: Found | None, *, info: bool) -> S3Object:
        if found is None:
            return S3Object(prefix, url, None)
        if not info:
            return S3Object(prefix, url, found.path)
        part = None if found.path is None else RangeInfo(found.size, found.start, found.length)
        return S3Object(
            prefix,
            url,
            found.path,
            found.size,
            found.content_type,
            found.metadata,
            part,
            found.last_modified,
        )


class S3:
    """Objects in S3 or in what speaks its protocol, many at a time.

    A key is relative to the root that `run` or `s3root` gives, or else a whole address
    `s3://BUCKET/KEY`. What is downloaded lies in a temporary folder, which is deleted at the end of
    the `with` block, or by `close`.

    With `run`, a step's `self` or a `Run`, the root is
    `s3://BUCKET/PREFIX/FLOW/RUN`, where bucket and prefix are those of the setting
    `datatools_s3root`, unless they are given. `tmproot` is where the temporary folder is made;
    by default, where the system has its own. `encryption` is how S3 encrypts what is put: `AES256`
    or `aws:kms`. `client_params` may have `endpoint_url`, `region_name` and keys, and
    `session_vars` may have keys, all named as boto3 does.

    In an `async def` step, use `async with`: its methods are the same, to be awaited. In place of
    that, these here block the step's event loop.

    Raises:
        NotInstalledError: The package obstore is not installed.
        S3AddressError: The root cannot be told.
    """

    def __init__(
        self,
        tmproot: str | os.PathLike[str] | None = None,
        bucket: str | None = None,
        prefix: str | None = None,
        run: FlowSpec | Run | None = None,
        s3root: str | None = None,
        encryption: str | None = None,
        **more: Any,
    ) -> None:
        options = options_of(more, encryption)
        root = root_of(run, s3root, bucket, prefix)
        folder = tempfile.mkdtemp(prefix="asyncflow.s3.", dir=tmproot)
        try:
            transfers = Transfers(folder, options)
        except BaseException:
            shutil.rmtree(folder)
            raise
        self._s3 = AsyncS3(root, folder, transfers)
        self._transfers = transfers
        self._end = weakref.finalize(self, _end, transfers, folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> AsyncS3:
        return self._s3

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        return repr(self._s3).replace("AsyncS3", "S3")

    def close(self) -> None:
        """Delete everything that was downloaded; a transfer that goes on is given up."""
        self._end()

    # --- getting --------------------------------------------------------------------------------

    def get(
        self,
        key: Key | None = None,
        return_missing: bool = False,  # noqa: FBT001, FBT002 - as in Metaflow
        return_info: bool = True,  # noqa: FBT001, FBT002 - as in Metaflow
    ) -> S3Object:
        """Download an object, or the range of it that a `S3GetObject` names.

        With `return_missing`, a missing one is returned with `exists` False. Without `return_info`,
        what comes has no content type, metadata, range and time.

        Raises:
            S3NotFoundError: It is missing.
            S3RangeError: It has no byte in the range.
            S3AddressError: There can be no such object.
            S3AccessDeniedError: The credentials do not allow it.
            S3DiskSpaceError: The disk is full.
            S3FailedError: S3 could not be reached, or could not do it.
        """
        return self._wait(self._s3.get(key, return_missing, return_info))

    def get_many(
        self,
        keys: Iterable[Key | None],
        return_missing: bool = False,  # noqa: FBT001, FBT002 - as in Metaflow
        return_info: bool = True,  # noqa: FBT001, FBT002 - as in Metaflow
    ) -> list[S3Object]:
        """Download many objects in parallel; they come in the order of the keys.

        Raises:
            S3Error: As `get`; the first error ends the rest.
        """
        return self._wait(self._s3.get_many(keys, return_missing, return_info))

    def get_recursive(
        self,
        keys: Iterable[str | None],
        return_info: bool = False,  # noqa: FBT001, FBT002 - as in Metaflow
    ) -> list[S3Object]:
        """Download all objects whose keys begin with one of these.

        As in Metaflow, `a` stands for `ab/c` as well; `a/` does not. Without `return_info`, the
        `key` of what comes is relative to the one that was given.

        Raises:
            S3Error: As `get`.
        """
        return self._wait(self._s3.get_recursive(keys, return_info))

    def get_all(self, return_info: bool = False) -> list[S3Object]:  # noqa: FBT001, FBT002 - as in Metaflow
        """Download all objects below the root.

        Raises:
            S3Error: There is no root, or as `get`.
        """
        return self._wait(self._s3.get_all(return_info))

    # --- putting --------------------------------------------------------------------------------

    def put(
        self,
        key: str | S3PutObject,
        obj: PutValue,
        overwrite: bool = True,  # noqa: FBT001, FBT002 - as in Metaflow
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Put text, bytes or a binary file, and return the address.

        Without `overwrite`, an object that is there already stays as it is.

        Raises:
            S3ObjectError: The value is something else.
            S3AddressError: There can be no such object.
            S3NotFoundError: There is no such bucket.
            S3AccessDeniedError: The credentials do not allow it.
            S3FailedError: S3 could not be reached, or could not do it.
        """
        return self._wait(self._s3.put(key, obj, overwrite, content_type, metadata))

    def put_many(
        self,
        key_objs: Iterable[tuple[str, PutValue] | S3PutObject],
        overwrite: bool = True,  # noqa: FBT001, FBT002 - as in Metaflow
    ) -> list[tuple[str, str]]:
        """Put many values in parallel, each a pair of key and value or a `S3PutObject`.

        The result has a pair of key and address for each that was put: without `overwrite`, those
        that were there already are left out.

        Raises:
            S3Error: As `put`; some may have been put.
        """
        return self._wait(self._s3.put_many(key_objs, overwrite))

    def put_files(
        self,
        key_paths: Iterable[tuple[str, str | os.PathLike[str]] | S3PutObject],
        overwrite: bool = True,  # noqa: FBT001, FBT002 - as in Metaflow
    ) -> list[tuple[str, str]]:
        """Put many local files in parallel, each a pair of key and path or a `S3PutObject`.

        The result is that of `put_many`.

        Raises:
            S3NotFoundError: There is no such file.
            S3Error: As `put`; some may have been put.
        """
        return self._wait(self._s3.put_files(key_paths, overwrite))

    # --- looking --------------------------------------------------------------------------------

    def list_paths(self, keys: Iterable[str] | None = None) -> list[S3Object]:
        """The objects in these folders, and the folders in them, for which `exists` is False.

        Without keys, those in the root. Each `key` is relative to the folder.

        Raises:
            S3Error: They cannot be listed.
        """
        return self._wait(self._s3.list_paths(keys))

    def list_recursive(self, keys: Iterable[str] | None = None) -> list[S3Object]:
        """All objects in these folders and in the folders in them; without keys, in the root.

        Raises:
            S3Error: They cannot be listed.
        """
        return self._wait(self._s3.list_recursive(keys))

    def info(self, key: str | None = None, return_missing: bool = False) -> S3Object:  # noqa: FBT001, FBT002 - as in Metaflow
        """What S3 knows of an object, without its bytes.

        Raises:
            S3Error: As `get`.
        """
        return self._wait(self._s3.info(key, return_missing))

    def info_many(
        self,
        keys: Iterable[str | None],
        return_missing: bool = False,  # noqa: FBT001, FBT002 - as in Metaflow
    ) -> list[S3Object]:
        """What S3 knows of many objects, asked for in parallel.

        Raises:
            S3Error: As `get`.
        """
        return self._wait(self._s3.info_many(keys, return_missing))

    def _wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run one of the coroutines above on the other loop, and wait for it in this thread."""
        future: Future[Result] = self._transfers.submit(work)
        try:
            return future.result()
        except BaseException:  # a step that is stopped, for example
            future.cancel()
            raise


def _end(transfers: Transfers, folder: str) -> None:
    transfers.close()
    shutil.rmtree(folder, ignore_errors=True)
