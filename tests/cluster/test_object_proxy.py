"""The proxy before an S3 server does to requests what a test asks for."""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.object_proxy import WAYS, Fault, kind_of

if TYPE_CHECKING:
    from tests.cluster.object_proxy import ObjectProxy

pytestmark = pytest.mark.cluster


@pytest.fixture
def store(s3_proxy: ObjectProxy, bucket: str) -> Any:
    """A client that never repeats a request."""
    from obstore.store import S3Store

    return S3Store(
        bucket,
        client_options={"allow_http": True, "timeout": timedelta(seconds=3)},
        retry_config={"max_retries": 0},
    )


def test_requests_are_counted_by_kind(store: Any, s3_proxy: ObjectProxy) -> None:
    """A listing is no get, and a part of a large object no put."""
    import obstore

    obstore.put(store, "a/one", b"1")
    obstore.put(store, "a/large", b"z" * (6 << 20), chunk_size=5 << 20)
    obstore.head(store, "a/one")
    assert len(obstore.list(store, "a").collect()) == 2
    assert bytes(obstore.get(store, "a/one").bytes()) == b"1"
    assert len(obstore.get(store, "a/large").bytes()) == 6 << 20
    obstore.delete(store, "a/one")
    counted = {"put": 1, "begin": 1, "part": 2, "complete": 1, "head": 1, "list": 1, "get": 2}
    assert {kind: s3_proxy.count()[kind] for kind in counted} == counted
    assert s3_proxy.count("a/one") >= Counter(put=1, head=1, get=1)


def test_every_request_is_delayed(store: Any, s3_proxy: ObjectProxy) -> None:
    """By as long as asked, and several at a time wait side by side."""
    import obstore

    s3_proxy.set(delay=0.2)
    began = time.monotonic()
    obstore.put(store, "one", b"1")
    assert 0.2 <= time.monotonic() - began < 1.0


@pytest.mark.parametrize("way", WAYS)
def test_the_second_request_fails(store: Any, s3_proxy: ObjectProxy, way: str) -> None:
    """The client sees an error, and what it asked for was done or not as the way says."""
    import obstore

    s3_proxy.set(Fault(way, at=2, kinds=["put"]))
    obstore.put(store, "one", b"1")
    if way == "half":  # the answer to a put has no body that could be cut
        s3_proxy.set(Fault(way))
        with pytest.raises(Exception, match=r"(?i)error"):
            obstore.get(store, "one").bytes()
    else:
        with pytest.raises(Exception, match=r"(?i)error|conflict|precondition|exists"):
            obstore.put(store, "two", b"2")
    assert s3_proxy.failed() == 1
    s3_proxy.set()
    names = {entry["path"] for entry in obstore.list(store).collect()}
    assert names == ({"one", "two"} if way in {"cut", "silent"} else {"one"})


@pytest.mark.parametrize(
    ("method", "target", "kind"),
    [
        ("GET", "/b?list-type=2&prefix=x%2F", ("list", "b/x/")),
        ("GET", "/b/x/y", ("get", "b/x/y")),
        ("PUT", "/b/x?partNumber=1&uploadId=2", ("part", "b/x")),
        ("POST", "/b/x?uploads", ("begin", "b/x")),
        ("POST", "/b/x?uploadId=2", ("complete", "b/x")),
        ("DELETE", "/b/x?uploadId=2", ("abort", "b/x")),
        ("POST", "/b?delete", ("delete", "b")),
        ("DELETE", "/b/x", ("delete", "b/x")),
        ("HEAD", "/b/x", ("head", "b/x")),
    ],
)
def test_the_kind_of_a_request(method: str, target: str, kind: tuple[str, str]) -> None:
    """As S3 tells them apart."""
    assert kind_of(method, target, b"") == kind
