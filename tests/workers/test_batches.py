"""Batches between executor and agent: each message arrives once and in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.errors import ClusterError
from asyncflow.workers.cluster.batches import BATCH_BYTES, DATA_BYTES, Inbox, Outbox, pack_message


def put(outbox, *message):
    """Put a message."""
    outbox.put(pack_message(*message))


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=12),
    st.lists(st.sampled_from(["arrives", "is lost", "arrives, answer lost"]), max_size=60),
)
def test_whatever_is_lost_or_repeated_messages_arrive_once_and_in_order(puts, fates):
    """A request that was not answered is repeated, whether it had arrived or not."""
    outbox, inbox, arrived, ahead = Outbox(), Inbox(), [], list(puts)
    for fate in [*fates, *["arrives"] * (len(puts) + 1)]:
        for number in ahead.pop(0) if ahead else ():
            put(outbox, number)
        batch = outbox.batch()
        if fate != "is lost":
            arrived += inbox.open(batch)
        if fate == "arrives":
            outbox.acknowledge(inbox.received)
    assert arrived == [[number] for numbers in puts for number in numbers]
    assert not outbox
    assert outbox.bytes == 0


@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(1, 3), st.binary(min_size=1, max_size=9)),
            st.just("another message"),
            st.just("a batch"),
        ),
        max_size=40,
    )
)
def test_reports_that_share_messages_are_whole_and_in_order(puts):
    """Those of each worker, and between the other messages between which they were put."""
    outbox, inbox, arrived = Outbox(), Inbox(), []
    for each in puts:
        if each == "another message":
            put(outbox, "other")
        elif each == "a batch":
            arrived += inbox.open(outbox.batch())
            outbox.acknowledge(inbox.received)
        else:
            outbox.put_reports(*each)
    arrived += inbox.open(outbox.batch())
    outbox.acknowledge(inbox.received)
    for token in (1, 2, 3):
        heard = [m[-1] for m in arrived if m[0] == "other" or m[1] == token]
        put_there = [each[-1] for each in puts if each == "another message" or each[0] == token]
        told = [b"|" if data == "other" else data for data in heard]
        assert b"".join(told) == b"".join(b"|" if data == "e" else data for data in put_there)
    assert not outbox
    assert outbox.bytes == 0


def test_reports_of_a_worker_that_go_into_a_batch_share_a_message():
    """Each message costs the driver more than a report in it."""
    outbox = Outbox()
    for number in range(10):
        outbox.put_reports(1, b"%d" % number)
        outbox.put_reports(2, b"-%d" % number)
    told = [["reports", 1, b"0123456789"], ["reports", 2, b"-0-1-2-3-4-5-6-7-8-9"]]
    assert Inbox().open(outbox.batch()) == told


def test_reports_that_share_a_message_are_bounded():
    """The event loop that handles it has other work."""
    outbox, piece = Outbox(), bytes(DATA_BYTES // 4)
    for _ in range(10):
        outbox.put_reports(1, piece)
    assert [len(data) // len(piece) for _, _, data in Inbox().open(outbox.batch())] == [4, 4, 2]


def test_a_batch_is_the_same_until_it_is_acknowledged():
    """Else a repeated one could not be told from a new one."""
    outbox = Outbox()
    put(outbox, "one")
    batch = outbox.batch()
    put(outbox, "two")
    assert outbox.batch() == batch
    outbox.acknowledge(0)
    assert outbox.batch() == batch
    outbox.acknowledge(1)
    assert outbox.batch() not in {batch, b""}


def test_a_batch_is_bounded():
    """One message more than a megabyte at most."""
    outbox, inbox = Outbox(), Inbox()
    for _ in range(8):
        put(outbox, bytes(BATCH_BYTES // 3))
    assert len(inbox.open(outbox.batch())) == 3
    assert outbox.bytes > 8 * (BATCH_BYTES // 3)


@pytest.mark.parametrize("spoilt", ["missing", "cut", "nonsense"])
def test_a_batch_that_cannot_be_right_is_refused(spoilt):
    """In words; and nothing of it counts as received."""
    outbox, inbox = Outbox(), Inbox()
    put(outbox, "one")
    batch = outbox.batch()
    if spoilt == "missing":
        batch = (7).to_bytes(8, "little") + batch[8:]
    elif spoilt == "nonsense":
        batch = batch[:8] + b"\xc1"
    else:
        batch = batch[:-1]
    with pytest.raises(ClusterError, match="batch"):
        inbox.open(batch)
    assert inbox.received == 0
