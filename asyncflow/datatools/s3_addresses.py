"""Addresses in S3: which one a key means, and which part of an object is asked for.

Nothing here touches the network.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from asyncflow._support.settings import Settings
from asyncflow.errors import S3AddressError, S3RangeError
from asyncflow.flow.current import current
from asyncflow.flow.spec import FlowSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

_URL: Final = re.compile(r"s3://([^/]+)(?:/(.*))?", re.DOTALL)

Range = tuple[int, int] | dict[str, int]
"""As obstore takes it: the first byte and the one behind the last, or an offset, or a suffix."""


class Address(NamedTuple):
    """One key of one bucket."""

    url: str
    bucket: str
    key: str


class Wanted(NamedTuple):
    """An object to get, or a range of it."""

    address: Address
    part: Range | None


def parse(url: str) -> Address:
    """The bucket and the key of an address `s3://BUCKET/KEY`; the key may be empty.

    Raises:
        S3AddressError: It is not such an address.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise S3AddressError(f"{url!r} is not an address in S3: it should be s3://BUCKET/KEY")
    return Address(url, match[1], (match[2] or "").lstrip("/"))


def of_object(url: str) -> Address:
    """The address of a single object.

    Raises:
        S3AddressError: It cannot be that of an object, or not of one that obstore can name.
    """
    address = parse(url)
    if not address.key:
        raise S3AddressError(f"{url!r} is a bucket and not an object: it should be s3://BUCKET/KEY")
    if any(part in {"", ".", ".."} for part in address.key.split("/")):
        raise S3AddressError(
            f"{url!r} cannot be used: a part of its key between slashes is empty or consists of "
            "dots, and obstore would change it"
        )
    return address


def root_of(
    run: Any, s3root: str | bytes | None, bucket: str | None, prefix: str | None
) -> str | None:
    """The address that the keys of an `S3` are relative to; None if they are whole addresses.

    Raises:
        S3AddressError: It cannot be told, or is no address in S3.
    """
    if run is not None and run is not False:
        return _root_of_run(run, bucket, prefix)
    if not s3root:
        return None
    root = _text(s3root).rstrip("/")
    if not root.startswith("s3://"):
        raise S3AddressError(f"s3root has to begin with s3://, and is {root!r}")
    return parse(root).url


def _root_of_run(run: Any, bucket: str | None, prefix: str | None) -> str:
    configured = urlsplit(Settings.read().datatools_s3root)
    if not bucket and configured.scheme != "s3":
        raise S3AddressError(
            "it is not known where S3(run=…) keeps the data of runs: set "
            "ASYNCFLOW_DATATOOLS_S3ROOT to s3://BUCKET/PREFIX, or name the bucket"
        )
    bucket = bucket or configured.netloc
    prefix = (configured.path if prefix is None else prefix).strip("/")
    if isinstance(run, FlowSpec):
        if not current.is_running_flow:
            raise S3AddressError("S3(run=self) is for a step that is running")
        flow, run_id = current.flow_name, current.run_id
    else:
        flow, run_id = run.parent.id, run.id
    return "s3://" + "/".join(part for part in (bucket, prefix, flow, run_id) if part)


def url_of(root: str | None, key: Any) -> str:
    """The address that a key means.

    Raises:
        S3AddressError: It is relative and there is no root, or the other way round.
    """
    key = getattr(key, "key", key)
    text = _text(key) if key is not None else ""
    if root is None:
        if text.startswith("s3://") and "/" in text[len("s3://") :]:
            return text
        where = "run=self" if current.is_running_flow else "s3root or run"
        raise S3AddressError(
            f"{text!r} is not a whole address s3://BUCKET/KEY: write one, or give S3 {where}"
        )
    if text.startswith("s3://"):
        raise S3AddressError(f"{text!r} is a whole address, but this S3 has its root at {root}")
    return f"{root}/{text.lstrip('/')}" if text else root


def wanted(root: str | None, key: Any) -> Wanted:
    """The object that a key means, and the range of it if it is a `S3GetObject`.

    Raises:
        S3AddressError: The key cannot be used.
        S3RangeError: There can be no such range.
    """
    address = of_object(url_of(root, key))
    offset, length = getattr(key, "offset", None), getattr(key, "length", None)
    if offset is None and length is None:
        return Wanted(address, None)
    offset = offset or 0
    if length is not None and length < 0:
        return Wanted(address, {"suffix": -length})
    if offset < 0 or length == 0:
        raise S3RangeError(f"{address.url} has no {length} bytes from byte {offset} on")
    return Wanted(address, {"offset": offset} if length is None else (offset, offset + length))


def options_of(more: Mapping[str, Any], encryption: str | None) -> dict[str, str]:
    """Options for obstore from Metaflow's further arguments of `S3`.

    Raises:
        TypeError: An argument is unknown.
    """
    found = {"server_side_encryption": encryption} if encryption else {}
    for name, given in more.items():
        names = _OPTIONS.get(name)
        if names is None:
            message = f"S3() got an unexpected keyword argument {name!r}"
            raise TypeError(message)
        for each, value in (given or {}).items():
            if each not in names:
                message = f"S3() cannot use {each!r} of {name}; it can use {', '.join(names)}"
                raise TypeError(message)
            found[names[each]] = os.fspath(value)
    return found


_KEYS: Final = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region_name": "region",
}
_OPTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "session_vars": _KEYS,
    "client_params": {**_KEYS, "endpoint_url": "endpoint"},
}


def _text(key: object) -> str:
    if isinstance(key, bytes):
        return key.decode()
    if isinstance(key, str):
        return key
    raise S3AddressError(f"a key is text, not {type(key).__name__}: {key!r}")
