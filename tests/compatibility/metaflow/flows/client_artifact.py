"""What an artifact tells."""

from metaflow import DataArtifact, FlowSpec, step


class ClientArtifactFlow(FlowSpec):
    @step
    def start(self):
        self.number = [1, 2]
        self.same = [1, 2]
        self.other = [3]
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    task = run["start"].task
    number = DataArtifact(f"{task.pathspec}/number")
    return {
        "id": (number.id, number.data, number.parent.id == task.id),
        "parts": len(number.path_components),
        "hashes": (number.sha == task["same"].sha, number.sha == task["other"].sha),
        "kinds": (type(number.sha).__name__, type(number.size).__name__),
        "times": number.finished_at is not None,
        "inherited": run["end"].task["number"].sha == number.sha,
    }


if __name__ == "__main__":
    ClientArtifactFlow()
