"""Which tests of clusters run in the same process of `pytest -n 2 --dist=loadgroup`.

Tests of one cluster have to be together: it takes seconds to start. All others go to whoever is
free. The mark `xdist_group` says the same, but has no effect with this version of pytest: since 9.2
a test's id is not what xdist makes of it.
"""

from __future__ import annotations

import re
from typing import Final

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # it has no types

_FILES: Final = {
    "test_dask.py": "dask",
    "test_executor_check.py": "dask",
    "test_ray.py": "ray",
    "test_hosts.py": "hosts",
}
_PARAMETER: Final = re.compile(r"test_executors\.py::.*\[(dask|ray)\b")


class ClusterScheduling(LoadScopeScheduling):
    """Keeps the tests of one cluster together."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """The group of a test; its own id if it is in none."""
    parameter = _PARAMETER.search(nodeid)
    if parameter is not None:
        return parameter[1]
    return _FILES.get(nodeid.partition("::")[0].rpartition("/")[2], nodeid)
