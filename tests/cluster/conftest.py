"""What the tests with Dask, Ray and object stores may ask for."""

from __future__ import annotations

import logging
import os
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.object_proxy import ObjectProxy
from tests.support.s3_server import S3Server

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@pytest.fixture(scope="session")
def s3_server() -> Generator[S3Server, None, None]:
    """An S3 server in a process of its own."""
    with S3Server() as server:
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of this machine for object stores; it is empty."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ASYNCFLOW_CACHE", str(folder))
    return folder


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an empty bucket, which this process finds by its environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.create_bucket(f"test-{uuid.uuid4().hex[:12]}")


@pytest.fixture(scope="session")
def one_proxy(s3_server: S3Server) -> Generator[ObjectProxy, None, None]:
    """The proxy before the S3 server."""
    with ObjectProxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def s3_proxy(
    one_proxy: ObjectProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> Generator[ObjectProxy, None, None]:
    """A proxy before the S3 server, which this process finds in its place.

    It counts requests, and delays them or lets them fail as told by `set`.
    """
    monkeypatch.setenv("AWS_ENDPOINT_URL", one_proxy.url)
    one_proxy.set()
    yield one_proxy
    one_proxy.set()


@pytest.fixture(scope="session")
def ray_here() -> Generator[Any, None, None]:
    """Ray, connected to a cluster of this session that has GPUs by name only."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: it is in an extra of its own")
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    ray.init(
        address="local",
        num_cpus=8,
        num_gpus=2,
        resources={"licence": 1},
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 << 20,
    )
    yield ray
    ray.shutdown()
