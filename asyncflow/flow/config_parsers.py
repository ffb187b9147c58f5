"""Parsers for `Config(parser=…)`: YAML, and files that list packages.

The last three make what `@pypi` and `@conda` take: `{"packages": {name: version}, "python": …}`.
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any, Final, cast

from asyncflow.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "conda_environment_yml_parser",
    "pyproject_toml_parser",
    "requirements_txt_parser",
    "yaml_parser",
]

_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9][\w.-]*(?:\[[\w\s,.-]*\])?)\s*(.*)")


def yaml_parser(text: str) -> Any:
    """The value of a YAML text; PyYAML must be installed.

    Raises:
        ParameterError: PyYAML is not installed.
    """
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        raise ParameterError("reading YAML needs PyYAML: pip install pyyaml") from None
    return yaml.safe_load(text)


def requirements_txt_parser(text: str) -> dict[str, Any]:
    """The packages of a `requirements.txt`.

    Raises:
        ValueError: A line has an option, an address or a marker, which cannot be kept.
    """
    packages: dict[str, str] = {}
    for line in text.splitlines():
        bare = line.partition("#")[0].strip()
        if bare:
            name, version = _requirement(bare)
            packages[name] = version
    return {"packages": packages}


def pyproject_toml_parser(text: str) -> dict[str, Any]:
    """The packages of `[project]` in a `pyproject.toml`, and its `requires-python`.

    Raises:
        ValueError: It is no TOML, or a dependency cannot be kept.
    """
    import tomllib

    project = tomllib.loads(text).get("project", {})
    packages = dict(_requirement(each) for each in project.get("dependencies", ()))
    found: dict[str, Any] = {"packages": packages}
    if "requires-python" in project:
        found["python"] = project["requires-python"]
    return found


def conda_environment_yml_parser(text: str) -> dict[str, Any]:
    """The packages of a Conda `environment.yml`, and its version of Python; needs PyYAML.

    Raises:
        ParameterError: PyYAML is not installed.
        ValueError: A dependency cannot be kept.
    """
    data = yaml_parser(text)
    found: dict[str, Any] = {"packages": {}}
    for each in (data or {}).get("dependencies", ()):
        if not isinstance(each, str):
            raise ValueError(f"{each!r} is no package of Conda")  # noqa: TRY004 - of the file
        name, version = _requirement(each.replace("=", "==", 1) if _has_one_equals(each) else each)
        if name == "python":
            found["python"] = version
        else:
            found["packages"][name] = version
    return found


def _has_one_equals(text: str) -> bool:
    return re.search(r"(?<![=<>!~])=(?!=)", text) is not None


def _requirement(text: str) -> tuple[str, str]:
    """The name and the version in `name==1.2` or `name>=1`; an exact version is that alone."""
    found = _REQUIREMENT.fullmatch(text.strip())
    if found is None or ";" in text or "@" in text:
        raise ValueError(f"{text!r} is no name of a package with a version")
    name, version = found[1], found[2].replace(" ", "")
    if version and version[0] not in "=<>!~":
        raise ValueError(f"{text!r} is no name of a package with a version")
    return name, version.removeprefix("==") if "," not in version else version


def named_function(function: Any) -> Callable[[str], Any]:
    """A parser: a function, or the one that a text such as `json.loads` names.

    Raises:
        ParameterError: There is no such function.
    """
    if callable(function):
        return cast("Callable[[str], Any]", function)
    why = "it is not of the form MODULE.NAME"
    if isinstance(function, str) and "." in function:
        module, _, name = function.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            why = str(error)
        else:
            return cast("Callable[[str], Any]", found)
    raise ParameterError(f"the parser {function!r} cannot be found: {why}")
