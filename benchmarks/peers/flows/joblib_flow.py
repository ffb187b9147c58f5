"""joblib: two loky processes, to which it sends many tasks at a time; nothing is kept."""

import sys

from joblib import Parallel, delayed


def work(item):
    """One task of many."""
    return item**2


def main(width):
    """All of it."""
    squares = Parallel(n_jobs=2)(delayed(work)(item) for item in range(width))
    print("total", sum(squares))


if __name__ == "__main__":
    main(int(sys.argv[1]))
