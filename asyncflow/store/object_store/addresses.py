"""The URLs of stores, and the folder on this machine that goes with each."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from blake3 import blake3

from asyncflow.errors import StoreError

SCHEMES: Final = ("s3", "gs", "az", "abfs", "abfss")
"""Amazon's S3 and what speaks like it, Google's, and Azure's."""
CACHE_VARIABLE: Final = "ASYNCFLOW_CACHE"
"""The environment variable that names the folder of all caches."""
_ENDPOINT: Final = re.compile(r"(?i).*endpoint.*")
_UNPLAIN: Final = re.compile(r"[^A-Za-z0-9]+")
_DIGITS: Final = 16


def normalized(location: str) -> str:
    """The one way to write a URL: scheme, bucket, and prefix without a slash at its end.

    Raises:
        StoreError: It is no URL of an object store.
    """
    parts = urlsplit(location)
    scheme = parts.scheme.lower()
    if scheme not in SCHEMES:
        known = ", ".join(f"{each}://" for each in SCHEMES)
        message = f"there is no kind of store for {location}: it takes a folder, or one of {known}"
        raise StoreError(message)
    if not parts.netloc or parts.query or parts.fragment or "@" in parts.netloc:
        message = (
            f"{location} does not name a store: write {scheme}://BUCKET/PREFIX, and give "
            "credentials in the environment"
        )
        raise StoreError(message)
    prefix = "/".join(part for part in parts.path.split("/") if part)
    return f"{scheme}://{parts.netloc}/{prefix}".rstrip("/")


def cache_folder(location: str) -> Path:
    """The folder on this machine for what belongs to a store: journals that grow, and copies.

    It is in `ASYNCFLOW_CACHE`, else in `asyncflow` of the user's folder of caches. The same bucket
    behind another endpoint is another store.
    """
    endpoints = sorted(
        f"{name}={value}" for name, value in os.environ.items() if _is_endpoint(name)
    )
    key = blake3("\n".join([location, *endpoints]).encode()).hexdigest()[:_DIGITS]
    name = _UNPLAIN.sub("-", location.partition("://")[2])[:64]
    return _cache() / f"{name}-{key}"


def _is_endpoint(name: str) -> bool:
    return name.startswith(("AWS_", "AZURE_", "GOOGLE_")) and _ENDPOINT.match(name) is not None


def _cache() -> Path:
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).absolute()
    of_user = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(of_user) if of_user else Path.home() / ".cache") / "asyncflow"
    except RuntimeError as error:  # no home
        message = f"there is no folder for the cache: {error}; name one with {CACHE_VARIABLE}"
        raise StoreError(message) from error
