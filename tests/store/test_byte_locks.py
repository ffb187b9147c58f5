"""Locks on single bytes of a file exclude other descriptors, and end with their holder."""

import os
import subprocess
import sys

import pytest

from asyncflow.store.byte_locks import ByteLocks

pytestmark = pytest.mark.skipif(not ByteLocks.AVAILABLE, reason="only Linux has these locks")

HOLD = """
import os, sys
from asyncflow.store.byte_locks import ByteLocks
locks = ByteLocks(os.open(sys.argv[1], os.O_RDWR))
print(locks.take(7), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    """An empty file."""
    path = tmp_path / "file"
    path.touch()
    return path


@pytest.fixture
def pair(path):
    """The locks of two descriptors of one file, opened apart."""
    descriptors = [os.open(path, os.O_RDWR) for _ in range(2)]
    yield [ByteLocks(each) for each in descriptors]
    for each in descriptors:
        os.close(each)


def test_two_descriptors_of_one_process_exclude_each_other(pair):
    """A byte that one holds, the other cannot take, until it is released."""
    one, other = pair
    assert one.take(1 << 40)
    assert not other.take(1 << 40)
    assert other.take((1 << 40) + 1)
    one.release(1 << 40)
    assert other.take(1 << 40)


def test_only_the_locks_of_others_are_found_and_counted(pair):
    """Adjoining bytes count one by one, and bytes outside the range do not count."""
    one, other = pair
    for byte in (5, 6, 7, 9, 100):
        assert one.take(byte)
    assert one.find_other(0, 1000) is None
    assert one.count_others(0, 1000) == 0
    assert other.find_other(8, 10) == (9, 1)
    assert other.count_others(6, 50) == 3


def test_the_locks_of_a_killed_process_are_free(path, pair):
    """The kernel releases them; nobody has to clean up."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout.readline() == b"True\n"
        assert not pair[0].take(7)
        holder.kill()
        holder.wait()
    assert pair[0].take(7)


def test_to_release_is_harmless_once_the_file_is_closed(path):
    """A limit that is given up late, after its file was closed, raises nothing."""
    descriptor = os.open(path, os.O_RDWR)
    os.close(descriptor)
    ByteLocks(descriptor).release(1)
    ByteLocks(-1).release(1)
