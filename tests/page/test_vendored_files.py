"""What the page has from others: exactly the files that npm has, with their licences."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest

STATIC = Path(__file__).parents[2] / "asyncflow/page/static"
VENDOR = STATIC / "vendor"


class Vendored(NamedTuple):
    """A line of `vendor.lock`."""

    sha256: str
    file: str
    package: str
    member: str
    licence: str


def locked():
    """The lines of `vendor.lock`."""
    lines = (VENDOR / "vendor.lock").read_text().splitlines()
    return [Vendored(*line.split()) for line in lines if not line.startswith("#")]


def test_every_vendored_file_is_in_the_lock_with_its_hash():
    """No file beside them, and each as it was taken."""
    kept = {path.name for path in VENDOR.iterdir()} - {"vendor.lock"}
    assert {each.file for each in locked()} == kept
    for each in locked():
        assert hashlib.sha256((VENDOR / each.file).read_bytes()).hexdigest() == each.sha256
        assert each.licence in {"MIT", "Apache-2.0", "BSD-3-Clause"}


@pytest.mark.slow  # asks npm's registry for each package
@pytest.mark.parametrize("package", sorted({each.package for each in locked()}))
def test_a_vendored_package_is_npms(package, tmp_path):
    """Each file is byte for byte the one in the package, and its licence is there, too."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm here to compare with")
    command = [npm, "pack", "--silent", package]
    packed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if packed.returncode:
        pytest.skip(f"npm gives no {package} here: {packed.stderr.strip()[-200:]}")
    ours = [each for each in locked() if each.package == package]
    assert any(each.member == "LICENSE" for each in ours)
    with tarfile.open(tmp_path / packed.stdout.split()[-1]) as archive:
        for each in ours:
            theirs = archive.extractfile(f"package/{each.member}").read()
            assert (VENDOR / each.file).read_bytes() == theirs, each.file


def test_every_module_is_valid_javascript():
    """Node reads each of them."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here to check JavaScript with")
    for module in sorted(STATIC.rglob("*.js")):
        # With this option Node takes it as a module, and refuses what only scripts may say.
        command = [node, "--input-type=module", "--check"]
        text = module.read_bytes()
        checked = subprocess.run(command, input=text, capture_output=True, check=False)
        assert checked.returncode == 0, f"{module.name}: {checked.stderr.decode()}"
