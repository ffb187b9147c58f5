"""What `verify`, `gc` and `rm` found and did, for people. Values in, text out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncflow._support.terminal_text import visible_line
from asyncflow.client.words import how_large, how_many

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncflow.store.maintenance.collect import Collected
    from asyncflow.store.maintenance.copy_runs import CopiedRun, CopyProgress
    from asyncflow.store.maintenance.findings import Verified
    from asyncflow.store.maintenance.remove import Removed


def verified_lines(verified: Verified) -> Iterator[str]:
    """What is damaged, what that affects, and how much was read."""
    for damage in verified.damage:
        yield visible_line(f"Damaged: {damage.file}: {damage.what}")
        for pathspec in damage.affected:
            yield visible_line(f"    affects {pathspec}")
        if damage.count > len(damage.affected):
            yield f"    and {damage.count - len(damage.affected):,} more"
    for note in verified.notes:
        yield visible_line(f"Note: {note}")
    yield f"Read {progress_text(verified)}."
    found = len(verified.damage)
    yield f"Found damage in {how_many(found, 'place')}." if found else "Found no damage."


def collected_lines(collected: Collected) -> Iterator[str]:
    """What was deleted, what was spared, and what was kept."""
    total = collected.total
    would = "Would delete" if collected.dry_run else "Deleted"
    yield f"{would} {how_many(total.files, 'file')}, {how_large(total.size)}."
    for noun, more, amount in (
        ("blob", " that no run refers to", collected.blobs),
        ("unfinished blob", "", collected.drafts),
        ("segment", " that no run refers to", collected.segments),
        ("temporary file", " of runs that are over", collected.leftovers),
        ("file", " of removed runs", collected.removed),
    ):
        if amount.files:
            yield f"    {how_many(amount.files, noun)}{more}, {how_large(amount.size)}"
    if collected.spared.files:
        yield (
            f"Spared {how_many(collected.spared.files, 'blob')}, "
            f"{how_large(collected.spared.size)}, that no run refers to yet: too young to tell."
        )
    for link in collected.links:
        yield f"Skipped {link}: it is a link, and files behind a link are never deleted"
    yield f"Kept {how_many(collected.kept.files, 'blob')} that runs refer to."


def removed_lines(
    removed: list[Removed], running: tuple[tuple[str, str], ...], *, dry_run: bool
) -> Iterator[str]:
    """Which runs were removed, and which were skipped."""
    would = "Would remove" if dry_run else "Removed"
    for run in removed:
        freed = f"{how_many(run.freed.files, 'file')}, {how_large(run.freed.size)}"
        yield f"{would} {run.pathspec}: {freed}"
        if run.kept:
            yield f"    kept, because other runs refer to them: {', '.join(run.kept)}"
        if run.strange:
            names = ", ".join(run.strange)
            yield f"    left in .removed, because it is not the store's own: {names}"
        if run.link:
            yield "    it was a link: what it leads to was left alone"
    for flow, run_id in running:
        yield f"Skipped {flow}/{run_id}: it is running"
    size = sum(run.freed.size for run in removed)
    runs = how_many(len(removed), "run")
    yield f"{would} {runs}, {how_large(size)}; `asyncflow gc` frees their blobs."


def copied_lines(copied: Sequence[CopiedRun], running: Sequence[str]) -> Iterator[str]:
    """Which runs were copied, which were there, and which were skipped."""
    for run in copied:
        if run.key_has:
            yield (
                f"The key {run.key!r} of {run.pathspec} stays with {run.flow}/{run.key_has}, which "
                "has it there"
            )
        if run.was_there:
            yield f"{run.pathspec} is there already"
            continue
        known = f", {how_many(run.known, 'value')} there already" if run.known else ""
        yield f"Copied {run.pathspec}: {how_large(run.size)}{known}"
        if run.needed_by:
            yield f"    because {run.needed_by} has taken tasks over from it"
        if run.removed:
            yield f"    with what it needs of removed runs: {', '.join(run.removed)}"
    for pathspec in running:
        yield f"Skipped {pathspec}: it is running"
    new = [run for run in copied if not run.was_there]
    yield f"Copied {how_many(len(new), 'run')}, {how_large(sum(run.size for run in new))}."


def copying_text(progress: CopyProgress) -> str:
    """How much has been copied."""
    return f"{len(progress.done):,} of {how_many(progress.runs, 'run')}, {how_large(progress.size)}"


def progress_text(verified: Verified) -> str:
    """How much has been read."""
    return (
        f"{how_many(verified.runs, 'run')}, {how_many(verified.tasks, 'task')}, "
        f"{how_many(verified.values, 'stored value')}, {how_large(verified.size)}"
    )
