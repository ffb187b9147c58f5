"""DBOS: steps checkpointed to an SQLite database, side by side in one process."""

import asyncio
import os
import sys

from dbos import DBOS

DBOS(
    config={
        "name": "squares",
        "system_database_url": f"sqlite:///{os.environ['BENCH_FOLDER']}/dbos.sqlite",
        "log_level": "ERROR",
        "run_admin_server": False,
    }
)


@DBOS.step()
async def start(width):
    """Fan out."""
    return list(range(width))


@DBOS.step()
async def work(item):
    """One task of many."""
    return item**2


@DBOS.step()
async def join(squares):
    """Add up."""
    return sum(squares)


@DBOS.step()
async def end(total):
    """Tell."""
    print("total", total)
    return total


@DBOS.workflow()
async def squares(width):
    """All of it."""
    items = await start(width)
    squared = await asyncio.gather(*(work(item) for item in items))
    return await end(await join(squared))


async def main():
    """Run it once."""
    DBOS.launch()
    await squares(int(sys.argv[1]))
    DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main())
