"""Values of many kinds come back as they were."""

from collections import Counter
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from metaflow import FlowSpec, step


class ValuesFlow(FlowSpec):
    @step
    def start(self):
        self.plain = [None, True, 1, -2.5, "é", b"\x00", 1j, ...]
        self.nested = {"a": [(1, {2, 3}), frozenset("x")], 4: {None: []}}
        self.standard = (date(2024, 2, 29), Decimal("1.10"), Fraction(1, 3), Path("a/b"), range(3))
        self.large = 10**50
        self.counted = Counter("aab")
        self.function = len
        self.error = ValueError("kept")
        self.shared = [self.nested, self.nested]
        self.next(self.end)

    @step
    def end(self):
        self.is_one = self.shared[0] is self.shared[1]
        self.called = self.function("abc")


if __name__ == "__main__":
    ValuesFlow()
