"""What `asyncflow.store.interface` promises, of a store in an object store."""

from __future__ import annotations

import inspect

import pytest

from asyncflow.errors import StoreError
from asyncflow.store import open_store
from asyncflow.store.frames import frame
from tests.store import test_interface as promised

pytestmark = pytest.mark.cluster

PROMISES = [
    promised.test_a_file_is_replaced_whole_and_read_in_part,
    promised.test_a_file_that_is_not_there_is_missing,
    promised.test_a_journal_that_is_not_there_is_a_missing_file,
    promised.test_a_large_value_is_as_long_as_it_was_stored,
    promised.test_a_reader_gets_what_is_appended_by_offset_and_from_an_offset_on,
    promised.test_a_ref_can_name_bytes_of_the_journal,
    promised.test_a_run_has_one_journal_and_one_writer,
    promised.test_a_run_is_being_written_as_long_as_its_writer_lives,
    promised.test_a_run_that_is_discarded_has_never_begun,
    promised.test_a_value_is_read_back_by_its_ref,
    promised.test_asking_about_a_run_makes_none,
    promised.test_files_are_deleted_by_how_their_names_begin,
    promised.test_files_are_stored_while_the_journal_is_delivered,
    promised.test_two_writers_of_one_name_do_not_mix,
    promised.test_whoever_stores_files_hears_why_the_journal_cannot_be_delivered,
]
OF_A_BEGUN_RUN = [
    promised.test_a_file_is_updated_by_one_after_the_other,
    promised.test_an_update_that_fails_changes_nothing,
]
SIZE = 5000  # of the value in the test that takes any


@pytest.fixture
def opened(bucket):
    """An open store with nothing in it."""
    store = open_store(f"s3://{bucket}/flows", create=True)
    yield store
    store.close()


@pytest.fixture
def run(opened):
    """A run that has not begun."""
    return opened.make_run("F")


@pytest.mark.parametrize("promise", PROMISES, ids=lambda test: test.__name__)
def test_a_promise_is_kept(promise, opened, run):
    """The same test as for a folder passes."""
    given = {"opened": opened, "run": run, "size": SIZE}
    promise(**{name: given[name] for name in inspect.signature(promise).parameters})


@pytest.mark.parametrize("promise", OF_A_BEGUN_RUN, ids=lambda test: test.__name__)
def test_a_promise_about_updates_is_kept(promise, run):
    """For a run that has begun: nobody could tell another one from one that was removed."""
    journal = run.begin_journal()
    journal.deliver()
    promise(run)
    journal.close()


def test_a_new_run_is_the_newest_of_its_flow(opened):
    """Also of those that are made in the same microsecond."""
    made = [opened.make_run("F") for _ in range(5)]
    for each in made:
        writer = each.begin_journal()
        writer.deliver()
        writer.close()
    ids = [each.run_id for each in made]
    assert opened.runs("F") == sorted(ids, key=int, reverse=True) == ids[::-1]
    assert opened.flows() == ["F"]


def test_a_file_of_a_run_that_is_gone_cannot_be_updated(opened):
    """That is an error of the store, which says what to do."""
    with pytest.raises(StoreError, match=r"put back what was deleted"):
        opened.run("F", "7").update_file("tags", lambda _: b"x", most=100)


def test_a_location_opens_the_same_store_elsewhere(opened, run):
    """However it is written."""
    journal = run.begin_journal()
    journal.deliver()
    again = open_store(f"{opened.location.replace('s3:', 'S3:')}//")
    assert again.runs("F") == [run.run_id]
    assert again.is_at(opened.location)
    assert not again.is_at(f"{opened.location}2")
    assert not again.is_at("flows")
    journal.close()


def test_a_run_that_others_have_removed_is_gone(opened, run):
    """Whatever this machine has kept of it, and though its writer had died before all was sent."""
    journal = run.begin_journal()
    journal.write(frame(b"one"))
    journal.deliver()
    assert run.is_there()
    journal._local.close()  # as the end of its process does
    objects = opened.connection.objects
    objects.delete([each.name for each in objects.listed(run.folder)])
    again = opened.run("F", run.run_id)
    assert not again.is_there()
    assert not again.has_journal()
    assert [sent.dropped > 0 for sent in opened.send_rest()] == [True]
    assert not opened.run("F", run.run_id).is_there()
    assert opened.runs("F") == []
