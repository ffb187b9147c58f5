"""Addresses in S3, and what `S3` does before it touches the network."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from asyncflow import errors
from asyncflow.datatools.s3_addresses import of_object, options_of, parse, root_of, url_of, wanted
from asyncflow.datatools.s3_objects import S3GetObject

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("url", "bucket", "key"),
    [
        ("s3://b/k", "b", "k"),
        ("s3://b", "b", ""),
        ("s3://b//k", "b", "k"),
        ("s3://b/x#y?z\n", "b", "x#y?z\n"),
    ],
)
def test_an_address_is_a_bucket_and_a_key(url: str, bucket: str, key: str):
    """Whatever letters the key has."""
    assert parse(url) == (url, bucket, key)


@pytest.mark.parametrize("url", ["", "b/k", "http://b/k", "s3:///k", "s3://"])
def test_what_is_no_address_is_refused(url: str):
    """The error names it."""
    with pytest.raises(errors.S3AddressError, match="s3://BUCKET/KEY"):
        parse(url)


@pytest.mark.parametrize("key", ["", "a//b", "a/", "..", "a/../b", "./a"])
def test_a_key_that_obstore_would_change_is_refused(key: str):
    """In place of another object."""
    with pytest.raises(errors.S3AddressError):
        of_object(f"s3://b/{key}")


def test_keys_are_relative_to_the_root():
    """Or whole addresses without one; never the other way round."""
    assert url_of("s3://b/r", "k") == url_of("s3://b/r", "/k") == url_of("s3://b/r", b"k")
    assert url_of("s3://b/r", None) == "s3://b/r"
    assert url_of(None, "s3://b/k") == "s3://b/k"
    for root, key in ((None, "k"), (None, None), ("s3://b/r", "s3://b/k"), ("s3://b/r", 3)):
        wrong: Any = key
        with pytest.raises(errors.S3AddressError):
            url_of(root, wrong)


def test_a_root_is_an_address():
    """With or without a slash at its end."""
    assert root_of(None, "s3://b/r/", None, None) == root_of(None, b"s3://b/r", None, None)
    assert root_of(None, None, None, None) is None
    with pytest.raises(errors.S3AddressError, match="s3root"):
        root_of(None, "/srv/r", None, None)


def test_the_root_of_a_run(monkeypatch: pytest.MonkeyPatch):
    """The setting's, of which a bucket or a prefix that is given replaces a part."""
    run: Any = type("Run", (), {"id": "7", "parent": type("Flow", (), {"id": "F"})})
    monkeypatch.setenv("ASYNCFLOW_DATATOOLS_S3ROOT", "s3://b/p/q/")
    assert root_of(run, None, None, None) == "s3://b/p/q/F/7"
    assert root_of(run, None, "other", None) == "s3://other/p/q/F/7"
    assert root_of(run, None, None, "/o/") == "s3://b/o/F/7"
    assert root_of(run, None, "other", "") == "s3://other/F/7"
    monkeypatch.setenv("ASYNCFLOW_DATATOOLS_S3ROOT", "/srv")
    with pytest.raises(errors.SettingsError, match="s3://BUCKET/PREFIX"):
        root_of(run, None, None, None)


@pytest.mark.parametrize(
    ("offset", "length", "part"),
    [
        (None, None, None),
        (3, 4, (3, 7)),
        (None, 4, (0, 4)),
        (3, None, {"offset": 3}),
        (3, -4, {"suffix": 4}),
    ],
)
def test_ranges(offset: int | None, length: int | None, part: object):
    """As obstore takes them."""
    assert wanted("s3://b", S3GetObject("k", offset, length)).part == part


def test_further_arguments_are_those_of_boto3():
    """What obstore has another name for is translated, and the rest is refused."""
    given = {
        "client_params": {"endpoint_url": "http://x", "region_name": "r"},
        "session_vars": None,
    }
    assert options_of(given, "AES256") == {
        "endpoint": "http://x",
        "region": "r",
        "server_side_encryption": "AES256",
    }
    for wrong in ({"role": "x"}, {"client_params": {"proxy": "x"}}):
        with pytest.raises(TypeError):
            options_of(wrong, None)


def test_without_obstore_the_error_names_the_command(tmp_path: Path):
    """And nothing is left behind; the name alone can be imported."""
    program = f"""if True:
        import sys
        sys.modules["obstore"] = None
        from asyncflow import S3, errors
        try:
            S3(tmproot={str(tmp_path)!r})
        except errors.NotInstalledError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "pip install 'asyncflow-engine[s3]'" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_name_alone_does_not_load_obstore():
    """Nor does `asyncflow.datatools`."""
    program = "import sys; from asyncflow.datatools import S3; sys.exit('obstore' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
