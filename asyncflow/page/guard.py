"""Who may ask: which names the page is reached by, which pages may use it, and who has the token.

A browser sends what any page tells it to. `Origin` says which page that was; a page whose own name
was made to lead to this machine (DNS rebinding) shows in `Host`. A cookie that is `SameSite=Strict`
comes with requests of the page itself alone. Actions need a header besides, which a form cannot
send. The answers tell the browser what it may load and run: nothing that is not the page's own.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import socket
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse

from asyncflow.page.answers import AskedWrongly, error_answer
from asyncflow.page.requests import check_length

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES: Final = frozenset({"127.0.0.1", "localhost", "::1"})
ACTION_HEADER: Final = "x-asyncflow-token"
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
_PORT: Final = re.compile(r":[0-9]{1,5}$")

POLICY: Final = (
    "default-src 'none'; script-src 'self'{scripts}; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; frame-src 'self'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'self'"
)
"""What the page may load: its own files, and pictures that stand in it."""


class Token:
    """The secret that lets a browser in, and what is derived from it."""

    def __init__(self, text: str | None) -> None:
        """Take a secret text; with None everybody who reaches the page may use it."""
        self._text = text
        key = (text or secrets.token_urlsafe(32)).encode()
        self.cookie = _derived(key, b"cookie")
        """What the cookie holds: not the token itself."""
        self.action = _derived(key, b"action")
        """What the header of an action holds."""

    @property
    def is_needed(self) -> bool:
        """Whether a request must show it."""
        return self._text is not None

    def is_it(self, given: str) -> bool:
        """Whether this is the token; takes as long for a wrong one."""
        return self._text is not None and _same(given, self._text)


def _derived(key: bytes, purpose: bytes) -> str:
    return hashlib.blake2b(purpose, key=hashlib.sha256(key).digest(), digest_size=24).hexdigest()


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


class HostNames:
    """The names by which the page may be reached."""

    def __init__(self, names: Iterable[str] = (), *, every_address: bool = False) -> None:
        """Take names beside those of loopback; with `every_address`, any number, too.

        Nobody can have a number lead elsewhere, as they can with a name.
        """
        self._names = LOOPBACK_NAMES | {name.lower().strip("[]") for name in names}
        self._every_address = every_address
        if every_address:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    def has(self, header: str) -> bool:
        """Whether a `Host` header has one of them, with any port."""
        name = _PORT.sub("", header.lower()).strip("[]")
        return name in self._names or (self._every_address and _is_address(name))


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # it is no address at all
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """Lets requests come to the page that are for it, and gives the answers their headers."""

    def __init__(self, app: ASGIApp, *, token: Token, hosts: HostNames, scripts: str = "") -> None:
        """Guard `app`; `scripts` are the hashes of the scripts within its HTML."""
        self._app, self._token, self._hosts = app, token, hosts
        self._policy = POLICY.format(scripts=scripts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        answer = self._refusal(request) or self._letting_in(request)
        app = self._app if answer is None else answer

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add_headers(MutableHeaders(scope=message))
            await send(message)

        await app(scope, receive, send_with_headers)

    def _add_headers(self, headers: MutableHeaders) -> None:
        headers.setdefault("Content-Security-Policy", self._policy)
        headers.setdefault("Cache-Control", "no-store")
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        headers["X-Frame-Options"] = "SAMEORIGIN"

    # --- who is refused ---

    def _refusal(self, request: Request) -> Response | None:
        try:
            check_length(request)
            self._check_names(request)
            if request.method not in _SAFE_METHODS:
                self._check_action(request)
        except AskedWrongly as error:
            return error_answer(error)
        return None

    def _check_names(self, request: Request) -> None:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if not self._hosts.has(host):
            raise AskedWrongly(
                403,
                f"this page is not reached by the name {host!r:.100}",
                "a page that is mounted in an application is told its names: page(…, hosts=[…])",
            )
        if origin is not None and _host_of(origin) != host.lower():
            raise AskedWrongly(403, "a page of somebody else may not use this one")
        if request.headers.get("sec-fetch-site", "none") in {"cross-site", "same-site"} and not (
            request.headers.get("sec-fetch-mode") == "navigate" and request.method == "GET"
        ):
            raise AskedWrongly(403, "a page of somebody else may not use this one")

    def _check_action(self, request: Request) -> None:
        if request.method != "POST":
            raise AskedWrongly(405, f"nothing is done by {request.method}: actions are POST")
        given = request.headers.get(ACTION_HEADER, "")
        if not (_same(given, self._token.action) or self._has_bearer(request)):
            raise AskedWrongly(
                403, "an action needs the header X-Asyncflow-Token", "GET api/info has its value"
            )

    # --- who is let in ---

    def _letting_in(self, request: Request) -> Response | None:
        """The answer for those who are not in: a cookie for the token, else the way to get it."""
        if not self._token.is_needed or self._has_bearer(request):
            return None
        given = request.query_params.get("token")
        if given is not None and request.url.path.endswith("/") and self._token.is_it(given):
            return self._enter(request)
        if _same(request.cookies.get(cookie_name(request), ""), self._token.cookie):
            return None
        where = "open the address that `asyncflow ui` has printed, with its token"
        if "application/json" in request.headers.get("accept", "") or "/api/" in request.url.path:
            return error_answer(AskedWrongly(401, "this page needs its token", where))
        return PlainTextResponse(f"This page needs its token: {where}.\n", 401)

    def _has_bearer(self, request: Request) -> bool:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and self._token.is_it(given.strip())

    def _enter(self, request: Request) -> Response:
        rest = [(key, value) for key, value in request.query_params.multi_items() if key != "token"]
        answer = RedirectResponse(f"./{'?' + urlencode(rest) if rest else ''}", 303)
        root = request.scope.get("root_path", "").rstrip("/")
        answer.set_cookie(
            cookie_name(request),
            self._token.cookie,
            path=f"{root}/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer


def cookie_name(request: Request) -> str:
    """The name of the cookie: browsers keep those of all ports of a machine together."""
    return f"asyncflow_page_{request.url.port or request.url.scheme}"
