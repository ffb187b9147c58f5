"""What is kept of cards: by a resume, a garbage collection, a removal, a copy; and the commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from asyncflow import FlowSpec, Parameter, Run, card, copy_runs, current, step
from asyncflow.cards import Image, Markdown, get_cards
from asyncflow.errors import RunFailedError
from asyncflow.testing import run_flow
from tests.support.command_line import here

LARGE = b"\x89PNG\r\n\x1a\n" + os.urandom(400_000)
SMALL = b"\x89PNG\r\n\x1a\n" + os.urandom(20_000)


class Kept(FlowSpec):
    """Cards with an image in a blob, one in a segment, and HTML; the step after them may fail."""

    file = Parameter("file", default="")

    @card(type="html", id="page")
    @card
    @step
    def start(self):
        self.html = "<h1>" + "x" * 3000 + "</h1>"
        current.card.append(Markdown("kept"))
        current.card.refresh()
        current.card.append(Image(LARGE, "large"))
        current.card.append(Image(SMALL, "small"))
        self.next(self.end)

    @step
    def end(self):
        if self.file and not os.path.exists(self.file):  # noqa: PTH110 - a text
            raise ValueError(self.file)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with a run that has failed after its cards were made, and the run that resumed it."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.raises(RunFailedError) as caught:
        run_flow(Kept, store=folder / "store", file=str(folder / "there"))
    (folder / "there").touch()
    failed = caught.value.run
    return folder / "store", failed, run_flow(Kept, store=folder / "store", resume=failed)


@pytest.fixture
def kept(made, tmp_path):
    """A copy of that store, its run that failed, and the one that resumed it."""
    store, failed, again = made
    shutil.copytree(store, tmp_path / "store")
    here_now = [Run(each.pathspec, store=tmp_path / "store") for each in (failed, again)]
    return tmp_path / "store", *here_now


def shown(task):
    """The labels and lengths of the images on a task's default card, and the length of its HTML."""
    page, default = get_cards(task)
    images = [part for part in default.drawing()["parts"] if part["kind"] == "image"]
    return [(each["label"], len(each["url"]) > 20_000) for each in images], len(page.get())


def collected(store):
    """What a garbage collection says that comes long after everything else."""
    for path in store.rglob("*"):
        os.utime(path, (10**9, 10**9))
    return here("gc", "--store", store)


WHOLE = [("large", True), ("small", True)], 3009


def test_a_task_that_was_taken_over_has_the_cards_of_its_origin(kept):
    """Unless one asks for its own alone."""
    _, failed, again = kept
    task = again["start"].task
    assert shown(task) == shown(failed["start"].task) == WHOLE
    found = get_cards(task)
    assert found.from_resumed
    assert found.origin_pathspec == failed["start"].task.pathspec
    assert found[0].from_resumed
    assert len(get_cards(task, follow_resumed=False)) == 0
    assert not get_cards(failed["start"].task).from_resumed


def test_a_collection_keeps_what_cards_name_and_a_check_reads_it(kept):
    """Images in blobs are no garbage; damage is told with the card's name."""
    store, failed, _ = kept
    assert collected(store).status == 0
    assert shown(failed["start"].task) == WHOLE
    assert here("verify", "--store", store).status == 0
    (blob,) = [each for each in (store / "blobs").rglob("*") if each.is_file()]
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    said = here("verify", "--store", store)
    assert said.status == 1
    assert "(card #" in said.stdout + said.stderr
    images, html = shown(failed["start"].task)
    assert images == [("small", True)]  # an error stands in the place of the other
    assert html == WHOLE[1]


def test_a_removed_run_leaves_the_cards_that_another_run_has_taken_over(kept):
    """And a collection after that."""
    store, failed, again = kept
    assert here("rm", failed.pathspec, "--store", store).status == 0
    assert collected(store).status == 0
    assert shown(Run(again.pathspec, store=store)["start"].task) == WHOLE
    assert here("verify", "--store", store).status == 0


def test_a_copied_run_has_its_cards(kept, tmp_path):
    """With the images in blobs and segments."""
    store, _, again = kept
    copy_runs(store, tmp_path / "other", again.pathspec)
    assert shown(Run(again.pathspec, store=tmp_path / "other")["start"].task) == WHOLE
    assert here("verify", "--store", tmp_path / "other").status == 0


# --- commands ---------------------------------------------------------------------------------


def test_cards_are_listed(kept):
    """Of a run, a step or a task; as lines or as JSON."""
    store, failed, _ = kept
    said = here("card", "list", failed.pathspec, "--store", store)
    task = f"{failed.pathspec}/start/1"
    assert [line.split()[:3] for line in said.stdout.splitlines()] == [
        [task, "html", "id"],
        [task, "default", said.stdout.splitlines()[1].split()[2]],
    ]
    found = json.loads(
        here("card", "list", task, "--type", "html", "--json", "--store", store).stdout
    )
    assert [(each["pathspec"], each["id"], each["number"]) for each in found] == [(task, "page", 0)]
    assert here("card", "list", f"{failed.pathspec}/end", "--store", store).stdout == "no cards\n"


def test_a_card_is_written_to_a_file_or_to_stdout(kept, tmp_path):
    """If it is clear which one is meant."""
    store, failed, _ = kept
    where = f"{failed.pathspec}/start", "--store", store
    said = here("card", "get", *where)
    assert said.status == 2
    assert "has several cards" in said.stderr
    said = here("card", "get", where[0], tmp_path / "card.html", "--type", "default", *where[1:])
    assert said.status == 0, said
    assert "small" in (tmp_path / "card.html").read_text()
    (page, _) = get_cards(failed["start"].task)
    assert here("card", "get", *where, "--hash", page.hash[:6]).stdout.strip() == page.get()
    drawing = json.loads(here("card", "get", *where, "--id", "page", "--json").stdout)
    assert drawing["html"] == page.get()
    assert here("card", "get", *where, "--id", "none").status == 2


@pytest.mark.parametrize("command", [("card", "get", "--id", "page"), ("report",)])
def test_html_is_not_written_onto_a_terminal(kept, command):
    """The command says how to write it to a file instead."""
    store, failed, _ = kept
    reading, writing = os.openpty()
    asyncflow = [sys.executable, "-m", "asyncflow", *command, failed.pathspec, "--store", store]
    ended = subprocess.run(asyncflow, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    os.close(reading)
    assert ended.returncode == 2
    assert b"is HTML, which is not for a terminal: write it to a file (" in ended.stderr


def test_a_card_is_opened_in_a_browser(kept, monkeypatch):
    """As a file of its own."""
    store, failed, _ = kept
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    said = here("card", "view", failed.pathspec, "--id", "page", "--store", store)
    assert said.status == 0, said
    (address,) = opened
    assert address in said.stdout
    os.unlink(address.removeprefix("file://"))  # noqa: PTH108 - a text


def test_a_report_has_the_failure_and_the_cards(kept, tmp_path):
    """Not more cards than asked for, and it says how many it leaves out."""
    store, failed, _ = kept
    file = tmp_path / "report.html"
    said = here("report", failed.pathspec, "-o", file, "--store", store)
    assert said.status == 0, said
    data = json.loads(file.read_text().partition('id="data">')[2].partition("</script>")[0])[
        "report"
    ]
    assert data["run"]["status"] == "failed"
    assert [each["task"] for each in data["failed"]] == ["end/2"]
    assert [each["name"] for each in data["cards"]] == ["page", "default"]
    assert data["timeline"]["attempts"] == 2
    assert "there" in data["run"]["parameters"]["file"]
    said = here("report", failed.pathspec, "--max-cards", "1", "--store", store)
    assert '"cards_left_out":1' in said.stdout
