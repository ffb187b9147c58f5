"""What users write, and the graph that is read from it.

`spec` has `FlowSpec`, `decorators`, `parameters`, `shared`, `include_file` and `current` the rest
of the language. `graph_reader` reads a class's steps into a `graph`, and `loader` finds the class
that a name means. Nothing here runs a flow or opens a store.
"""

from __future__ import annotations

from asyncflow.flow.spec import FlowSpec

__all__ = ["FlowSpec"]
