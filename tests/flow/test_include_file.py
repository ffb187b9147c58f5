"""`IncludeFile`: a parameter given as a path, whose value is what the file holds."""

from __future__ import annotations

import pytest

import asyncflow
from asyncflow import FlowSpec, IncludeFile, step
from asyncflow.errors import ParameterError
from asyncflow.flow.parameter_values import resolve_parameters
from asyncflow.flow.parameters import parameters_of


class Including(FlowSpec):
    """Starts with some files."""

    text = IncludeFile("text", help="what to read", default="there.txt")
    data = IncludeFile("data", is_text=False)
    latin = IncludeFile("latin", encoding="latin-1")

    @step
    def start(self):
        self.length: int = len(self.text)
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a file in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.txt").write_text("Grüße\n", encoding="utf-8")
    return tmp_path


def test_a_file_is_text_bytes_or_nothing(folder):
    """As was asked for, from a path or from text."""
    values = resolve_parameters(Including, {"data": folder / "there.txt"}, {})
    assert values == {"text": "Grüße\n", "data": "Grüße\n".encode(), "latin": None}
    environ = {"ASYNCFLOW_RUN_LATIN": "there.txt"}
    assert resolve_parameters(Including, {}, environ)["latin"] == "Grüße\n".encode().decode(
        "latin-1"
    )


def test_a_file_is_read_when_a_run_starts_and_not_before(tmp_path, monkeypatch):
    """Whether the default is there is of no concern until then."""
    monkeypatch.chdir(tmp_path)
    assert parameters_of(Including)["text"].type_name == "path"
    with pytest.raises(ParameterError, match=r"'text': cannot read there.txt: No such file"):
        resolve_parameters(Including, {}, {})


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"text": "nowhere"}, "the file of parameter 'text': cannot read nowhere: No such file"),
        ({"text": "."}, "cannot read .: Is a directory"),
        ({"text": "bytes"}, "bytes is not text in utf-8: give another encoding, or is_text=False"),
        ({"text": 5}, "parameter 'text' takes a path, not 5"),
        ({"text": "a\0b"}, "cannot be the name of a file"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(folder, given, complaint):
    """With the parameter, the file and the reason."""
    (folder / "bytes").write_bytes(b"\xff")
    with pytest.raises(ParameterError) as caught:
        resolve_parameters(Including, given, {})
    assert complaint in str(caught.value)


async def test_a_run_keeps_what_the_file_held(folder, store):
    """It is an artifact; the file may change or go."""
    run = await asyncflow.run(Including, text="there.txt")
    (folder / "there.txt").unlink()
    assert (run.data.text, run.data.length) == ("Grüße\n", 6)
