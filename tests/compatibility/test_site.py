"""The documentation as a site: what its navigation has, and what its reference has."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import pytest

import asyncflow
from asyncflow import client, datatools, errors, events, testing

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
PYTHON = DOCS / "reference/python"

WHOLE = {"asyncflow.client", "asyncflow.datatools", "asyncflow.errors", "asyncflow.testing"}
"""Modules of which the reference has every public name."""
FOR_OTHER_READERS = {"pack_manifest", "unpack_manifest"}
"""Names of `asyncflow.events` that only who reads a journal needs."""


def leaves(nav):
    """The pages of a navigation, from the top to the bottom."""
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            (target,) = entry.values()
            yield from [target] if isinstance(target, str) else leaves(target)


def directives(page):
    """What a page has made from docstrings, as (name, members)."""
    for name, options in re.findall(r"^::: (\S+)\n((?:    .*\n)*)", page.read_text(), re.MULTILINE):
        yield name, re.findall(r"^ +- (\w+)$", options, re.MULTILINE)


def documented():
    """Every name that the reference was told to have, with its module."""
    for page in sorted(PYTHON.glob("*.md")):
        for name, members in directives(page):
            yield from [f"{name}.{member}" for member in members] or [name]


def test_the_navigation_has_every_page_once():
    """Each page can be reached, and each entry leads to a page."""
    project = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    assert sorted(leaves(project["nav"])) == PAGES


@pytest.mark.parametrize("index", ["how-to/index.md", "reference/python/index.md"])
def test_an_overview_has_every_page_of_its_folder(index):
    """An overview links to each page beside it."""
    overview = DOCS / index
    beside = {page.name for page in overview.parent.glob("*.md")} - {"index.md"}
    assert set(re.findall(r"^- \[.+\]\((\S+\.md)\)", overview.read_text(), re.MULTILINE)) == beside


def test_the_reference_has_every_public_name_once():
    """What can be imported is explained on one page."""
    names = list(documented())
    assert len(set(names)) == len(names)
    have = {name.rpartition(".")[2] for name in names} | set(client.__all__)
    modules = {"errors", "events", *WHOLE}
    assert set(asyncflow.__all__) - have - {"S3", "current"} <= modules
    assert set(events.__all__) - have == FOR_OTHER_READERS
    assert set(names) >= WHOLE


@pytest.mark.parametrize("module", [client, datatools, errors, testing], ids=lambda m: m.__name__)
def test_what_the_reference_lists_as_a_whole_has_docstrings(module):
    """Each class and function of these modules says what it is."""
    listed = getattr(module, "__all__", [name for name in vars(module) if name.endswith("Error")])
    found = [getattr(module, name) for name in listed]
    assert [each for each in found if callable(each) and not inspect.getdoc(each)] == []
