"""Dask: a local cluster of two processes; results are in memory and gone with it."""

import sys

from dask.distributed import Client, LocalCluster


def start(width):
    """Fan out."""
    return list(range(width))


def work(item):
    """One task of many."""
    return item**2


def join(squares):
    """Add up."""
    return sum(squares)


def end(total):
    """Tell."""
    print("total", total)
    return total


def main(width):
    """All of it."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        items = client.submit(start, width).result()
        squares = client.map(work, items)
        print("total", client.submit(end, client.submit(join, squares)).result())


if __name__ == "__main__":
    main(int(sys.argv[1]))
