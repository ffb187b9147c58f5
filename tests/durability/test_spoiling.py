"""Any operation on the store fails, tears, or fails after its effect: nothing announced is lost."""

from __future__ import annotations

import pytest

from tests.durability.chaos.spoiling import MODES, Fault, Spoiler, count_up

SAMPLED = [
    Fault("engine", "fail", "power", 12),
    Fault("engine", "late", "crash", 7),
    Fault("worker", "fail", "crash", 2),
    Fault("worker", "torn", "power", 5),
]


@pytest.fixture(scope="module")
def spoiler(tmp_path_factory):
    """One store for the whole file: a fault must not depend on what was there before."""
    return Spoiler(tmp_path_factory.mktemp("spoilt"))


@pytest.mark.parametrize("fault", SAMPLED, ids=str)
def test_a_spoilt_operation_loses_nothing_that_was_announced(spoiler, fault):
    """Opening, writing, syncing, renaming, deleting: the store is whole, and a resume completes."""
    assert spoiler.spoil(fault)


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["crash", "power"])
@pytest.mark.parametrize("role", ["engine", "worker"])
@pytest.mark.parametrize("mode", MODES)
def test_every_spoilt_operation_loses_nothing(role, mode, durability):
    """N counts up until a run passes without the fault."""
    assert count_up(role, mode, durability) >= 3
