"""Luigi: the local scheduler, two worker processes; a task is done when its file is there."""

import json
import os
import sys
from pathlib import Path

import luigi

FOLDER = Path(os.environ["BENCH_FOLDER"])


class Start(luigi.Task):
    """Fan out."""

    width = luigi.IntParameter()

    def output(self):
        """Where its result lies."""
        return luigi.LocalTarget(FOLDER / f"start-{self.width}")

    def run(self):
        """Store the items."""
        with self.output().open("w") as file:
            json.dump(list(range(self.width)), file)


class Work(luigi.Task):
    """One task of many."""

    width = luigi.IntParameter()
    index = luigi.IntParameter()

    def requires(self):
        """The step before."""
        return Start(self.width)

    def output(self):
        """Where its result lies."""
        return luigi.LocalTarget(FOLDER / f"work-{self.width}-{self.index}")

    def run(self):
        """Square one item."""
        with self.input().open() as file:
            item = json.load(file)[self.index]
        with self.output().open("w") as file:
            json.dump(item**2, file)


class Join(luigi.Task):
    """Add up."""

    width = luigi.IntParameter()

    def requires(self):
        """All of the step before."""
        return [Work(self.width, index) for index in range(self.width)]

    def output(self):
        """Where its result lies."""
        return luigi.LocalTarget(FOLDER / f"join-{self.width}")

    def run(self):
        """Read them all."""
        total = 0
        for target in self.input():
            with target.open() as file:
                total += json.load(file)
        with self.output().open("w") as file:
            json.dump(total, file)


class End(luigi.Task):
    """Tell."""

    width = luigi.IntParameter()

    def requires(self):
        """The step before."""
        return Join(self.width)

    def output(self):
        """Where its result lies."""
        return luigi.LocalTarget(FOLDER / f"end-{self.width}")

    def run(self):
        """Print the total."""
        with self.input().open() as file:
            print("total", json.load(file))
        with self.output().open("w") as file:
            file.write("done")


if __name__ == "__main__":
    luigi.build([End(int(sys.argv[1]))], local_scheduler=True, workers=2, log_level="WARNING")
