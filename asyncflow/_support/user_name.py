"""Who runs the program."""

from __future__ import annotations

import os
from typing import Final

# As in `getpass`, which is slow to import.
_VARIABLES: Final = ("LOGNAME", "USER", "LNAME", "USERNAME")


def user_name() -> str:
    """The name of the user: from the environment, else the system's name for the user id."""
    for name in _VARIABLES:
        if os.environ.get(name):
            return os.environ[name]
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container whose user has no entry
        return str(os.getuid())
