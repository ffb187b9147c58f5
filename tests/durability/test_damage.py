"""Damaged, cut and missing files: a right answer or a clear error, and `verify` finds them."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from asyncflow import Engine, FlowSpec, Parameter, Run, current, retry, step
from asyncflow.errors import RunFailedError, StoreFormatError
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.scheduling import input_offsets, task_orders
from asyncflow.store.frames import frame
from asyncflow.store.journal import HEADER, JournalReader
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance.verify import verify
from tests.durability.chaos import nonsense
from tests.support.command_line import asyncflow
from tests.support.flipped_byte import flip_byte
from tests.support.store_answers import Answers, Refusal, differences, look
from tests.support.written_runs import RunWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


GOLDEN = Path(__file__).parents[1] / "compatibility" / "golden" / "0.1"
FILES = sorted(
    str(path.relative_to(GOLDEN))
    for path in GOLDEN.rglob("*")
    if path.is_file() and path.name != "format"
)
SAMPLES = 6
OF_AN_ARTIFACT = 4  # slashes in its pathspec
PART = 250  # bytes that one test takes on
OF_THE_INDEX = (0x01, 0x02, 0x80, 0xFF)  # its numbers are small, and no checksum covers an entry


def short(file: str) -> str:
    """A name for a test."""
    return "/".join(part[-10:] for part in Path(file).parts[-2:])


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A store with a run that succeeded, one that failed and one that resumed it."""
    store = tmp_path_factory.mktemp("damage") / "store"
    shutil.copytree(GOLDEN, store)
    for path in store.rglob("*"):
        path.chmod(path.stat().st_mode | 0o200)  # blobs are read-only
    return store


@pytest.fixture(scope="module")
def answers(kept):
    """What it answers while it is whole."""
    return look(kept, known=look(kept))


@contextmanager
def altered(path: Path, data: bytes) -> Iterator[None]:
    """Other bytes in a file, for the length of a block."""
    whole = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(whole)


def flips(data: bytes, at: Iterable[int], masks: Iterable[int] = ()) -> Iterator[bytes]:
    """The data with one byte changed: to zero, and otherwise."""
    for number in at:
        for mask in {*(masks or (1 << number % 8,)), data[number]} - {0}:
            yield data[:number] + bytes([data[number] ^ mask]) + data[number + 1 :]


def run_of(file: str) -> str:
    """The run that a file belongs to; nothing for a blob, and for what is in others' journals."""
    parts = Path(file).parts
    return "/".join(parts[1:3]) if parts[0] == "flows" and parts[-1][0] != "w" else ""


def is_within(one: str, other: str) -> bool:
    """Whether one pathspec is the other, or within it."""
    return f"{one}/".startswith(f"{other}/")


def must_name(pathspec: str, question: str, run: str) -> str:
    """What an error says by name: the artifact that was asked for, else at least the run."""
    if pathspec.count("/") == OF_AN_ARTIFACT or question == "data":
        return pathspec
    return run or pathspec


def check(store: Path, file: str, answers: Answers, what: str) -> None:
    """No wrong answer, no unclear error, and `verify` finds it too."""
    run = run_of(file)
    verified = verify(Layout(store))
    affected = [
        pathspec.partition(" ")[0]
        for damage in verified.damage
        for pathspec in damage.affected
        if damage.file == file
    ]
    # With another digit in its first line, a journal is one of a later format: noted, no damage.
    if any(note.startswith(f"{file}: a later version of") for note in verified.notes):
        affected.append(run)
    assert affected, f"{what}: verify does not find it"
    # Of values that lie elsewhere, no other byte is read when they are asked for by name.
    known = {
        (pathspec, question): answer
        for (pathspec, question), answer in answers.items()
        if run or any(is_within(pathspec, each) or is_within(each, pathspec) for each in affected)
    }
    for pathspec, question, answer in differences(answers, look(store, run, known)):
        context = f"{what}: {question} of {pathspec}: {answer}"
        assert isinstance(answer, Refusal), context
        assert must_name(pathspec, question, run) in answer.message, context
        # To find all attempts of a task, the whole journal is read.
        asked = run if question.startswith("attempts") else pathspec
        assert any(is_within(asked, each) or is_within(each, asked) for each in affected), (
            f"{context}: verify says {affected}"
        )


@pytest.mark.parametrize("file", FILES, ids=short)
def test_a_changed_byte_is_never_a_wrong_value(kept, answers, file):
    """A sample of the bytes of every file."""
    data = (kept / file).read_bytes()
    sample = Random(file).sample(range(len(data)), SAMPLES)
    for changed in flips(data, sample):
        with altered(kept / file, changed):
            check(kept, file, answers, f"{file} changed")


@pytest.mark.parametrize("file", FILES, ids=short)
def test_a_cut_file_is_never_a_wrong_value(kept, answers, file):
    """A sample of the lengths of every file, from nothing to all but one byte."""
    data = (kept / file).read_bytes()
    for length in {0, len(data) - 1, *Random(file).sample(range(len(data)), SAMPLES)}:
        with altered(kept / file, data[:length]):
            check(kept, file, answers, f"{file} cut to {length} bytes")


@pytest.mark.parametrize("file", FILES, ids=short)
def test_a_file_that_is_gone_is_never_a_wrong_value(kept, answers, file):
    """Deleted, or not copied along: what is told is right, and `verify` misses what is missed."""
    aside = kept.parent / "aside"
    (kept / file).rename(aside)
    try:
        if Path(file).name == "summary":  # as after a crash before it was written: no damage
            assert not list(differences(answers, look(kept, run_of(file), answers)))
        else:
            check(kept, file, answers, f"{file} gone")
    finally:
        aside.rename(kept / file)


def endless(path: Path) -> None:
    """Put a device in its place, which has no end."""
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("put_there", [os.mkfifo, endless, Path.mkdir])
@pytest.mark.parametrize("file", FILES, ids=short)
def test_what_is_no_file_is_never_a_wrong_value(kept, answers, file, put_there):
    """Nobody waits for a pipe, or reads a device; it is told of as any other damage."""
    aside = kept.parent / "aside"
    (kept / file).rename(aside)
    put_there(kept / file)
    try:
        check(kept, file, answers, f"{file} is none")
    finally:
        (kept / file).rmdir() if (kept / file).is_dir() else (kept / file).unlink()
        aside.rename(kept / file)


def parts() -> Iterator[tuple[str, range]]:
    """Each file, and the bytes of it that one test takes on."""
    for file in FILES:
        size = (GOLDEN / file).stat().st_size
        every = range(0, size, 1 if size < 1 << 16 else 1009)  # a blob's bytes are all alike
        for begin in range(0, len(every), PART):
            yield file, every[begin : begin + PART]


@pytest.mark.slow
@pytest.mark.parametrize(("file", "part"), list(parts()))
def test_every_single_byte(kept, answers, file, part):
    """Each byte of each file; of the index, which has no checksum for each, in several ways."""
    data = (kept / file).read_bytes()
    for changed in flips(data, part, OF_THE_INDEX if file.endswith("index") else ()):
        with altered(kept / file, changed):
            check(kept, file, answers, f"{file} changed in {part}")


@pytest.mark.slow
@pytest.mark.parametrize(("file", "part"), list(parts()))
def test_every_single_cut(kept, answers, file, part):
    """Each file cut to each length."""
    data = (kept / file).read_bytes()
    for length in part:
        with altered(kept / file, data[:length]):
            check(kept, file, answers, f"{file} cut to {length} bytes")


def test_every_byte_of_the_format_file(kept, answers):
    """The store is refused with what is wrong, or read as it is; `verify` finds what is odd."""
    path = kept / "format"
    whole = path.read_bytes()
    texts = [*flips(whole, range(2), range(1, 256)), b"", whole[:1]]
    for text in texts:
        with altered(path, text):
            if text.decode(errors="replace").strip() == "1":
                [damage] = verify(Layout.open(kept, create=False)).damage
                assert (damage.file, damage.affected) == ("format", ["the store"])
            else:
                with pytest.raises(StoreFormatError, match=str(kept)):
                    Layout.open(kept, create=False)
    assert not list(differences(answers, look(kept, known=answers)))


# --- a run that was interrupted has no summary to compare its journal with ----------------------


@pytest.fixture
def interrupted(kept, tmp_path):
    """A store with one run, whose engine was killed right after a task had been announced."""
    store = tmp_path / "store"
    shutil.copytree(kept, store)
    run = min((store / "flows" / "GoldenFlow").glob("[0-9]*"))
    for other in (store / "flows" / "GoldenFlow").glob("[0-9]*"):
        if other != run:
            shutil.rmtree(other)
    (run / "summary").unlink()
    (run / "index").unlink()
    with JournalReader(run / "journal") as journal:
        *_, (at, _, _) = journal.read_from()
    with (run / "journal").open("r+b") as file:
        file.truncate(at)
    return run / "journal"


def test_of_an_interrupted_run_each_changed_byte_is_found(interrupted):
    """In the last record too, which a crash might have torn, but not in this way."""
    store = interrupted.parents[3]
    data = interrupted.read_bytes()
    assert not verify(Layout(store)).damage
    for number, changed in enumerate(flips(data, [*range(0, 600, 7), *range(600, len(data), 59)])):
        with altered(interrupted, changed):
            assert verify(Layout(store)).damage, number
    with JournalReader(interrupted) as journal:
        *_, (last, _, _) = journal.read_from()
    for changed in flips(data, range(last, len(data))):
        with altered(interrupted, changed):
            assert verify(Layout(store)).damage


def test_of_an_interrupted_run_each_cut_is_what_a_crash_could_leave(interrupted):
    """No damage, and what is there is told; the beginning of a record is noted.

    But for the first record: before that is whole, no worker has stored anything.
    """
    store = interrupted.parents[3]
    data = interrupted.read_bytes()
    with JournalReader(interrupted) as journal:
        ends = {len(HEADER), *(end for _, _, end in journal.read_from())}
    begun = min(ends - {len(HEADER)})
    for length in range(len(HEADER) + 1, len(data), 31):
        with altered(interrupted, data[:length]):
            found = verify(Layout(store))
            assert ["has no first event" in each.what for each in found.damage] == [True] * (
                length < begun
            )
            noted = any("beginning of a record" in note for note in found.notes)
            assert noted == (length not in ends)


@pytest.mark.parametrize("left", [b"\0" * 700, b"\x40\0\0\0" + b"\0" * 3000])
def test_zeros_behind_the_last_record_are_a_power_cut(interrupted, left):
    """Some file systems leave them: room that was made, and never written."""
    with interrupted.open("ab") as file:
        file.write(left)
    assert not verify(Layout(interrupted.parents[3])).damage


def test_a_reader_of_an_interrupted_run_leaves_out_a_bad_last_record(interrupted):
    """It tells what came before, and is not stopped by it."""
    store = interrupted.parents[3]
    name = "/".join(interrupted.parts[-3:-1])
    before = look(store, name)
    count = len(list(Run(name, store=store).events()))
    data = interrupted.read_bytes()
    with altered(interrupted, data[:-1] + bytes([data[-1] ^ 1])):
        after = look(store, name)
        assert len(list(Run(name, store=store).events())) == count - 1
    assert before.keys() >= after.keys()
    assert not any(isinstance(answer, Refusal) for answer in after.values())


# --- what is told of it -------------------------------------------------------------------------


def test_what_is_affected_is_named_by_task_and_artifact(kept):
    """Of a value that several tasks have, each of them."""
    [blob] = [file for file in FILES if file.startswith("blobs")]
    data = (kept / blob).read_bytes()
    with altered(kept / blob, b"x" + data[1:]):
        [damage] = verify(Layout(kept)).damage
    assert "hash" in damage.what
    assert damage.count == len(damage.affected) > 1
    assert all(pathspec.endswith("/large") for pathspec in damage.affected)


def test_a_blob_of_another_length_is_not_read(kept):
    """However long it is: a file of a terabyte would take hours."""
    (blob, *_) = (kept / file for file in FILES if file.startswith("blobs/"))
    data = blob.read_bytes()
    with altered(blob, data):
        os.truncate(blob, 1 << 40)
        found = verify(Layout.open(kept, create=False))
    assert f"it has {1 << 40} bytes instead of {len(data)}" in [each.what for each in found.damage]


def test_of_many_affected_things_some_are_named_and_all_are_counted(kept):
    """A value of a hundred thousand tasks does not fill the screen."""
    runs = kept / "flows" / "GoldenFlow"
    copies = [runs / str(number) for number in range(1, 9)]
    for copy in copies:
        shutil.copytree(min(runs.glob("[0-9]*"), key=lambda path: -int(path.name)), copy)
        (copy / "summary").unlink()  # which names the run that it is of
    [blob] = [file for file in FILES if file.startswith("blobs")]
    data = (kept / blob).read_bytes()
    try:
        with altered(kept / blob, b"x" + data[1:]):
            [damage] = verify(Layout(kept)).damage
    finally:
        for copy in copies:
            shutil.rmtree(copy)
    assert len(damage.affected) == 20
    assert damage.count > 20


def test_a_format_that_a_crash_has_left_unfinished_is_known_as_such(kept):
    """It is the store's own, and goes with the next collection."""
    draft = kept / "format.123.0123abcd"
    draft.touch()
    try:
        verified = verify(Layout(kept))
    finally:
        draft.unlink()
    assert not verified.damage
    assert f"{draft.name}: unfinished; after an hour asyncflow gc deletes it" in verified.notes


def test_what_belongs_to_nothing_is_noted_and_is_no_damage(kept):
    """Files of other programs, blobs that no run refers to, drafts."""
    strange = [kept / "blobs" / "ab" / ("ab" + "0" * 62), kept / "blobs" / "new" / ("0" * 24)]
    strange += [kept / "notes.txt", *[run / "w9.seg" for run in (kept / "flows").glob("*/[0-9]*")]]
    for path in strange:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"?")
    try:
        found = verify(Layout(kept))
    finally:
        for path in strange:
            path.unlink()
        with suppress(OSError):
            strange[0].parent.rmdir()
            strange[1].parent.rmdir()
    assert found.unreferenced.files == len(strange)
    [damage] = found.damage  # what is named as a blob and has another hash
    assert (damage.affected, damage.what[-12:]) == ([], "unreferenced")


# --- right checksums, wrong content ---------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_store_with_nonsense_in_it_is_answered_or_refused_in_words(seed):
    """No traceback, no memory that no file accounts for, and nothing in it is run."""
    nonsense.check(seed)


# --- damaged while its run goes on: the failure names artifact and task --------------------------


def run_dir() -> Path:
    """Where the files of the run lie in which this step runs."""
    return Path(os.environ["ASYNCFLOW_STORE"], "flows", current.flow_name, current.run_id)


def spoil_store(what: str) -> None:
    """Damage what the steps of `Spoilt` have stored."""
    store = run_dir().parents[2]
    if what == "blob":
        [path] = [path for path in store.glob("blobs/??/*") if b"L" * 9000 in path.read_bytes()]
        flip_byte(path, 1000)
    elif what == "journal":  # in the record of `start`, which has the small value inline
        path = run_dir() / "journal"
        flip_byte(path, path.read_bytes().index(b"small value"))
    else:
        for path in run_dir().glob("w*.seg"):
            for at in (path.read_bytes().find(mark) for mark in (b"m" * 9000, b"item")):
                if at >= 0:
                    flip_byte(path, at)


class Spoilt(FlowSpec):
    """Its first attempt of `use` damages something, and its second comes to read it."""

    what = Parameter("what", default="")

    @step
    def start(self):
        self.small = "small value"
        self.middling = b"m" * 9_000
        self.large = b"L" * 300_000
        self.items = ["item" * 3000, "other"]
        self.next(self.use, foreach="items")

    @retry(times=1, minutes_between_retries=0)
    @step
    def use(self):
        if current.retry_count == 0 and self.index == 0:
            spoil_store(self.what)
            os._exit(3)
        if self.index == 0:
            name = {"blob": "large", "segment": "middling"}.get(self.what)
            self.read = len(getattr(self, name) if name else self.input)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.parametrize(
    ("what", "exception", "said"),
    [
        ("blob", "ArtifactCorruptError", ["'Spoilt/{run}/start/1/large' is damaged"]),
        (
            "segment",
            "ArtifactCorruptError",
            ["'Spoilt/{run}/start/1/middling' is damaged"],
        ),
        ("items", "ArtifactCorruptError", ["'Spoilt/{run}/start/1/items[0]' is damaged"]),
        (
            "journal",
            "JournalError",
            [
                "the journal of Spoilt/{run} cannot be read",
                "for the artifacts that Spoilt/{run}/use/2 inherits",
                "asyncflow verify Spoilt/{run}",
            ],
        ),
    ],
)
async def test_a_step_that_reads_what_is_damaged_fails_with_its_name(store, what, exception, said):
    """By run, task and artifact; where the task's record is damaged, by the task that has it."""
    async with Engine(store=store, workers=1) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(Spoilt, what=what)
    failure = caught.value.failure
    assert failure.type.rpartition(".")[2] == exception
    for words in said:
        assert words.format(run=caught.value.run.id) in failure.message


class Joined(FlowSpec):
    """A join that takes an artifact over, and reads it after it was damaged."""

    @step
    def start(self):
        self.large = b"L" * 300_000
        self.next(self.left, self.right)

    @step
    def left(self):
        self.next(self.join)

    @step
    def right(self):
        self.next(self.join)

    @retry(times=1, minutes_between_retries=0)
    @step
    def join(self, inputs):
        if current.retry_count == 0:
            spoil_store("blob")
            os._exit(3)
        self.merge_artifacts(inputs)
        self.sizes = len(inputs.left.large), len(self.large)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_join_names_the_artifact_of_the_input(store):
    """It is that of the task that leads to it."""
    async with Engine(store=store, workers=1) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(Joined)
    [left] = caught.value.run["left"]
    assert f"artifact '{left.pathspec}/large' is damaged" in caught.value.failure.message


NEEDY = """
from pathlib import Path
from asyncflow import FlowSpec, Parameter, step

class Needy(FlowSpec):
    go_on = Parameter("go_on", default=False)

    @step
    def start(self):
        self.bytes = b"L" * 300_000
        self.next(self.left, self.right)

    @step
    def left(self):
        self.next(self.join)

    @step
    def right(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.merge_artifacts(inputs)
        self.next(self.end)

    @step
    def end(self):
        if not Path("repaired").exists():
            raise ValueError("not yet")
        print(len(self.bytes))
"""


@pytest.mark.parametrize("way", ["damaged", "gone"])
def test_the_command_that_goes_on_makes_anew_what_is_damaged(store, tmp_path, monkeypatch, way):
    """It names the step that made the artifact, which others have only handed on."""
    monkeypatch.chdir(tmp_path)
    Path("needy.py").write_text(NEEDY)
    asyncflow("run", "needy.py", "--workers=1")
    [blob] = [path for path in store.glob("blobs/??/*") if path.stat().st_size >= 300_000]
    flip_byte(blob, 1000) if way == "damaged" else blob.unlink()
    Path("repaired").touch()
    failed = asyncflow("resume", "needy.py", "--json", "--workers=1")
    assert failed.status == 1
    told = re.search(
        r"To go on: +asyncflow (resume needy.py start --origin-run-id .*)", failed.stderr
    )
    assert told is not None, failed.stderr
    assert json.loads(failed.stdout)["resume"] == f"asyncflow {told[1]}"
    repaired = asyncflow(*told[1].split(), "--workers=1")
    assert repaired.status == 0, repaired
    assert "] 300000\n" in repaired.stdout


async def test_an_error_of_a_run_names_that_step_too(store):
    """So does one for a join that reads what it has taken over from its inputs."""
    async with Engine(store=store, workers=1) as engine:
        for flow in (Spoilt, Joined):
            given = {"what": "blob"} if flow is Spoilt else {}
            with pytest.raises(RunFailedError) as caught:
                await engine.run(flow, **given)
            name, run_id = caught.value.run.path_components
            assert f"{name} start --origin-run-id {run_id}" in str(caught.value)
            for blob in store.glob("blobs/??/*"):
                blob.unlink()


async def test_of_a_parameter_no_step_is_named(store):
    """No step has made it, and none would make it anew."""
    async with Engine(store=store, workers=1) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(Given)
    assert "parameters/large' is damaged" in str(caught.value)
    assert f"Given --origin-run-id {caught.value.run.id}" in str(caught.value)


class Given(FlowSpec):
    """Reads a parameter that is damaged."""

    large = Parameter("large", default="L" * 300_000)

    @retry(times=1, minutes_between_retries=0)
    @step
    def start(self):
        if current.retry_count == 0:
            spoil_store("blob")
            os._exit(3)
        self.size = len(self.large)
        self.next(self.end)

    @step
    def end(self):
        pass


class Wide(FlowSpec):
    """A join whose inputs are to be more than fit into an order."""

    @step
    def start(self):
        self.items = range(9)
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.parametrize("cut", [False, True])
async def test_a_wide_join_never_joins_other_tasks_than_those_that_lead_to_it(
    store, monkeypatch, cut
):
    """The file that names them is changed, or cut, before the worker reads it."""

    def reached(point: str) -> None:
        if point == "inputs.spilled":
            [path] = store.glob("flows/Wide/*/inputs-*")
            data = path.read_bytes()
            path.write_bytes(data[:-8] if cut else data[:8] + data[:8] + data[16:])

    monkeypatch.setattr(input_offsets, "reached", reached)
    monkeypatch.setattr(task_orders, "MAX_INPUTS_IN_ORDER", 4)
    async with Engine(store=store, workers=2) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(Wide)
    failure = caught.value.failure
    assert "is damaged: it is not what was written" in failure.message
    assert f"which tasks lead to {caught.value.run.pathspec}/join/{failure.task_id}" in (
        failure.message
    )


@pytest.mark.parametrize("which", ["started", "ended"])
def test_verify_names_the_task_of_a_forged_record(store, which):
    """Its checksum is right, and it is no event: the index knows whose record lies there."""
    graph = Graph("Made", [Node("start", ("end",)), Node("end")])
    writer = RunWriter(store, "Made", "1795472683000009", graph)
    for name in graph.nodes:
        writer.run(name)
    task, at = 2, getattr(writer.table[2], which)
    writer.finish()
    journal = writer.run_dir / "journal"
    with JournalReader(journal) as reader:
        size = len(reader.read_one(at))
    with journal.open("r+b") as file:
        file.seek(at)
        file.write(frame(b"\xc0" * size))
    (damage,) = verify(Layout(store)).damage
    assert "is not an event" in damage.what
    assert damage.affected == [f"Made/1795472683000009/end/{task}"]
