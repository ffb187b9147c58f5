"""A page that shows the runs of a store in a browser, and the JSON below it.

`asyncflow.page(…)` makes it as an ASGI application, see `asyncflow.page.mounting`. The page "The
page's JSON" of the documentation lists what it answers. What a browser is sent lies in `static`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """This package, called as the function of its name.

    Importing a module of a package binds the package's name in `asyncflow`, so `asyncflow.page` is
    this package or the function, whichever came last. As the package can be called, both work.
    """

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        from asyncflow.page.mounting import page

        return page(*arguments, **named)


sys.modules[__name__].__class__ = _CallablePackage
