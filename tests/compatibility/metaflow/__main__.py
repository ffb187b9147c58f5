"""`make test-metaflow`: Metaflow runs our flows, and both engines run Metaflow's tutorials.

Metaflow has to give the answers that are kept in `golden/`; with `--write` they are kept anew. The
tutorials are those of the installed package.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from asyncflow import Engine
from tests.compatibility.metaflow import ours, theirs, tutorials
from tests.compatibility.metaflow.cases import CASES, DIFFERENT, golden_file, our_file
from tests.compatibility.metaflow.compare import differences

AT_ONCE = 2


def main() -> int:
    """Run all cases, or those that are named; the number of differences is the status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="cases, or tutorials; all when there is none")
    parser.add_argument("--write", action="store_true", help="keep what Metaflow answers")
    parser.add_argument("--write-ours", action="store_true", help="keep what we answer otherwise")
    asked = parser.parse_args()
    names = asked.names or [*CASES, *tutorials.TUTORIALS]
    if asked.write_ours:
        asyncio.run(_keep_ours([name for name in names if name in DIFFERENT]))
        return 0
    wrong = 0
    with ThreadPoolExecutor(AT_ONCE) as threads:
        cases = [name for name in names if name in CASES]
        for name, answer in zip(cases, threads.map(_answer, cases), strict=True):
            if asked.write:
                _keep(answer, golden_file(name))
            kept = json.loads(golden_file(name).read_text(encoding="utf-8"))
            wrong += _tell(name, differences(kept, answer))
    with tempfile.TemporaryDirectory() as folder:
        for name in tutorials.TUTORIALS:
            if name in names:  # in order: later ones read what earlier ones have made
                wrong += _tell(name, tutorials.compare(name, Path(folder)))
    return min(wrong, 1)


def _keep(answer: dict[str, Any], file: Path) -> None:
    text = json.dumps(answer, indent=1, ensure_ascii=False, sort_keys=True)
    file.write_text(f"{text}\n", encoding="utf-8")


async def _keep_ours(names: list[str]) -> None:
    """Keep our answers to cases that differ on purpose, and no others."""
    for kept in our_file("").parent.glob("*.json"):
        if kept.stem not in DIFFERENT:
            kept.unlink()
    with tempfile.TemporaryDirectory() as root:
        os.environ |= {"ASYNCFLOW_STORE": f"{root}/store", "USER": theirs.USER}
        os.environ["LOGNAME"] = theirs.USER
        async with Engine(store=f"{root}/store", workers=2) as engine:
            for name in names:
                folder = Path(root) / name
                folder.mkdir()
                os.chdir(folder)
                answer = await ours.answer(CASES[name], name, folder, engine)
                _keep(answer, our_file(name))


def _answer(name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return theirs.answer(CASES[name], name, Path(folder))


def _tell(name: str, found: dict[str, tuple[Any, Any]]) -> int:
    print("differs" if found else "same   ", name, flush=True)
    for path, (left, right) in found.items():
        print(f"    {path}: {left!s:.300} | {right!s:.300}")
    return len(found)


if __name__ == "__main__":
    sys.exit(main())
