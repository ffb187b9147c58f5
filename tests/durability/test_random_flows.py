"""Random flows mean on the engine what a serial interpreter says that they mean."""

from __future__ import annotations

import pytest

from tests.durability.chaos.programs import Branch, Each, Program, Step, source
from tests.durability.chaos.random_flows import check_examples
from tests.durability.chaos.reference import Reference


def test_random_flows_give_the_artifacts_and_statuses_of_the_reference():
    """Branches, nested foreachs, retries, catches, failures, and the resume of what has failed."""
    assert check_examples(40, derandomize=True) > 150


@pytest.mark.slow
def test_many_random_flows_give_the_artifacts_and_statuses_of_the_reference():
    """The same with others each time."""
    assert check_examples(200, derandomize=False) > 1000


def test_the_reference_is_right_about_a_flow_that_was_worked_out_by_hand():
    """Two items, of which the odd one fails once, is retried, fails again and is caught."""
    work = Step(name="work", failing=2, parity=1, retries=1, catches=True)
    each = Each(Step(name="split"), 2, (work,), Step(name="join"))
    reference = Reference(Program(Step(name="start"), (each,), Step(name="end"))).run()
    assert {key: task.attempts for key, task in reference.tasks.items()} == {
        ("start", ()): 1,
        ("split", ()): 1,
        ("work", (0,)): 1,
        ("work", (1,)): 2,
        ("join", ()): 1,
        ("end", ()): 1,
    }
    work_0 = ["start", "split", "work"]
    last = reference.tasks["end", ()].artifacts or {}
    assert last["trail"] == [work_0, ["start", "split"], "join", "end"]


def test_a_failure_keeps_the_reference_from_the_join_and_not_from_the_other_branch():
    """What an engine may have got to is in it."""
    branch = Branch(
        Step(name="split"), ((Step(name="a", failing=1),), (Step(name="b"),)), Step(name="join")
    )
    program = Program(Step(name="start"), (branch,), Step(name="end"))
    reference = Reference(program).run()
    assert reference.failed == {"a"}
    assert {step for step, _ in reference.tasks} == {"start", "split", "a", "b"}
    assert Reference(program.mended()).run().failed == set()
    assert "self.next(self.a, self.b)" in source(program)
