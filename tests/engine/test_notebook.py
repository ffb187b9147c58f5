"""Flows in the cells of a notebook, in a real kernel of Jupyter."""

from __future__ import annotations

import base64
import re

import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

FLOW = """
import asyncflow
from asyncflow import FlowSpec, Parameter, step

class Cells(FlowSpec):
    by = Parameter("by", default=1)

    @step
    def start(self):
        print("<hello>")
        self.names = ["a", "b"]
        self.next(self.each, foreach="names")

    @step
    async def each(self):
        self.share = shared_by(self.by)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        if self.by:
            import matplotlib.pyplot as plt
            import pandas as pd

            self.figure, axes = plt.subplots(figsize=(1, 1))
            axes.plot([1, 2])
            self.frame = pd.DataFrame({"column": [11, 22]})
            self.text = "<text>"
"""


@pytest.fixture(scope="module")
async def kernel(tmp_path_factory):
    """A kernel that has the flow, in a folder of its own; carries out a cell."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = new_notebook()
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=120, shutdown_kernel="immediate"
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "IPYTHONDIR"):  # there may be no home that can be written to
            patch.setenv(name, str(folder))
        async with client.async_setup_kernel(cwd=str(folder)):

            async def carry_out(source):
                notebook.cells.append(new_code_cell(source))
                return await client.async_execute_cell(notebook.cells[-1], len(notebook.cells) - 1)

            await carry_out("def shared_by(number):\n    return 10 / number")
            await carry_out(FLOW)
            yield carry_out


@pytest.fixture(scope="module")
async def ran(kernel):
    """The cell in which the flow was run; the kernel has the run as `run`."""
    return await kernel("run = await asyncflow.run(Cells, by=2, tags=['<nightly>'])")


def html_of(cell):
    """What a cell shows as HTML."""
    outputs = [output for output in cell.outputs if output.output_type != "stream"]
    return "\n".join(output.data["text/html"] for output in outputs)


def columns_of(html):
    """The names of a table's columns."""
    return re.findall(r"<th[^>]*>([^<]*)</th>", html)


async def test_a_run_in_a_cell_shows_bars_and_what_its_tasks_print(ran):
    """One table, drawn again and again, and below it the lines; then the run is there."""
    bars, *lines = ran.outputs
    assert bars.output_type == "display_data"
    html = bars.data["text/html"]
    assert "succeeded" in html
    assert re.search(r"<code>each</code>.*?2/2", html)
    assert "".join(line.text for line in lines) == "[start/1] <hello>\n"
    assert "succeeded" in bars.data["text/plain"]


async def test_tables_have_heads_dates_and_tags(kernel, ran):
    """Of a flow its runs, of a run its steps, of a step its tasks, of a task its artifacts."""
    flow = html_of(await kernel("asyncflow.Flow('Cells')"))
    assert columns_of(flow) == ["run", "status", "started", "took", "tags"]
    assert "&lt;nightly&gt;" in flow
    assert re.search(r"<td[^>]*>20\d\d-\d\d-\d\d \d\d:\d\d:\d\d</td>", flow)
    assert columns_of(html_of(await kernel("run"))) == ["step", "tasks", "began"]
    tasks = html_of(await kernel("run['each']"))
    assert columns_of(tasks) == ["task", "item", "status", "began", "took"]
    assert "<td style='text-align: left'>&#x27;a&#x27;</td>" in tasks
    artifacts = html_of(await kernel("run['end'].task"))
    assert columns_of(artifacts) == ["artifact", "type", "size"]
    assert "pandas.DataFrame" in artifacts


async def test_figures_and_frames_are_shown_as_such(kernel, ran):
    """An artifact that is asked for is an image, a table or its repr; no figure comes twice."""
    cell = await kernel("run['end'].task['figure']")
    assert len(cell.outputs) == 1
    (image,) = re.findall(r"data:image/png;base64,([^']+)'", html_of(cell))
    assert base64.b64decode(image).startswith(b"\x89PNG")
    frame = html_of(await kernel("run['end'].task['frame']"))
    assert 'class="dataframe"' in frame
    assert "<td>22</td>" in frame
    assert "<pre>&#x27;&lt;text&gt;&#x27;</pre>" in html_of(await kernel("run['end'].task['text']"))


async def test_a_failure_shows_the_lines_of_the_cells(kernel):
    """Of the step, and of the function in another cell, as IPython names them; a resume goes on."""
    with pytest.raises(CellExecutionError) as failed:
        await kernel("await asyncflow.run(Cells, by=0)")
    told = failed.value.traceback
    plain = re.sub(r"\x1b\[[0-9;]*m", "", told)
    assert "self.share = shared_by(self.by)" in plain
    assert "return 10 / number" in plain
    assert "ZeroDivisionError" in plain
    assert re.search(r"^ *Cell In\[2\], line 15, in each$", plain, re.MULTILINE)
    assert re.search(r"^ *Cell In\[1\], line 2, in shared_by$", plain, re.MULTILINE)
    assert "run_handle.py" not in plain
    (command,) = re.findall(r"To go on from here: (await asyncflow\.resume\(.*\))", plain)
    await kernel("def shared_by(number):\n    return 0.5")
    await kernel(FLOW)
    await kernel(f"resumed = {command}")
    cell = await kernel("resumed.data.by, resumed['start'].task.origin_pathspec is not None")
    assert cell.outputs[0].data["text/plain"] == "(0, True)"


async def test_a_mistake_in_a_cell_is_named_by_the_cell(kernel):
    """Before a run, where the graph is read."""
    with pytest.raises(CellExecutionError) as failed:
        await kernel(
            "class Wrong(FlowSpec):\n"
            "    @step\n    def start(self):\n        self.next(self.nope)\n"
            "number = len(In) - 1\n"
            "await asyncflow.run(Wrong)"
        )
    plain = re.sub(r"\x1b\[[0-9;]*m", "", failed.value.traceback)
    cell = await kernel("number")
    assert f"Cell In[{cell.outputs[0].data['text/plain']}]:" in plain
    assert "ipykernel" not in plain.splitlines()[-1]
