"""A page that shows the runs of a store in a browser, and the JSON below it.

`asyncflow.page(…)` makes it as an ASGI application, see `asyncflow.page.mounting`. The page "The
page's JSON" of the documentation lists what it answers. What a browser is sent lies in `static`.

The function has the name of this package, so the package itself can be called.
"""

from __future__ import annotations
