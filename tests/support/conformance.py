"""The family of flows that has to mean the same everywhere, and all that can be seen of a run."""

from __future__ import annotations

import re
from pathlib import Path

from asyncflow.errors import RunFailedError
from asyncflow.flow.loader import load_file
from asyncflow.values import Failure

SOURCE = Path(__file__).with_name("language_flows.py").read_text()
FLOWS = re.findall(r"^class (\w+)", SOURCE, flags=re.MULTILINE)
KINDS = {
    "def": lambda number: False,
    "async": lambda number: True,
    "even": lambda number: number % 2 == 0,
    "odd": lambda number: number % 2 == 1,
}


def made_async(source, chosen):
    """The source with those steps `async def` whose number, in the order of the text, is chosen."""
    numbers = iter(range(source.count("@step")))

    def replaced(match):
        if not chosen(next(numbers)):
            return match[0]
        return f"{match[1]}async {match[2]}\n        await asyncio.sleep(0)\n"

    return re.sub(r"(@step\n +)(def .*:)\n", replaced, source)


def load_kinds(folder):
    """The family of flows with each kind of steps, each in a file of its own in this folder."""
    made = {}
    for kind, chosen in KINDS.items():
        path = folder / f"family_{kind}.py"
        path.write_text(made_async(SOURCE, chosen))
        made[kind] = load_file(path)
    return made


async def outcome(engine, flow):
    """All that can be seen of a run, but for what differs from run to run by its nature."""
    try:
        run, failure = await engine.run(flow), None
    except RunFailedError as error:
        run, failure = error.run, error.failure
    tasks = [
        (
            step.id,
            task.status,
            task.attempt,
            sorted(map(seen, task)),
            [(each.stdout, without_paths(each.stderr)) for each in task.attempts()],
        )
        for step in run
        for task in step
    ]
    told = failure and (failure.step, failure.attempt, failure.type, failure.message)
    return run.status, told, sorted(tasks, key=repr)


def seen(artifact):
    """An artifact; a failure tells of task and file, which is not to be compared."""
    value = artifact.data
    if isinstance(value, Failure):
        return artifact.id, value.step, value.type, value.message
    return artifact.id, artifact.type_name, artifact.size, repr(value)


def without_paths(text):
    """A traceback without what tells of the file that it comes from."""
    return re.sub(r'File ".*?", line \d+', "File", text)
