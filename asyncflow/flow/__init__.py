"""The language in which users write flows, and the graph that is read from a flow.

`spec` has `FlowSpec`; `decorators`, `parameters`, `shared`, `include_file` and `current` have the
rest of the language. `task_instance` makes the instance of a flow for one task. `graph_reader`
reads the steps of a class into a `graph`, and `graph_drawing` draws it. `loader` finds a class by
its name. Nothing here runs a flow or opens a store.
"""

from __future__ import annotations

from asyncflow.flow.spec import FlowSpec

__all__ = ["FlowSpec"]
