"""The source code of a run, as it was kept when the run started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from asyncflow.errors import ArtifactCorruptError, RecordError
from asyncflow.flow.code_files import Code

if TYPE_CHECKING:
    import os
    import tarfile
    from collections.abc import Mapping

    from asyncflow.client.run_files import RunRecord


class RunCode:
    """The source files of a run's flow: its own, and those of its folder that it imports.

    Nothing here runs any of it.
    """

    __slots__ = ("_code", "_pathspec")

    def __init__(self, pathspec: str, code: Code) -> None:
        self._pathspec, self._code = pathspec, code

    @property
    def script_name(self) -> str:
        """The name of the flow's file, relative to its folder."""
        return self._code.script

    @property
    def flowspec(self) -> str:
        """The text of the flow's file; empty if it was left out."""
        return self.files.get(self._code.script, "")

    @property
    def files(self) -> Mapping[str, str]:
        """The text of each file, by its name relative to the folder of the flow's file."""
        return {name: data.decode(errors="replace") for name, data in self._code.files.items()}

    @property
    def left_out(self) -> tuple[str, ...]:
        """The names of files that were too large to be kept, or could not be read."""
        return self._code.left_out

    @property
    def tarball(self) -> tarfile.TarFile:
        """The files as an open tar archive in memory."""
        import io
        import tarfile

        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, data in self._code.files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        buffer.seek(0)
        return tarfile.open(fileobj=buffer)

    def extract(self, folder: str | os.PathLike[str]) -> Path:
        """Write the files below a folder, which is made, and return it.

        Raises:
            FileExistsError: One of them is there already; nothing is written.
        """
        root = Path(folder)
        places = {root / name: data for name, data in self._code.files.items()}
        taken = next((str(place) for place in places if place.exists()), None)
        if taken is not None:
            raise FileExistsError(taken)
        for place, data in places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as file:
                file.write(data)
        return root

    def __repr__(self) -> str:
        return f"<RunCode of {self._pathspec}: {self.script_name} and {len(self.files) - 1} more>"


def code_of(record: RunRecord) -> RunCode | None:
    """The source code of a run; None if none was kept.

    Raises:
        ArtifactError: It is damaged, or is gone.
    """
    ref = record.code_ref()
    if ref is None:
        return None
    name = f"the code of {record.pathspec}"
    data = record.place.artifacts.load_bytes(ref, name)
    try:
        return RunCode(record.pathspec, Code.unpack(bytes(data)))
    except RecordError as error:
        message = f"{name} cannot be read: {error}"
        raise ArtifactCorruptError(message) from error
