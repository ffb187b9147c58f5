from __future__ import annotations

import functools
import pickle
from dataclasses import replace

import msgpack
import pytest

from asyncflow import (
    card,
    catch,
    concurrency,
    environment,
    isolate,
    limit,
    resources,
    retry,
    step,
    timeout,
)
from asyncflow.errors import FlowError
from asyncflow.flow.step_options import is_step, options_of


def decorated(*decorators):
    """What the decorators, outermost first, say of a method."""

    def method(self):
        """The user's."""

    function = method
    for decorator in reversed(decorators):
        function = decorator(function)
    assert function is method
    return options_of(method)


def test_step_marks_a_method_and_leaves_it_as_it_is():
    """With parentheses and without."""
    assert decorated(step).is_step
    assert decorated(step()).is_step
    assert not decorated(retry).is_step
    assert not is_step(print)
    assert options_of(print) is None


def test_the_order_of_decorators_does_not_matter():
    """Each notes what it was told, above and below `@step`."""
    one = decorated(step, retry(times=1), timeout(seconds=5))
    other = decorated(timeout(seconds=5), retry(times=1), step)
    assert one == other


def test_a_plain_retry_does_not_wait():
    """Three times, at once, as Metaflow's local runs do."""
    expected: dict[str, object] = {
        "times": 3,
        "seconds": 0.0,
        "backoff": 1.0,
        "max_seconds": None,
        "jitter": 0.0,
        "on": [],
    }
    assert decorated(retry).options["retry"] == expected
    assert decorated(retry()).options["retry"] == expected


def test_a_wait_that_is_written_out_is_kept():
    """Metaflow's minutes."""
    assert decorated(retry(minutes_between_retries=2)).options["retry"]["seconds"] == 120.0


def test_retry_in_seconds():
    """They win over the minutes, and may grow up to a limit."""
    options = decorated(retry(seconds=1, backoff=2, max_seconds=30, jitter=0.5)).options["retry"]
    assert (options["seconds"], options["backoff"]) == (1.0, 2.0)
    assert (options["max_seconds"], options["jitter"]) == (30.0, 0.5)


def test_retry_on_some_exceptions():
    """The graph has their names, the method the classes."""
    options = decorated(retry(on=(OSError, FlowError)))
    assert options.options["retry"]["on"] == ["builtins.OSError", "asyncflow.errors.FlowError"]
    assert options.retry_on == (OSError, FlowError)
    assert decorated(retry(on=KeyError)).retry_on == (KeyError,)


def test_catch():
    """It names an artifact, or none."""
    assert decorated(catch(var="error")).options["catch"] == {
        "var": "error",
        "print_exception": True,
    }
    assert decorated(catch).options["catch"]["var"] is None


def test_timeout_adds_up():
    """Hours, minutes and seconds."""
    options = decorated(timeout(seconds=1, minutes=1, hours=1)).options
    assert options == {"timeout": {"seconds": 3661.0}}


def test_what_needs_no_more_than_a_word():
    """`isolate` and `concurrency`."""
    assert decorated(isolate, concurrency(4)).options == {"isolate": True, "concurrency": 4}
    assert decorated(isolate()).options == {"isolate": True}


def test_environment():
    """A value is set as its text, as Metaflow does; what is told of a step has the names alone."""
    given = {"A": "1", "N": 3, "F": 0.5, "X": None}
    options = decorated(environment(vars=given))
    assert options.variables == {"A": "1", "N": "3", "F": "0.5", "X": "None"}
    assert options.options == {"environment": ["A", "N", "F", "X"]}
    assert pickle.loads(pickle.dumps(options)) == replace(options, variables={})


def test_what_means_nothing_here_is_recorded():
    """So that Metaflow's flows run; what msgpack cannot say is kept as text."""
    options = decorated(
        resources(cpu=2, memory=4096), card(type="html", options={"x": (1, {3})}), card
    ).options
    assert options["resources"] == {"cpu": 2, "memory": 4096}
    assert options["card"] == [{}, {"type": "html", "options": {"x": [1, "{3}"]}}]
    assert msgpack.unpackb(msgpack.packb(options)) == options


def test_options_pass_through_wrappers():
    """A decorator of the user that uses `functools.wraps` hides none of them."""

    def quiet(function):
        @functools.wraps(function)
        def wrapper(*args):
            return function(*args)

        return wrapper

    @quiet
    @step
    @retry(times=2)
    def method(self):
        pass

    assert is_step(method)
    noted = options_of(method)
    assert noted is not None
    assert noted.options["retry"]["times"] == 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: retry(times=-1), "@retry takes a whole number as `times`, 0 or more, not -1"),
        (lambda: retry(times=True), "@retry takes a whole number as `times`"),
        (lambda: retry(seconds=-1), "@retry takes a number as `seconds`, zero or more"),
        (lambda: retry(seconds=float("nan")), "@retry takes a number as `seconds`"),
        (
            lambda: retry(seconds=1, jitter=2),
            "@retry takes a number as `jitter`, from 0 to 1, not 2",
        ),
        (lambda: retry(backoff=2), r"@retry has `backoff` .*, as in @retry\(seconds=1, backoff=2"),
        (
            lambda: retry(jitter=0.5),
            "@retry has `backoff` or `jitter`, but no wait for them to change",
        ),
        (lambda: retry(on=["OSError"]), "@retry takes exception classes as `on`, not 'OSError'"),  # type: ignore[list-item]  # the mistake that is examined
        (lambda: retry(on="OSError"), "@retry takes exception classes as `on`, not 'OSError'$"),  # type: ignore[arg-type]  # the mistake that is examined
        (lambda: retry(on=()), "@retry takes at least one exception class as `on`; leave it out"),
        (lambda: retry(on=[]), "@retry takes at least one exception class as `on`; leave it out"),
        (
            lambda: retry(seconds=5, minutes_between_retries=2),
            "@retry takes `minutes_between_retries` or `seconds`, not both",
        ),
        (lambda: timeout(5), r"@timeout takes its time by name, .*\(minutes=5\), not 5$"),
        (lambda: retry(on=5), "@retry takes exception classes as `on`, not 5"),  # type: ignore[call-overload]  # the mistake that is examined
        (lambda: decorated(limit), r'@limit takes a name .*, as in @limit\("api", 5\)$'),
        (lambda: retry(3), "@retry takes its arguments by name, not 3"),  # type: ignore[call-overload]  # the mistake that is examined
        (lambda: catch(var="a b"), "@catch takes the name of an artifact as `var`, not 'a b'"),
        (timeout, "@timeout takes a time above zero"),
        (lambda: decorated(timeout), "@timeout takes a time above zero"),
        (lambda: timeout(minutes="5"), "@timeout takes a number as `minutes`"),  # type: ignore[arg-type]  # the mistake that is examined
        (lambda: concurrency(0), "@concurrency takes a whole number as `n`, 1 or more, not 0"),
        (lambda: decorated(concurrency), "@concurrency takes a number, as in"),
        (lambda: decorated(environment), "@environment takes variables, as in"),
        (lambda: environment(vars="A=1"), "@environment takes variables, as in"),  # type: ignore[arg-type]  # the mistake that is examined
        (lambda: environment(vars={1: "a"}), "@environment: 1 cannot be the name"),  # type: ignore[dict-item]  # the mistake that is examined
        (lambda: environment(vars={"A=B": "a"}), "@environment: 'A=B' cannot be the name"),
        (lambda: environment(vars={"A": "a\0b"}), "without a NUL, which the value of A is not"),
        (lambda: environment(vars={"A": b"a"}), "without a NUL, which the value of A is not"),
        (lambda: environment(vars={"A": "\udce9"}), "without a NUL, which the value of A is not"),
        (lambda: retry(int), "@retry decorates a method of a flow, not <class 'int'>"),
        (lambda: step(3), "@step decorates a method of a flow, not 3"),  # type: ignore[call-overload]  # the mistake that is examined
        (lambda: step(print), "@step decorates a method written with `def`, not <built-in"),
        (lambda: decorated(retry, retry), r"@retry is used twice on .*method: remove one of them"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(make, words):
    """When the class is being made, at the line of the decorator, which the error names."""
    with pytest.raises(FlowError, match=words) as caught:
        make()
    assert caught.value.file == __file__
    assert str(caught.value).startswith(f"{__file__}:{caught.value.line}: @")


def test_the_line_of_a_wrong_decorator_is_named():
    """As the user's file has it, however deep in the library the mistake is found."""
    with pytest.raises(FlowError) as caught:
        exec(compile("\n\nconcurrency(0)\n", "my_flow.py", "exec"), {"concurrency": concurrency})  # noqa: S102 - as an import does
    assert str(caught.value).startswith("my_flow.py:3: @concurrency takes a whole number")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("asyncflow.flow.decorators", "StepOptions"),
        ("asyncflow.flow.decorators", "OwnDecorator"),
        ("asyncflow.flow.decorators", "DelayedCall"),
        ("asyncflow.flow.decorators", "retry"),
        ("asyncflow.flow.parameters", "Parameter"),
        ("asyncflow.flow.parameters", "JSONType"),
    ],
)
def test_a_stored_class_finds_what_it_names_where_earlier_versions_had_it(module, name):
    """A flow class that was stored with a value is read by the names that were written then."""
    found = pickle.loads(f"c{module}\n{name}\n.".encode())
    assert found.__name__ == name
