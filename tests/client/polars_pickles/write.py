"""Writes a frame and a series as this interpreter's Polars pickles them.

They are kept for several versions of Polars, so that the tests need none of them:
`python tests/client/polars_pickles/write.py`, in an environment with Polars and no asyncflow.
"""

from __future__ import annotations

import datetime as dt
import decimal
import pickle
from pathlib import Path

import polars as pl

LONG = "a text of more than twelve bytes"
MOMENT = dt.datetime(2026, 11, 27, 8, 30)  # noqa: DTZ001 - a column without a zone is shown, too


def frame() -> pl.DataFrame:
    """A frame of two parts with a column of each type that all these versions can pickle."""
    rows = pl.DataFrame(
        {
            "number": pl.Series([1, None, 3], dtype=pl.Int64),
            "small": pl.Series([1, 2, 255], dtype=pl.UInt8),
            "real": [0.5, None, 2.0],
            "text": ["x", LONG, None],
            "true": [True, False, None],
            "day": [dt.date(2026, 11, 27), None, dt.date(1969, 12, 31)],
            "when": [MOMENT, None, None],
            "there": pl.Series([MOMENT] * 3).dt.replace_time_zone("Asia/Tokyo"),
            "took": [dt.timedelta(hours=30), None, None],
            "clock": [dt.time(8, 30), None, None],
            "money": [decimal.Decimal("-1.50"), None, decimal.Decimal(20)],
            "bytes": [b"\x00\x01", None, b"z" * 20],
            "kind": pl.Series(["u", "v", "u"], dtype=pl.Categorical),
            "level": pl.Series(["low", "high", None], dtype=pl.Enum(["low", "high"])),
            "list": [[1], [2, 3], None],
            "pair": pl.Series([[1, 2], [3, 4], [5, 6]], dtype=pl.Array(pl.Int8, 2)),
            "record": [{"x": 1, "y": "z"}, None, {"x": None, "y": LONG}],
            "nothing": [None, None, None],
        }
    )
    return pl.concat([rows, rows], rechunk=False)


if __name__ == "__main__":
    folder = Path(__file__).parent
    for name, value in (("frame", frame()), ("series", frame()["text"])):
        path = folder / f"{name}-{pl.__version__}.pickle"
        path.write_bytes(pickle.dumps(value, protocol=5))
