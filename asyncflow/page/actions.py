"""What the page does: cancels and resumes runs, starts new ones, changes tags."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from asyncflow.page.answers import AskedWrongly
from asyncflow.page.opened_runs import run_of
from asyncflow.page.requests import text_of, texts_of

if TYPE_CHECKING:
    from asyncflow.client.run_files import RunRecord

_CANCEL_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.02
_MOST_REASON: Final = 1_000
_MOST_TAGS: Final = 50


def cancel(record: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
    """Cancel a run, whatever process its engine is in.

    Raises:
        RunNotActiveError: It has ended before, or its engine is gone.
        StoreError: The store cannot be written to.
    """
    reason = text_of(body, "reason") or "cancelled on the page"
    if len(reason) > _MOST_REASON:
        raise AskedWrongly(400, f"the reason is to have at most {_MOST_REASON} characters")
    until = time.monotonic() + _CANCEL_SECONDS
    run_of(record).cancel(reason, seconds=_CANCEL_SECONDS)
    # Its last event is there before its engine lets go of it; a resume would be refused until then.
    while record.stored.is_being_written() and time.monotonic() < until:
        time.sleep(_PAUSE_SECONDS)
    return {"status": str(record.status())}


def change_tags(record: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
    """Give a run tags, and take others away.

    Raises:
        TagError: One cannot be a tag, or cannot be taken away.
        StoreError: The store cannot be written to.
    """
    add, remove = texts_of(body, "add"), texts_of(body, "remove")
    if len(add) > _MOST_TAGS or len(remove) > _MOST_TAGS:
        raise AskedWrongly(400, f"at most {_MOST_TAGS} tags can be changed at a time")
    run_of(record).replace_tags(remove, add)
    return {"tags": sorted(record.user_tags())[:200]}
