"""Pages of the docs that need an S3 server: every example is carried out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.doc_pages import needs_a_cluster, try_page

if TYPE_CHECKING:
    from tests.support.s3_server import S3Server

pytestmark = pytest.mark.cluster

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if needs_a_cluster(page.read_text())]


@pytest.fixture(scope="module")
def my_bucket(s3_server: S3Server) -> str:
    """The bucket that the pages use."""
    return s3_server.create_bucket("my-bucket")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_example_of_a_page_runs(page: Path, tmp_path: Path, bucket: str, my_bucket: str):
    """Every Python block and every command of a page does what the page says."""
    complaints = try_page(page.read_text(), tmp_path)
    assert not complaints, "\n".join(complaints)
