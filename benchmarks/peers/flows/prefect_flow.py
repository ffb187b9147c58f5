"""Prefect: its temporary server on an SQLite database; results persisted, tasks in threads."""

import sys

from prefect import flow, task


@task(persist_result=True)
def start(width):
    """Fan out."""
    return list(range(width))


@task(persist_result=True)
def work(item):
    """One task of many."""
    return item**2


@task(persist_result=True)
def join(squares):
    """Add up."""
    return sum(squares)


@task(persist_result=True)
def end(total):
    """Tell."""
    print("total", total)
    return total


@flow(persist_result=True)
def squares(width: int):
    """All of it."""
    items = start(width)
    return end(join(work.map(items).result()))


if __name__ == "__main__":
    squares(int(sys.argv[1]))
