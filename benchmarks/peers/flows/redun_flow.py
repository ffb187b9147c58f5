"""redun: two worker processes; values and call graph go to an SQLite database."""

from redun import task

redun_namespace = "bench"


@task()
def start(width):
    """Fan out."""
    return list(range(width))


@task(executor="process")
def work(item):
    """One task of many."""
    return item**2


@task()
def fan_out(items):
    """A lazy list of what the tasks give."""
    return [work(item) for item in items]


@task()
def join(squares):
    """Add up."""
    return sum(squares)


@task()
def end(total):
    """Tell."""
    print("total", total)
    return total


@task()
def main(width: int = 1):
    """All of it."""
    return end(join(fan_out(start(width))))
