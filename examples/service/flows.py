"""The flow that the service runs: which functions of a Python package are the longest?

Its input is real and on every machine: the source of the standard library's packages.
"""

from __future__ import annotations

import ast
import importlib.util
import time
from pathlib import Path

from asyncflow import FlowSpec, Parameter, step

PACKAGES = ("asyncio", "email", "http", "json", "unittest")  # a caller cannot have others imported
LONGEST_PAUSE = 60  # seconds: workers are for everybody
MOST_FUNCTIONS = 100


class LongestFunctions(FlowSpec):
    """Parse every module of a package, and list its longest functions."""

    package = Parameter("package", default="asyncio", help="a package of the standard library")
    top = Parameter("top", default=5, help="how many functions to list")
    pause = Parameter("pause", default=0.0, help="seconds to wait in each task, to watch it work")

    @step
    def start(self):
        """Find the package's modules."""
        if self.package not in PACKAGES:
            raise ValueError(f"package is to be one of {', '.join(PACKAGES)}")
        if not (1 <= self.top <= MOST_FUNCTIONS and 0 <= self.pause <= LONGEST_PAUSE):
            raise ValueError(f"top is at most {MOST_FUNCTIONS}, and pause {LONGEST_PAUSE} seconds")
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"there is no package {self.package!r}")
        folder = Path(spec.submodule_search_locations[0])
        self.modules = [str(path) for path in sorted(folder.glob("*.py"))]
        print(f"{self.package} has {len(self.modules)} modules")
        self.next(self.measure, foreach="modules")

    @step
    def measure(self):
        """Measure the functions of one module."""
        time.sleep(self.pause)
        path = Path(self.input)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        self.functions = [
            ((node.end_lineno or node.lineno) - node.lineno + 1, f"{path.stem}.{node.name}")
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        print(f"{path.name}: {len(self.functions)} functions")
        self.next(self.rank)

    @step
    def rank(self, inputs):
        """Keep the longest of all."""
        found = [function for module in inputs for function in module.functions]
        self.merge_artifacts(inputs, include=["package"])
        self.longest = sorted(found, reverse=True)[: self.top]
        self.next(self.end)

    @step
    def end(self):
        """Say what was found."""
        for lines, name in self.longest:
            print(f"{lines:5} lines  {name}")


if __name__ == "__main__":
    LongestFunctions()
