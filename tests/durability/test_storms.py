"""A run of some thousand tasks while its processes are killed at random, and a short soak."""

from __future__ import annotations

import pytest

from tests.durability.chaos.killing import close_nurseries
from tests.durability.chaos.soak import soak
from tests.durability.chaos.storms import storm


@pytest.fixture(scope="module", autouse=True)
def _no_process_is_left():
    """Other tests count the processes of this one."""
    yield
    close_nurseries()


@pytest.mark.slow
def test_a_run_comes_to_its_right_end_through_a_storm():
    """Nothing announced is lost or run again, whoever is killed."""
    over = storm("storm", 1)
    assert over.engines
    assert over.workers


@pytest.mark.slow
def test_a_run_on_nodes_comes_to_its_right_end_through_a_storm():
    """The same when whole nodes are killed."""
    over = storm("nodes", 1)
    assert over.nodes


@pytest.mark.slow
def test_an_engine_that_works_for_a_while_does_not_grow():
    """Memory, descriptors, threads and processes stay what they were."""
    soak(0.75)
