"""Read, from a process of its own, what the other examples have left in the store."""

from __future__ import annotations

from asyncflow import Flow, Run


def latest(flow: str) -> Run:
    """The latest run of a flow that succeeded."""
    run = Flow(flow).latest_successful_run
    if run is None:
        message = f"{flow} has not succeeded yet: run it first"
        raise SystemExit(message)
    return run


def main() -> None:
    """Look at the latest successful run of each."""
    simple = latest("ArtifactFlow")
    print(f"{simple.pathspec}: state={simple.data.state!r} history={simple.data.history}")

    sweep = latest("DigitsSweep")
    print(f"{sweep.pathspec}: accuracy {sweep.data.accuracy:.4f} with {sweep.data.setting}")
    for task in sweep["train"]:
        print(f"  {task.pathspec}: {task.stdout.strip()}")
    model = sweep["choose"].task["model"]
    print(f"  the model is a {model.type_name} of {model.size:,} bytes, {model.sha[:12]}…")


if __name__ == "__main__":
    main()
