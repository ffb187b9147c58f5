"""Dagster: one process, the quickest for short tasks; outputs are files, events in SQLite."""

import os
import sys

from dagster import (
    DagsterInstance,
    DynamicOut,
    DynamicOutput,
    execute_job,
    in_process_executor,
    job,
    op,
    reconstructable,
)


@op(out=DynamicOut())
def start():
    """Fan out."""
    for index in range(int(os.environ["BENCH_WIDTH"])):
        yield DynamicOutput(index, mapping_key=str(index))


@op
def work(item):
    """One task of many."""
    return item**2


@op
def join(squares):
    """Add up."""
    return sum(squares)


@op
def end(total):
    """Tell."""
    print("total", total)
    return total


@job(executor_def=in_process_executor)
def squares():
    """All of it."""
    end(join(start().map(work).collect()))


if __name__ == "__main__":
    os.environ["BENCH_WIDTH"] = sys.argv[1]
    with DagsterInstance.get() as instance:
        quiet = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
        result = execute_job(reconstructable(squares), instance=instance, run_config=quiet)
        sys.exit(not result.success)
