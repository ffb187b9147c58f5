"""Runs are named as people type them: `latest`, an id alone, the beginning of an id."""

from __future__ import annotations

import pytest

from asyncflow.client.run_names import whole_name
from asyncflow.errors import NotFoundError
from asyncflow.store import open_store


@pytest.fixture
def runs(store):
    """A store with a few runs; those of `A` are older than the last of `B`."""
    for flow, ids in {"A": (100, 12345, 45678), "B": (12346, 90000)}.items():
        for run_id in ids:
            (store / "flows" / flow / str(run_id)).mkdir(parents=True)
    return open_store(store, create=True)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("A/latest", "A/45678"),
        ("A/4567", "A/45678"),
        ("A/100", "A/100"),
        ("latest", "B/90000"),
        ("latest/start/1", "B/90000/start/1"),
        ("9000", "B/90000"),
        ("12346", "B/12346"),
        ("A", "A"),
        ("A/latest/start", "A/45678/start"),
        ("C/latest", "C/latest"),
        ("A/start", "A/start"),
    ],
)
def test_a_short_name_means_one_run(runs, given, meant):
    """What is no short name stays as it is."""
    assert whole_name(runs, given) == meant


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("1234", "'1234' begins 2 runs: B/12346, A/12345"),
        ("A/123", "flow A has no run '123'"),
        ("123", "there is no run '123' of any flow"),
        ("77", "there is no run '77' of any flow"),
        ("A/77", "flow A has no run '77'"),
    ],
)
def test_a_name_of_none_or_of_several_is_an_error(runs, given, told):
    """It lists those that it might mean."""
    with pytest.raises(NotFoundError) as caught:
        whole_name(runs, given)
    assert told in str(caught.value)


def test_a_whole_id_wins_over_longer_ones(store, runs):
    """Otherwise it could never be named."""
    (store / "flows" / "A" / "123456").mkdir()
    assert whole_name(runs, "A/12345") == "A/12345"
