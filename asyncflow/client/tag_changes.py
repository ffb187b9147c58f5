"""The tags of a run: given to it and taken away, at any time."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Any

from asyncflow.client.views import RunView
from asyncflow.errors import TagError
from asyncflow.store.run_tags import wrong_with_tag


def _tags_in(given: object) -> frozenset[str]:
    """One tag or several as a set.

    Raises:
        TagError: One cannot be a tag.
    """
    tags: Iterable[Any] = (
        given if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    )
    tags = list(tags)
    for tag in tags:
        if wrong := wrong_with_tag(tag):
            message = f"the tag {reprlib.repr(tag)} {wrong}: give a text of one line"
            raise TagError(message)
    return frozenset(tags)


class TagChanges(RunView):
    """Gives tags to a run, and takes them away."""

    __slots__ = ()

    def add_tag(self, tag: str | Iterable[str]) -> None:
        """Give it a tag, or several; one that it has already stays.

        Tags may be changed at any time, also while the run goes on, and by several processes at
        once: every change counts. When this returns, the tags survive a power cut. So it waits for
        the disk: in a coroutine, call it in a thread. A task sees the tags of the run's start in
        `current.tags`.

        Raises:
            TagError: A tag is not a line of text with at most 500 characters.
            StoreError: The store cannot be written to.
        """
        self.replace_tags((), tag)

    def add_tags(self, tags: str | Iterable[str]) -> None:
        """Give it several tags at once, as `add_tag`."""
        self.replace_tags((), tags)

    def remove_tag(self, tag: str | Iterable[str]) -> None:
        """Take a tag away, or several; one that it does not have is no error.

        Raises:
            TagError: It is one of `system_tags`, which stay.
            StoreError: The store cannot be written to.
        """
        self.replace_tags(tag, ())

    def remove_tags(self, tags: str | Iterable[str]) -> None:
        """Take several tags away at once, as `remove_tag`."""
        self.replace_tags(tags, ())

    def replace_tag(
        self, tag_to_remove: str | Iterable[str], tag_to_add: str | Iterable[str]
    ) -> None:
        """Take one tag away and give it another, in one change."""
        self.replace_tags(tag_to_remove, tag_to_add)

    def replace_tags(
        self, tags_to_remove: str | Iterable[str], tags_to_add: str | Iterable[str]
    ) -> None:
        """Take tags away, then give others, in one change: a tag in both stays.

        Raises:
            TagError: One cannot be a tag, or one of `system_tags` is to be removed.
            StoreError: The store cannot be written to.
        """
        add, remove = _tags_in(tags_to_add), _tags_in(tags_to_remove)
        fixed = sorted(remove & self.system_tags)
        if fixed:
            message = f"the tag {fixed[0]!r} of {self.pathspec} cannot be removed: it says a fact"
            raise TagError(message)
        self._record.change_tags(add, remove)
