"""Where what was run is kept."""

from metaflow import FlowSpec, default_metadata, get_metadata, metadata, step


class ClientMetadataFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    before = get_metadata()
    return {
        "kind": type(before).__name__,
        "same": default_metadata() == before,
        "set": metadata(before) == before,
    }


if __name__ == "__main__":
    ClientMetadataFlow()
