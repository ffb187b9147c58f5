"""Flows as Metaflow's tutorials write them run here after changing the import line."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap

import pytest

from asyncflow import Flow

FLOWS = {
    "helloworld": (
        """
        class HelloFlow(FlowSpec):
            \"\"\"
            A flow where Metaflow prints 'Hi'.

            Run this flow to validate that Metaflow is installed correctly.

            \"\"\"

            @step
            def start(self):
                \"\"\"
                This is the 'start' step. All flows must have a step named 'start' that
                is the first step in the flow.

                \"\"\"
                print("HelloFlow is starting.")
                self.next(self.hello)

            @step
            def hello(self):
                print("Metaflow says: Hi!")
                self.next(self.end)

            @step
            def end(self):
                print("HelloFlow is all done.")
        """,
        [],
        "HelloFlow is all done.",
    ),
    "branch": (
        """
        class BranchFlow(FlowSpec):
            @step
            def start(self):
                self.next(self.a, self.b)

            @step
            def a(self):
                self.x = 1
                self.next(self.join)

            @step
            def b(self):
                self.x = 2
                self.next(self.join)

            @step
            def join(self, inputs):
                print('a is %s' % inputs.a.x)
                print('b is %s' % inputs.b.x)
                print('total is %d' % sum(input.x for input in inputs))
                self.next(self.end)

            @step
            def end(self):
                pass
        """,
        [],
        "total is 3",
    ),
    "foreach": (
        """
        class ForeachFlow(FlowSpec):
            @step
            def start(self):
                self.titles = ['Stranger Things', 'House of Cards', 'Narcos']
                self.next(self.a, foreach='titles')

            @step
            def a(self):
                self.title = '%s processed' % self.input
                self.next(self.join)

            @step
            def join(self, inputs):
                self.results = [input.title for input in inputs]
                self.next(self.end)

            @step
            def end(self):
                print('\\n'.join(self.results))
        """,
        [],
        "Narcos processed",
    ),
    "nested": (
        """
        class NestedForeachFlow(FlowSpec):
            @step
            def start(self):
                self.x = 'ABC'
                self.next(self.f1, foreach='x')

            @step
            def f1(self):
                self.y = 'DE'
                self.next(self.f2, foreach='y')

            @step
            def f2(self):
                self.z = ''.join(frame[2] for frame in self.foreach_stack())
                self.next(self.f2_join)

            @step
            def f2_join(self, inputs):
                self.zs = [i.z for i in inputs]
                self.next(self.f1_join)

            @step
            def f1_join(self, inputs):
                self.all = sum((i.zs for i in inputs), [])
                self.next(self.end)

            @step
            def end(self):
                print(' '.join(self.all))
        """,
        [],
        "AD AE BD BE CD CE",
    ),
    "parameters": (
        """
        class ParameterFlow(FlowSpec):
            alpha = Parameter('alpha', help='Learning rate', default=0.01)
            gender = Parameter('gender', type=str, default='male')
            country = Parameter('country', type=JSONType, default='{"code": "US"}')
            names = Parameter('names', separator=',', default='a,b')
            count = Parameter('count', type=int, required=True)
            wanted = Parameter('wanted', type=bool, default=False)

            @step
            def start(self):
                try:
                    self.alpha = 5
                except AttributeError:
                    print('parameters are read-only')
                self.next(self.end)

            @step
            def end(self):
                print(self.alpha, self.gender, self.country['code'], self.names, end=' ')
                print(self.count + 1, self.wanted)
        """,
        ["--alpha", "0.5", "--count", "2", "--wanted", "True", "--country", '{"code": "FI"}'],
        "0.5 male FI ['a', 'b'] 3 True",
    ),
    "merge": (
        """
        class MergeArtifactsFlow(FlowSpec):
            @step
            def start(self):
                self.pass_down = 'a'
                self.next(self.a, self.b)

            @step
            def a(self):
                self.common = 5
                self.x = 1
                self.y = 3
                self.from_a = 6
                self.next(self.join)

            @step
            def b(self):
                self.common = 5
                self.x = 2
                self.y = 4
                self.next(self.join)

            @step
            def join(self, inputs):
                self.x = inputs.a.x
                self.merge_artifacts(inputs, exclude=['y'])
                print('x is %s' % self.x)
                print('pass_down is %s' % self.pass_down)
                print('common is %d' % self.common)
                print('from_a is %d' % self.from_a)
                self.next(self.c)

            @step
            def c(self):
                self.next(self.d, self.e)

            @step
            def d(self):
                self.conflicting = 7
                self.next(self.join2)

            @step
            def e(self):
                self.conflicting = 8
                self.next(self.join2)

            @step
            def join2(self, inputs):
                self.merge_artifacts(inputs, include=['pass_down', 'common'])
                print('only %s and %d' % (self.pass_down, self.common))
                self.next(self.end)

            @step
            def end(self):
                print(hasattr(self, 'from_a'), self.pass_down)
        """,
        [],
        "False a",
    ),
    "retry": (
        """
        class RetryFlow(FlowSpec):
            @retry(times=2, minutes_between_retries=0)
            @step
            def start(self):
                if current.retry_count < 2:
                    raise Exception('Oops')
                print("Retry count is", current.retry_count)
                self.params = [-1, 0, 1]
                self.next(self.sanity_check, foreach='params')

            @catch(var='compute_failed')
            @timeout(hours=1)
            @resources(memory=100, cpu=1)
            @environment(vars={'DIVIDEND': '2'})
            @retry(times=0)
            @step
            def sanity_check(self):
                import os
                self.res = int(os.environ['DIVIDEND']) / self.input
                self.next(self.join)

            @step
            def join(self, inputs):
                for input in inputs:
                    if input.compute_failed:
                        print('Exception happened: %s' % input.compute_failed)
                self.results = [input.res for input in inputs if not input.compute_failed]
                self.next(self.end)

            @card(type='blank')
            @step
            def end(self):
                print(self.results)
        """,
        [],
        "[-2.0, 2.0]",
    ),
    "current": (
        """
        class CurrentFlow(FlowSpec):
            @step
            def start(self):
                print("flow name: %s" % current.flow_name)
                print("run id: %s" % current.run_id)
                print("origin run id: %s" % current.origin_run_id)
                print("step name: %s" % current.step_name)
                print("task id: %s" % current.task_id)
                print("pathspec: %s" % current.pathspec)
                print("namespace: %s" % current.namespace)
                print("username: %s" % current.username)
                print("flow parameters: %s" % str(current.parameter_names))
                self.next(self.end)

            @step
            def end(self):
                print("end has a different step name: %s" % current.step_name)
        """,
        ["--tag", "a", "--quiet"],
        "end has a different step name: end",
    ),
    "include": (
        """
        class PlayListFlow(FlowSpec):
            movie_data = IncludeFile('movie_data',
                                     help='The path to a movie metadata file.',
                                     default='movies.csv')
            raw = IncludeFile('raw', is_text=False, default='movies.csv')
            more = IncludeFile('more')

            @step
            def start(self):
                self.titles = [line.split(',')[0] for line in self.movie_data.splitlines()]
                self.next(self.end)

            @step
            def end(self):
                print(self.titles, self.raw[:5], self.more)
        """,
        ["--more", "notes.txt"],
        "['title', 'Café'] b'title' nothing else",
    ),
}

HEAD = """
from asyncflow import (
    FlowSpec, step, Parameter, JSONType, IncludeFile, current,
    retry, catch, timeout, resources, environment, card,
)

"""
TAIL = """

if __name__ == '__main__':
    {name}()
"""


@pytest.mark.parametrize("name", FLOWS)
def test_a_tutorials_flow_runs_after_changing_its_import(name, tmp_path, store):
    """It runs to its end and prints what it prints there."""
    code, arguments, said = FLOWS[name]
    code = textwrap.dedent(code)
    flow = code.split("(FlowSpec)", maxsplit=1)[0].split()[-1]
    (tmp_path / "flow.py").write_text(HEAD + code + TAIL.format(name=flow))
    (tmp_path / "movies.csv").write_text("title,year\nCafé,2001\n", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("nothing else")
    command = [sys.executable, "flow.py", "run", "--max-workers", "2", *arguments]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = Flow(flow).latest_successful_run
    assert said in "".join(task.stdout for step in run for task in step)


# --- command lines ------------------------------------------------------------------------------

LINES_FLOW = """
from asyncflow import FlowSpec, Parameter, current, retry, step

class Lines(FlowSpec):
    alpha = Parameter("alpha", default=1)
    namespace = Parameter("namespace", default="its own")

    @step
    def start(self):
        self.x = self.alpha * 2
        self.next(self.flaky)

    @step
    def flaky(self):
        if current.retry_count < self.alpha - 1:
            raise ValueError("not yet")
        self.next(self.own)

    @retry(times=0)
    @step
    def own(self):
        self.next(self.end)

    @step
    def end(self):
        print("x is", self.x, "in", self.namespace)

if __name__ == "__main__":
    Lines()
"""


@pytest.fixture
def lines(tmp_path, store, monkeypatch):
    """Gives the flow's file a command line; the process when it has ended."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flow.py").write_text(LINES_FLOW)

    def carry_out(line):
        run_id = (tmp_path / "id").read_text() if "RUN" in line else ""
        command = [sys.executable, "flow.py", *line.replace("RUN", run_id).split()]
        return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)

    assert carry_out("run --quiet --run-id-file id").returncode == 0
    return carry_out


@pytest.mark.parametrize(
    "line",
    [
        "--no-pylint --metadata=local --event-logger nullSidecarLogger --monitor=x run",
        "--environment=local --datastore local --datastore-root here run",
        "run --max-num-splits 100 --max-log-size 100",
        "dump RUN/start --include x --private",
        "logs RUN/end --both --timestamps",
        "resume --clone-only --origin-run-id RUN",
        "output-dot",
        "help",
        "version",
    ],
)
def test_metaflows_command_lines_are_carried_out(lines, line):
    """Also those with options that can have no effect here."""
    done = lines(line)
    assert (done.returncode, done.stderr) == (0, "")


def test_quiet_may_stand_before_the_command(lines):
    """As Metaflow has it."""
    assert lines("--quiet run").stdout == ""


@pytest.mark.parametrize("line", ["--with retry:times=2 run", "run --with retry:times=2"])
def test_with_puts_a_decorator_on_every_step_that_has_none_of_the_kind(lines, line):
    """Before the command and behind it; a step's own stays."""
    assert lines(f"{line} --alpha 3").returncode == 0
    run = Flow("Lines").latest_run
    assert run is not None
    assert [each.number for each in run["flaky"].task.attempts()] == [0, 1, 2]
    times = {step.name: step.options["retry"]["times"] for step in run.graph}
    assert times == {"start": 2, "flaky": 2, "own": 0, "end": 2}


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (
            "slurm",
            "--with slurm: there is no decorator 'slurm' of steps; it takes retry, catch, .*",
        ),
        ("retry:often=2", "--with retry:often=2: .*unexpected keyword argument 'often'"),
        ("retry:2", "--with retry:2 is not of the form NAME:ARGUMENT=VALUE"),
        ("retry:times=many", "@retry takes a whole number as `times`"),
    ],
)
def test_with_says_what_it_cannot_put_on_a_step(lines, wanted, said):
    """One line, and exit status 2."""
    done = lines(f"run --with {wanted}")
    assert done.returncode == 2
    assert re.match(f"Error: (.*: )?{said}", done.stderr)
    assert done.stderr.count("\n") == 1


def test_a_parameter_comes_before_an_option_that_only_metaflows_users_know(lines):
    """`--namespace` is the flow's own here."""
    assert "x is 2 in user:me" in lines("run --namespace user:me").stdout


def test_clone_only_runs_nothing(lines):
    """Where tasks would have to be run, it says which, and makes no run."""
    assert lines("run --alpha 2").returncode == 1
    done = lines("resume --clone-only")
    assert done.returncode == 2
    assert "here tasks of flaky, own, end are to be run: leave it out" in done.stderr
    assert len(list(Flow("Lines"))) == 2
