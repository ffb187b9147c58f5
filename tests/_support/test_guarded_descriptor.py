"""Whether the files of a worker are still open where they were."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from asyncflow._support import guarded_descriptor
from asyncflow._support.guarded_descriptor import Descriptor, Descriptors

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["with marks", "without"])
def numbers(request, monkeypatch, tmp_path: Path):
    """Three open files; once as on a system that cannot mark them."""
    if request.param == "without":
        monkeypatch.setattr(guarded_descriptor, "_GET", -1)
    opened = [os.open(tmp_path / str(number), os.O_RDWR | os.O_CREAT) for number in range(3)]
    yield opened
    for number in opened:
        with suppress(OSError):
            os.close(number)


def watched(numbers: list[int]) -> Descriptors:
    """The files that are open under these numbers now."""
    return Descriptors([(number, Descriptor(number)) for number in numbers])


def test_files_that_nobody_has_touched_are_whole(numbers):
    """As after most steps."""
    assert watched(numbers).are_whole()


def test_a_closed_file_is_noticed(numbers):
    """Whichever of them it is."""
    files = watched(numbers)
    os.close(numbers[1])
    assert not files.are_whole()


def test_another_file_under_the_same_number_is_noticed(numbers, tmp_path):
    """The next value would be written to it."""
    files = watched(numbers)
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    os.dup2(other, numbers[2])
    os.close(other)
    assert not files.are_whole()


def test_a_copy_of_the_file_is_the_file(numbers):
    """As when a standard descriptor was restored."""
    kept = os.dup(numbers[0])
    files = Descriptors([(numbers[0], Descriptor(kept))])
    os.close(numbers[0])
    assert not files.are_whole()
    os.dup2(kept, numbers[0])
    assert files.are_whole()
    os.close(kept)
