"""Fewer garbage collections while much data passes through."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from asyncflow._support.seldom_collected import seldom_collected

if TYPE_CHECKING:
    from collections.abc import Iterator

OBJECTS = 5_000


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    """Those of the interpreter; afterwards those of before."""
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def collections() -> int:
    """How often garbage is collected while some thousand objects are made."""
    counted = [0]

    def count(phase: str, _: object) -> None:
        counted[0] += phase == "start"

    gc.collect()
    gc.callbacks.append(count)
    try:
        made = [[number] for number in range(OBJECTS)]
    finally:
        gc.callbacks.remove(count)
    assert len(made) == OBJECTS
    return counted[0]


def test_some_thousand_objects_are_made_without_a_collection():
    """And afterwards it is as it was, also if the block fails."""
    often = collections()
    within: list[int] = []
    with suppress(KeyError), seldom_collected():
        within.append(collections())
        raise KeyError
    assert within == [0]
    assert collections() == often > 0


@pytest.mark.parametrize("threshold", [0, 100_000])
def test_who_wants_fewer_collections_gets_no_more(threshold):
    """0 turns them off."""
    gc.set_threshold(threshold, 10, 10)
    with seldom_collected():
        assert gc.get_threshold() == (threshold, 10, 10)


def test_blocks_may_overlap_in_any_order():
    """As those of two threads do: once all are left, the thresholds are as before."""
    first, second, third = (seldom_collected() for _ in range(3))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    third.__enter__()
    assert collections() == 0
    second.__exit__(None, None, None)
    assert collections() == 0
    third.__exit__(None, None, None)
    assert gc.get_threshold() == (700, 10, 10)


def test_what_the_application_sets_meanwhile_stays():
    """Also where blocks are nested."""
    with seldom_collected(), seldom_collected():
        gc.set_threshold(5_000, 20, 20)
    assert gc.get_threshold() == (5_000, 20, 20)
