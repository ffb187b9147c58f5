"""The bare process pool: two processes of the standard library; nothing is kept."""

import sys
from concurrent.futures import ProcessPoolExecutor


def work(item):
    """One task of many."""
    return item**2


def main(width):
    """All of it."""
    with ProcessPoolExecutor(2) as pool:
        print("total", sum(pool.map(work, range(width))))


if __name__ == "__main__":
    main(int(sys.argv[1]))
