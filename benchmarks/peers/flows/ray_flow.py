"""Ray: two worker processes; results are in shared memory and gone with them."""

import sys

import ray


@ray.remote
def start(width):
    """Fan out."""
    return list(range(width))


@ray.remote
def work(item):
    """One task of many."""
    return item**2


@ray.remote
def join(*squares):
    """Add up."""
    return sum(squares)


@ray.remote
def end(total):
    """Tell."""
    print("total", total)
    return total


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    items = ray.get(start.remote(int(sys.argv[1])))
    squares = [work.remote(item) for item in items]
    print("total", ray.get(end.remote(join.remote(*squares))))
