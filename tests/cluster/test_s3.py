"""`S3` against moto's server: what it does, and that it does it as Metaflow."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncflow import S3, Engine, FlowSpec, current, errors, step
from asyncflow.datatools import RangeInfo, S3GetObject, S3PutObject
from asyncflow.datatools.s3 import MetaflowS3NotFound
from tests.cluster.object_proxy import Fault

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.support.s3_server import S3Server

pytestmark = pytest.mark.cluster


@pytest.fixture
def s3(bucket: str, tmp_path: Path) -> Generator[S3, None, None]:
    """An `S3` with a root of its own."""
    with S3(s3root=f"s3://{bucket}/root", tmproot=tmp_path) as opened:
        yield opened


@pytest.fixture
def tree(s3: S3) -> S3:
    """The same with the objects of Metaflow's documentation, and one beside its folder `a`."""
    s3.put_many([(key, key) for key in ("a/0.txt", "a/b/1.txt", "a/d/e/3.txt", "ab/5.txt", "f/4")])
    return s3


def keys(objects: list[Any]) -> list[str]:
    """Their keys, in order."""
    return [each.key for each in objects]


# --- putting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["zwölf", "zwölf".encode(), io.BytesIO("zwölf".encode())])
def test_text_bytes_and_files_are_put(s3: S3, value: Any):
    """Text as UTF-8, a file from its beginning."""
    if isinstance(value, io.BytesIO):
        value.read(3)
    url = s3.put("x", value)
    assert url.endswith("/root/x")
    assert s3.get("x").text == "zwölf"


@pytest.mark.parametrize("value", [3, None, ["x"], io.StringIO("x")])
def test_anything_else_is_refused(s3: S3, value: Any):
    """A number is not text."""
    with pytest.raises(errors.S3ObjectError, match="'x'"):
        s3.put("x", value)
    assert s3.list_paths() == []


def test_content_type_and_metadata_come_back(s3: S3):
    """As they were put, also with `put_many` and letters beyond ASCII."""
    s3.put("x", "1", content_type="text/x", metadata={"größe": "3"})
    s3.put_many([S3PutObject("y", "2", content_type="q/q", metadata={"z": "1"})])
    x, y = s3.info_many(["x", "y"])
    assert (x.content_type, x.metadata, x.size) == ("text/x", {"größe": "3"}, 1)
    assert (y.content_type, y.metadata, y.downloaded) == ("q/q", {"z": "1"}, False)


def test_without_overwrite_an_object_stays(s3: S3):
    """And `put_many` returns only what was put."""
    s3.put("x", "first")
    assert s3.put("x", "second", overwrite=False).endswith("/x")
    assert keys_of(s3.put_many([("x", "third"), ("y", "new")], overwrite=False)) == ["y"]
    assert [each.text for each in s3.get_many(["x", "y"])] == ["first", "new"]


def keys_of(pairs: list[tuple[str, str]]) -> list[str]:
    """The keys of what was put."""
    return [key for key, _ in pairs]


def test_of_many_that_put_without_overwrite_one_wins(bucket: str):
    """Whoever loses leaves what is there."""
    root = f"s3://{bucket}/race"
    done: list[tuple[int, list[tuple[str, str]]]] = []

    def put(number: int) -> None:
        with S3(s3root=root) as s3:
            done.append((number, s3.put_many([("x", str(number))], overwrite=False)))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    winners = [number for number, put_there in done if put_there]
    with S3(s3root=root) as s3:
        assert [s3.get("x").text] == [str(number) for number in winners]


def test_files_are_put(s3: S3, tmp_path: Path):
    """Small, empty and of several parts; a missing one is an error, and nothing is put."""
    big = os.urandom(20 * 2**20)
    for name, data in (("small", b"x"), ("empty", b""), ("big", big)):
        (tmp_path / name).write_bytes(data)
    s3.put_files([(name, tmp_path / name) for name in ("small", "empty", "big")])
    assert [each.blob for each in s3.get_many(["small", "empty", "big"])] == [b"x", b"", big]
    with pytest.raises(errors.S3NotFoundError, match="nowhere"):
        s3.put_files([("a", tmp_path / "small"), ("b", tmp_path / "nowhere")])
    assert not s3.info("a", return_missing=True).exists


def test_a_large_object_without_overwrite(s3: S3):
    """It is put once."""
    big = os.urandom(9 * 2**20)
    assert len(s3.put_many([("big", big)], overwrite=False)) == 1
    assert s3.put_many([("big", b"small")], overwrite=False) == []
    assert s3.get("big").blob == big


# --- getting ------------------------------------------------------------------------------------


def test_a_large_object_is_fetched_in_parts(s3: S3):
    """Its bytes are in their places; of a range, too."""
    big = os.urandom(37 * 2**20 + 5)
    s3.put("big", big)
    assert s3.get("big").blob == big
    part = s3.get(S3GetObject("big", 3, 30 * 2**20))
    assert part.blob == big[3 : 3 + 30 * 2**20]
    assert part.range_info == RangeInfo(len(big), 3, 30 * 2**20)


@pytest.mark.parametrize(
    ("offset", "length", "value", "start"),
    [
        (1, 2, "hr", 1),
        (1, 200, "hree", 1),
        (2, None, "ree", 2),
        (0, -2, "ee", 3),
        (None, 3, "thr", 0),
    ],
)
def test_a_range(s3: S3, offset: int, length: int, value: str, start: int):
    """From an offset, to the end, or so many bytes at the end."""
    s3.put("x", "three")
    found = s3.get(S3GetObject("x", offset, length))
    assert (found.text, found.size) == (value, len(value))
    assert found.range_info == (5, start, len(value))


@pytest.mark.parametrize(("offset", "length"), [(5, 1), (100, None), (-1, 2), (0, 0)])
def test_a_range_without_a_byte_is_an_error(s3: S3, offset: int, length: int):
    """Of its own kind, from `get` and from `get_many`."""
    s3.put("x", "three")
    with pytest.raises(errors.S3RangeError):
        s3.get(S3GetObject("x", offset, length))
    with pytest.raises(errors.S3RangeError):
        s3.get_many(["x", S3GetObject("x", offset, length)])


def test_a_missing_object_is_an_error_that_names_it(s3: S3):
    """From all three, and in Metaflow's name for it."""
    s3.put("x", "1")
    for get in (
        s3.get,
        s3.info,
        lambda key: s3.get_many(["x", key]),
        lambda key: s3.info_many([key]),
    ):
        with pytest.raises(MetaflowS3NotFound, match="root/nothing"):
            get("nothing")


def test_missing_objects_can_be_returned(s3: S3):
    """In their places, with `exists` False."""
    s3.put("x", "1")
    for found in (
        s3.get_many(["a", "x", "b"], return_missing=True),
        s3.info_many(["a", "x", "b"], return_missing=True),
    ):
        assert [each.exists for each in found] == [False, True, False]
        assert keys(found) == ["a", "x", "b"]
    missing = s3.get("a", return_missing=True)
    assert (missing.path, missing.blob, missing.text, missing.size) == (None, None, None, None)
    assert "does not exist" in repr(missing)


def test_info_can_be_left_out(s3: S3):
    """Then it is not known."""
    s3.put("x", "1")
    found = s3.get("x", return_info=False)
    assert (found.content_type, found.range_info, found.last_modified) == (None, None, None)
    assert not found.has_info
    assert abs(s3.get("x").last_modified - time.time()) < 60  # type: ignore[operator]  # it is there


def test_the_same_key_twice_gives_two_files(s3: S3):
    """So that changing one does not change the other."""
    s3.put("x.csv", "1")
    one, other = s3.get_many(["x.csv", "x.csv"])
    assert one.path != other.path
    assert str(one.path).endswith(".csv")


def test_files_vanish_at_the_end(bucket: str, tmp_path: Path):
    """All of them, and the folder; what comes after is an error."""
    with S3(s3root=f"s3://{bucket}/x", tmproot=tmp_path) as s3:
        s3.put("a", "1")
        path = Path(s3.get("a").path or "")
        assert path.read_text() == "1"
        assert tmp_path in path.parents
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(errors.S3FailedError, match="closed"):
        s3.get("a")
    s3.close()


def test_one_that_is_forgotten_leaves_no_file(bucket: str, tmp_path: Path):
    """Nor a thread."""
    s3 = S3(s3root=f"s3://{bucket}/x", tmproot=tmp_path)
    s3.put("a", "1")
    s3.get("a")
    del s3
    assert list(tmp_path.iterdir()) == []
    assert not [each for each in threading.enumerate() if each.name == "asyncflow-s3"]


# --- listing ------------------------------------------------------------------------------------


def test_the_next_level(tree: S3):
    """Objects first, then folders; keys are relative to the folder."""
    found = tree.list_paths(["a", "f"])
    assert [(each.key, each.exists) for each in found] == [
        ("0.txt", True),
        ("b", False),
        ("d", False),
        ("4", True),
    ]
    assert found[1].url.endswith("/a/b/")
    assert keys(tree.list_paths()) == ["a", "ab", "f"]
    assert tree.list_paths(["nothing"]) == []


def test_everything_below(tree: S3):
    """In a folder; `a` is not `ab`."""
    assert keys(tree.list_recursive(["a"])) == ["0.txt", "b/1.txt", "d/e/3.txt"]
    assert [each.size for each in tree.list_recursive(["a/b", "f"])] == [9, 3]
    assert len(tree.list_recursive()) == 5


def test_everything_that_begins_so_is_fetched(tree: S3):
    """`a` stands for `ab` as well, as in Metaflow, and `a/` does not."""
    assert [each.text for each in tree.get_recursive(["a"])] == [
        "a/0.txt",
        "a/b/1.txt",
        "a/d/e/3.txt",
        "ab/5.txt",
    ]
    assert keys(tree.get_recursive(["a/", "f"])) == ["0.txt", "b/1.txt", "d/e/3.txt", "4"]
    assert [each.text for each in tree.get_recursive(["a/b/1.t"])] == ["a/b/1.txt"]
    assert tree.get_recursive(["nothing", "zz"]) == []
    assert keys(tree.get_all(return_info=True)) == keys(tree.list_recursive())


def test_thousands_of_keys(s3_server: S3Server, s3: S3, bucket: str):
    """All are listed, over several answers of the server; those that begin so are found."""
    s3_server.fill(bucket, "root/many/k", 2_500)
    s3_server.fill(bucket, "root/many-others/k", 3)
    listed = s3.list_recursive(["many"])
    assert keys(listed) == [f"k{number:06}" for number in range(2_500)]
    found = s3.get_recursive(["many/k0007", "many/k00249"])
    assert [each.text for each in found] == [
        f"root/many/k{number:06}" for number in (*range(700, 800), *range(2_490, 2_500))
    ]


def test_many_at_a_time(s3: S3):
    """Hundreds are put and fetched, in the order of their keys."""
    names = [f"{number}" for number in range(300)]
    s3.put_many([(name, f"value {name}") for name in names])
    assert [each.text for each in s3.get_many(names[::-1])] == [f"value {n}" for n in names[::-1]]


def test_names_with_strange_letters(s3: S3):
    """Blanks, signs and letters beyond ASCII are kept as they are."""
    names = ["a b/c#d.txt", "ü/é", "x%20y", "a?b=c", "a+b&c", "~{}[]|`^", "🎈"]
    s3.put_many([(name, name) for name in names])
    assert [each.text for each in s3.get_many(names)] == names
    assert sorted(keys(s3.list_recursive())) == sorted(names)
    assert [each.text for each in s3.get_recursive(["🎈", "~", "x%"])] == [
        "🎈",
        "~{}[]|`^",
        "x%20y",
    ]


@pytest.mark.parametrize("key", ["a//b", "a/", "../x", "a/./b"])
def test_a_key_that_would_be_changed_is_refused(s3: S3, key: str):
    """In place of another object than the one that was named."""
    with pytest.raises(errors.S3AddressError):
        s3.put(key, "x")
    with pytest.raises(errors.S3AddressError):
        s3.get(key)


def test_an_object_that_only_marks_a_folder_is_passed_over(s3: S3, bucket: str):
    """As the consoles of S3 make them."""
    import boto3

    s3.put("f/x", "1")
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    client.put_object(Bucket=bucket, Key="root/f/sub/", Body=b"")
    assert [each.text for each in s3.get_recursive(["f"])] == ["1"]


# --- addresses ----------------------------------------------------------------------------------


def test_whole_addresses_without_a_root(bucket: str):
    """Keys are then the whole addresses."""
    with S3() as s3:
        url = s3.put(f"s3://{bucket}/a/b", "1")
        assert url == f"s3://{bucket}/a/b"
        assert s3.get(url).key == url
        assert keys(s3.list_recursive([f"s3://{bucket}/"])) == ["a/b"]
        for wrong in ("a/b", "http://x/y", f"s3://{bucket}", f"s3://{bucket}/", ""):
            with pytest.raises(errors.S3AddressError, match=r"s3root|bucket"):
                s3.get(wrong)
        with pytest.raises(errors.S3AddressError, match="get_all"):
            s3.get_all()


def test_whole_addresses_with_a_root_are_refused(s3: S3, bucket: str):
    """Most likely a mistake."""
    with pytest.raises(errors.S3AddressError, match="has its root at"):
        s3.get(f"s3://{bucket}/x")


def test_a_bucket_that_is_missing(bucket: str):
    """All say so."""
    with S3() as s3:
        for do in (s3.get, lambda url: s3.put(url, "x"), lambda url: s3.list_paths([url])):
            with pytest.raises(errors.S3NotFoundError, match="bucket"):
                do("s3://there-is-none/x")


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, bucket: str):
    """Is an error that names the address, after some attempts."""
    from asyncflow._support import buckets

    monkeypatch.setattr(buckets, "_TRIES", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    endpoint = {"endpoint_url": f"http://127.0.0.1:{port}"}
    with (
        S3(s3root=f"s3://{bucket}/x", client_params=endpoint) as s3,
        pytest.raises(errors.S3FailedError, match=f"s3://{bucket}/x/a: .*127.0.0.1"),
    ):
        s3.get("a")


@pytest.mark.parametrize(
    "do",
    [
        lambda s3: s3.get("a"),
        lambda s3: s3.put("a", "1"),
        lambda s3: s3.list_paths(),
        lambda s3: s3.info("a"),
        lambda s3: s3.get_many(["a", "b"]),
    ],
    ids=["get", "put", "list", "info", "many"],
)
def test_no_request_waits_for_ever(do: Any, bucket: str, s3_proxy: Any, monkeypatch: Any):
    """Of a server that takes requests and never answers; within some minutes by itself."""
    from asyncflow._support import buckets

    assert buckets._SECONDS + buckets._RETRY_SECONDS <= 150
    monkeypatch.setattr(buckets, "_SECONDS", 0.3)
    monkeypatch.setattr(buckets, "_RETRY_SECONDS", 0.5)
    s3_proxy.set(Fault("silent", times=10**6))
    began = time.monotonic()
    with S3(s3root=f"s3://{bucket}/x") as s3, pytest.raises(errors.S3FailedError):
        do(s3)
    assert time.monotonic() - began < 20  # a request takes a third of a second


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_stores_and_s3_find_the_same_place_and_credentials(scheme: str, monkeypatch: Any):
    """By boto3 if no variable names them; a body is signed where no TLS protects it."""
    from asyncflow._support.buckets import open_bucket
    from asyncflow.store.object_store.objects import Objects

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    found: list[Any] = []

    class Session:
        def __init__(self) -> None:
            found.append(self)

        def get_credentials(self) -> None:
            return None

    monkeypatch.setattr("boto3.session.Session", Session)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"{scheme}://storage.example.com")
    bucket = open_bucket(f"bucket-{scheme}")
    objects = Objects.open(f"s3://bucket-{scheme}/flows")._obstore.store
    assert len(found) == 2
    for each in (bucket, objects):
        assert each.config["endpoint"] == f"{scheme}://storage.example.com"
        assert each.config.get("unsigned_payload") == ("true" if scheme == "https" else None)


def test_a_place_can_be_given_as_in_metaflow(s3_server: S3Server, bucket: str, monkeypatch: Any):
    """By `client_params` and `session_vars`, without any variable."""
    for name in s3_server.environment:
        monkeypatch.delenv(name)
    keys_given = {"aws_access_key_id": "x", "aws_secret_access_key": "y"}
    place = {"endpoint_url": s3_server.endpoint, "region_name": "us-east-1"}
    with S3(s3root=f"s3://{bucket}/x", client_params=place, session_vars=keys_given) as s3:
        s3.put("a", "1")
        assert s3.get("a").text == "1"
    with pytest.raises(TypeError, match="role"):
        S3(role="arn:aws:iam::1:role/x")
    with pytest.raises(TypeError, match="proxies"):
        S3(client_params={"proxies": {}})


# --- in a flow ----------------------------------------------------------------------------------


class Keeps(FlowSpec):
    @step
    def start(self):
        with S3(run=self) as s3:
            self.url = s3.put("greeting", "hello")
        self.next(self.fetch)

    @step
    async def fetch(self):
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        ticking = asyncio.create_task(tick())
        async with S3(run=self, bucket=None) as s3:
            await s3.put_many([(str(number), str(number)) for number in range(200)])
            found = await s3.get_many([str(number) for number in range(200)])
            self.total = sum(int(each.text or "") for each in found)
            self.greeting = (await s3.get("greeting")).text
        ticking.cancel()
        self.ticks = ticks
        self.run_id = current.run_id
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_the_data_of_a_run(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`run=self` is the run's own place; awaiting leaves the loop free; a `Run` finds it later."""
    monkeypatch.setenv("ASYNCFLOW_DATATOOLS_S3ROOT", f"s3://{bucket}/data/")
    async with Engine(store=tmp_path / "store", workers=1) as engine:
        run = await engine.run(Keeps)
        assert run.data.url == f"s3://{bucket}/data/Keeps/{run.id}/greeting"
        assert (run.data.total, run.data.greeting) == (19900, "hello")
        assert run.data.ticks > 20
        async with S3(run=run) as s3:
            assert (await s3.get("greeting")).text == "hello"
            assert len(await s3.list_paths()) == 201


def test_a_run_without_a_place(bucket: str):
    """The error says what to set; a bucket that is given is enough."""
    run: Any = type("Run", (), {"id": "7", "parent": type("Flow", (), {"id": "F"})})
    with pytest.raises(errors.S3AddressError, match="ASYNCFLOW_DATATOOLS_S3ROOT"):
        S3(run=run)
    with S3(run=run, bucket=bucket, prefix="p") as s3:
        assert s3.put("a", "1") == f"s3://{bucket}/p/F/7/a"
    with pytest.raises(errors.S3AddressError, match="step that is running"):
        S3(run=Keeps(use_cli=False), bucket=bucket)


async def test_what_is_cancelled_is_given_up(bucket: str):
    """And the rest can be used."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        endpoint = {"endpoint_url": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        async with S3(s3root=f"s3://{bucket}/x", client_params=endpoint) as s3:
            began = time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await s3.get("a")
                pytest.fail("it was not given up")
        assert time.monotonic() - began < 5


def test_a_forked_process_says_that_it_cannot(bucket: str, tmp_path: Path):
    """Obstore would hang."""
    program = f"""
        import os
        from asyncflow import S3, errors
        with S3(s3root="s3://{bucket}/x") as s3:
            s3.put("a", "1")
            if not (pid := os.fork()):
                try:
                    s3.get("a")
                except errors.S3FailedError as error:
                    print(error, flush=True)
                try:
                    with S3(s3root="s3://{bucket}/x") as other:
                        other.get("a")
                except errors.S3FailedError as error:
                    print(error, flush=True)
                os._exit(0)
            os.waitpid(pid, 0)
            print(s3.get("a").text)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    first, second, third = done.stdout.splitlines()
    assert "before a fork" in first
    assert "was forked from process" in second
    assert third == "1"
