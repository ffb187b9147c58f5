"""`Objects`: every answer to every kind of request, also to one that was carried out before."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncflow.errors import StoreError
from asyncflow.store.object_store.claim import Claim
from asyncflow.store.object_store.object_store import probe
from asyncflow.store.object_store.objects import Objects, ObjectStoreError
from tests.cluster.object_proxy import Fault

pytestmark = pytest.mark.cluster

WAYS = ("refused", "cut", "half", "409", "503", "500", "silent")


@pytest.fixture
def objects(bucket):
    """The objects of an empty bucket."""
    return Objects.open(f"s3://{bucket}/some/where")


@pytest.fixture
def behind_proxy(s3_proxy, bucket, monkeypatch):
    """The same behind the proxy; a request takes half a second at most."""
    monkeypatch.setattr("asyncflow.store.object_store.objects._REQUEST_SECONDS", 0.5)
    return Objects.open(f"s3://{bucket}/some/where")


# --- answers --------------------------------------------------------------------------------------


def test_an_object_is_written_and_read(objects):
    """Whole, in part, and what the store knows about it."""
    objects.put("a/b", b"0123456789")
    assert objects.get("a/b") == b"0123456789"
    assert objects.get_range("a/b", 3, 4) == b"3456"
    assert objects.get_range("a/b", 8, 100) == b"89"
    assert objects.get_range("a/b", 10, 5) == objects.get_range("a/b", 3, 0) == b""
    assert b"".join(objects.stream("a/b")) == b"0123456789"
    data, facts = objects.get_with_facts("a/b")
    assert (data, facts.name, facts.size) == (b"0123456789", "a/b", 10)
    assert facts == objects.head("a/b")
    assert abs(facts.modified - time.time()) < 100


def test_what_does_not_exist_is_a_missing_file(objects):
    """For every way to read it; to delete it is no error."""
    for ask in (objects.get, objects.head, objects.get_with_facts):
        with pytest.raises(FileNotFoundError, match="some/where/a"):
            ask("a")
    with pytest.raises(FileNotFoundError):
        objects.get_range("a", 0, 1)
    assert not objects.exists("a")
    assert not objects.has_any("a")
    assert list(objects.listed("a")) == list(objects.folders("a")) == []
    objects.delete(["a", "b"])


def test_an_object_is_created_once(objects):
    """Whoever comes later is told what is there, also if it is the very same."""
    assert objects.create("a", b"first") is None
    assert objects.create("a", b"second") == b"first"
    assert objects.create("a", b"first") == b"first"
    assert objects.get("a") == b"first"


def test_an_object_is_replaced_if_it_has_not_changed(objects):
    """An object that is gone has changed."""
    objects.put("a", b"first")
    e_tag = objects.head("a").e_tag
    new = objects.replace("a", b"second", e_tag)
    assert new == objects.head("a").e_tag
    assert objects.replace("a", b"third", e_tag) is None
    assert objects.replace("a", b"second", e_tag) is None
    assert objects.replace("b", b"first", e_tag) is None
    assert objects.get("a") == b"second"


def test_a_listing_is_in_order_and_goes_on_behind_a_name(objects):
    """Of what is below a folder, however deep."""
    names = ["a/1", "a/2", "a/2/3", "a/9", "ab/1"]
    for name in reversed(names):
        objects.put(name, b"x")
    assert [each.name for each in objects.listed("a")] == names[:4]
    assert [each.name for each in objects.listed("a", after="a/2")] == names[2:4]
    assert list(objects.folders("")) == ["a", "ab"]
    assert list(objects.folders("a")) == ["2"]
    objects.delete(names)
    assert not objects.has_any("")


def test_a_long_listing_is_whole(bucket, s3_server):
    """More than fit into one answer, or into one request of ours."""
    s3_server.fill(bucket, "some/where/many/", 12_345)
    listed = [each.name for each in Objects.open(f"s3://{bucket}/some/where").listed("many")]
    assert len(listed) == 12_345
    assert listed == sorted(set(listed))


def test_a_forked_process_is_refused(objects):
    """It would wait for ever for threads that it has not."""
    objects.put("a", b"x")
    child = os.fork()
    if child == 0:
        try:
            objects.get("a")
        except StoreError as error:
            os._exit(0 if "spawn" in str(error) else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_wrong_credentials_are_said_at_once(behind_proxy, s3_proxy):
    """Nothing is repeated that cannot succeed."""
    s3_proxy.set(Fault("403", times=100))
    begun = time.monotonic()
    with pytest.raises(ObjectStoreError, match="check the credentials"):
        behind_proxy.get("a")
    assert time.monotonic() - begun < 20
    assert s3_proxy.failed() == 1


# --- requests that fail ---------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_request_that_fails_once_is_as_if_it_had_not(behind_proxy, s3_proxy, way):
    """Whether it was carried out or not, and whatever it was."""
    objects, fault = behind_proxy, Fault(way)
    doings = {
        "put": lambda: objects.put("a", b"1"),
        "create": lambda: objects.create("b", b"1"),
        "get": lambda: objects.get("a"),
        "range": lambda: objects.get_range("a", 0, 1),
        "head": lambda: objects.head("a").size,
        "list": lambda: [each.name for each in objects.listed("")],
        "replace": lambda: objects.replace("a", b"2", objects.head("a").e_tag) is not None,
        "other": lambda: objects.create("b", b"2"),
        "delete": lambda: objects.delete(["a"]),
    }
    answers = {}
    for name, do in doings.items():
        s3_proxy.set(fault)
        answers[name] = do()
        assert s3_proxy.failed() == 1, name
    assert answers == {
        "put": None,
        "create": None,
        "get": b"1",
        "range": b"1",
        "head": 1,
        "list": ["a", "b"],
        "replace": True,
        "other": b"1",
        "delete": None,
    }


@pytest.mark.parametrize("way", ["cut", "silent", "409"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_conditional_write_knows_whether_it_was_itself(behind_proxy, s3_proxy, way, at):
    """Whichever of its requests fails, the write or the look at what is there."""
    s3_proxy.set(Fault(way, at=at), Fault(way, at=1, kinds=("put",)))
    assert behind_proxy.create("a", b"mine") is None
    s3_proxy.set(Fault(way, at=at), Fault(way, at=1, kinds=("put",)))
    assert behind_proxy.create("a", b"yours") == b"mine"
    s3_proxy.set()
    e_tag = behind_proxy.head("a").e_tag
    s3_proxy.set(Fault(way, at=at), Fault(way, at=1, kinds=("put",)))
    new = behind_proxy.replace("a", b"again", e_tag)
    assert new is not None
    s3_proxy.set(Fault(way, at=at), Fault(way, at=1, kinds=("put",)))
    assert behind_proxy.replace("a", b"late", e_tag) is None
    assert behind_proxy.get("a") == b"again"


@pytest.mark.parametrize("beats", [0, 1], ids=["made", "renewed"])
def test_a_claim_stays_its_writers_though_an_answer_is_lost_for_good(s3_proxy, bucket, beats):
    """The store was cut off right after it had carried the request out, and for long."""
    objects = Objects.open(f"s3://{bucket}/some/where").with_patience(0)
    claim = Claim(objects, "claim", b"w" * 16)
    for _ in range(beats):
        claim.beat()
    s3_proxy.set(Fault("cut", kinds=("put",)))
    with pytest.raises(ObjectStoreError):
        claim.beat()
    assert s3_proxy.failed() == 1
    s3_proxy.set()
    before = objects.head("claim").e_tag
    claim.beat()
    claim.beat()
    assert not claim.is_lost
    assert objects.head("claim").e_tag != before
    objects.put("claim", b'{"writer": "others", "host": "there"}')
    claim.beat()
    assert claim.is_lost


REQUESTS = {
    "get": lambda objects: objects.get("a"),
    "range": lambda objects: objects.get_range("a", 0, 1),
    "stream": lambda objects: list(objects.stream("a")),
    "head": lambda objects: objects.head("a"),
    "list": lambda objects: list(objects.listed("a")),
    "folders": lambda objects: objects.folders("a"),
    "put": lambda objects: objects.put("a", b"1"),
    "create": lambda objects: objects.create("a", b"1"),
    "replace": lambda objects: objects.replace("a", b"1", '"x"'),
    "copy": lambda objects: objects.copy("a", "b"),
    "delete": lambda objects: objects.delete(["a"]),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_no_request_waits_for_ever(behind_proxy, s3_proxy, name):
    """Whatever is asked of a store that takes requests and never answers."""
    s3_proxy.set(Fault("silent", times=10**6))
    began = time.monotonic()
    with pytest.raises(ObjectStoreError):
        REQUESTS[name](behind_proxy.with_patience(0.1))
    assert time.monotonic() - began < 15  # a request takes half a second


def test_a_store_that_is_down_is_asked_for_a_while(behind_proxy, s3_proxy):
    """Then the error says what it says."""
    objects = behind_proxy.with_patience(0.5)
    s3_proxy.set(Fault("503", times=1000))
    begun = time.monotonic()
    with pytest.raises(ObjectStoreError, match="503"):
        objects.put("a", b"x")
    assert time.monotonic() - begun >= 0.5
    assert s3_proxy.failed() >= 3


# --- any sequence ---------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "a/b"])
STEPS = st.tuples(st.sampled_from(["put", "create", "replace", "stale", "delete"]), NAMES)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, max_size=25))
def test_any_sequence_of_writes_leaves_what_a_dictionary_would(steps):
    """In obstore's own store in memory, which heeds conditions."""
    from obstore.store import MemoryStore

    objects, expected = Objects(MemoryStore, patience_seconds=1.0), {}
    for number, (what, name) in enumerate(steps):
        data = b"%d" % number
        if what == "put":
            objects.put(name, data)
            expected[name] = data
        elif what == "create":
            assert objects.create(name, data) == expected.get(name)
            expected.setdefault(name, data)
        elif what == "delete":
            objects.delete([name])
            expected.pop(name, None)
        else:
            e_tag = objects.head(name).e_tag if name in expected else '"none"'
            if what == "stale" and name in expected:
                objects.put(name, expected[name] + b"'")
                expected[name] += b"'"
            done = objects.replace(name, data, e_tag) is not None
            assert done == (what == "replace" and name in expected)
            if done:
                expected[name] = data
    assert {each.name: objects.get(each.name) for each in objects.listed("")} == expected


def test_a_server_that_compares_etags_without_their_quotes(behind_proxy, s3_proxy):
    """As Ceph 16 does: a version that has not changed is replaced, and no other."""
    first = behind_proxy.create_version("a", b"first")
    s3_proxy.set(bare_etags=True)
    second = behind_proxy.replace("a", b"second", first)
    assert second
    assert behind_proxy.replace("a", b"third", first) is None
    assert behind_proxy.get("a") == b"second"
    assert behind_proxy.replace("a", b"third", second)
    probe(behind_proxy)


@pytest.mark.parametrize("way", ["cut", "half", "500"])
def test_an_answer_that_is_lost_while_etags_have_no_quotes(behind_proxy, s3_proxy, way):
    """It was itself that wrote, or nobody did and it writes now."""
    first = behind_proxy.create_version("a", b"first")
    for at in (1, 2):
        s3_proxy.set(Fault(way, at=at, kinds=("put",)), bare_etags=True)
        changed = behind_proxy.replace("a", b"%d" % at, first)
        assert changed
        assert s3_proxy.failed() == 1
        assert behind_proxy.get("a") == b"%d" % at
        first = changed
