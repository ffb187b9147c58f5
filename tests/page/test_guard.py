"""Who may use the page, and what its answers let a browser do."""

from __future__ import annotations

import re

import httpx
import pytest

from asyncflow.errors import SettingsError
from asyncflow.page.guard import HostNames
from asyncflow.page.serving import PageAddress, _token
from tests.support.page_stores import RUNS, acting, asking, begin

TOKEN = "a token of more than sixteen characters"  # noqa: S105 - of these tests alone
RUN = f"/api/runs/Made/{RUNS['succeeded']}"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with one run."""
    folder = tmp_path_factory.mktemp("guard") / "store"
    begin(folder, "succeeded").finish()
    return folder


@pytest.fixture(scope="module")
def client(store):
    """Of a page without a token."""
    with asking(store) as client:
        yield client


@pytest.fixture(scope="module")
def locked(store):
    """The address of a page with a token."""
    with asking(store, token=TOKEN) as client:
        yield client.base_url


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil"])
def test_another_name_is_refused(client, host):
    """A name that was made to lead to this machine shows in `Host`."""
    answer = client.get("/api/runs", headers={"Host": host})
    assert answer.status_code == 403
    assert "runs" not in answer.json()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8265", "[::1]:8265", "LOCALHOST:1"])
def test_loopback_names_reach_the_page(client, host):
    """With any port."""
    assert client.get("/api/runs", headers={"Host": host}).status_code == 200


def test_further_names_are_those_that_it_was_told(store):
    """As of an application that has a name of its own."""
    with asking(store, hosts=["flows.example.org"]) as client:
        assert client.get("/api/runs", headers={"Host": "flows.example.org"}).status_code == 200
        assert client.get("/api/runs", headers={"Host": "other.example.org"}).status_code == 403


def test_where_every_address_is_listened_to_names_must_be_known():
    """A number leads nowhere else; a name may."""
    hosts = HostNames(every_address=True)
    assert hosts.has("192.0.2.7:80")
    assert hosts.has("[2001:db8::1]:80")
    assert not hosts.has("evil.example:80")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_of_somebody_else_is_refused(client, headers, method):
    """Also if it knows the header of an action."""
    given = {**acting(client), **headers}
    answer = client.request(method, f"{RUN}/tags", json={"add": ["x"]}, headers=given)
    assert answer.status_code == 403
    assert client.get("/api/runs").json()["runs"][0]["tags"] == []


def test_an_action_needs_its_header(client):
    """Which a form of another page cannot send."""
    assert client.post(f"{RUN}/tags", json={"add": ["x"]}).status_code == 403
    wrong = {"X-Asyncflow-Token": "x"}
    assert client.post(f"{RUN}/tags", json={"add": ["x"]}, headers=wrong).status_code == 403
    assert client.get("/api/runs").json()["runs"][0]["tags"] == []


def test_an_action_is_json(client):
    """A form would be sent as another type without asking."""
    answer = client.post(f"{RUN}/tags", content=b'{"add": ["x"]}', headers=acting(client))
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"x" * 2_000_000, 413), (b"{", 400), (b"[]", 400), (b"[" * 100_000, 400)],
    ids=["long", "open", "list", "deep"],
)
def test_a_body_that_is_no_object_of_a_bounded_size_is_refused(client, body, status):
    """No more of it is read than it may have."""
    headers = {**acting(client), "Content-Type": "application/json"}
    assert client.post(f"{RUN}/tags", content=body, headers=headers).status_code == status


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("action", [f"{RUN}/tags", f"{RUN}/cancel", f"{RUN}/resume"])
def test_nothing_else_than_a_post_acts(client, method, action):
    """Neither a link nor another method."""
    answer = client.request(method, action, headers=acting(client))
    assert answer.status_code in {403, 404, 405}


def test_a_read_only_page_changes_nothing(store):
    """And does not tell how to act."""
    with asking(store, read_only=True) as client:
        told = client.get("/api/info").json()
        assert (told["actions"], told["action_token"], told["read_only"]) == ([], None, True)
        for action in ("tags", "cancel", "resume"):
            answer = client.post(f"{RUN}/{action}", json={}, headers={"X-Asyncflow-Token": "x"})
            assert answer.status_code == 403


# --- the token ----------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["/", "/api/info", "/api/runs", "/static/index.html", RUN])
def test_without_the_token_nothing_is_told(locked, address):
    """Nothing of the store, and no file of the page."""
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "asyncflow_page=x"}):
        answer = httpx.get(locked.join(address), headers=given)
        assert answer.status_code == 401


def test_the_token_of_the_first_address_becomes_a_cookie(locked):
    """Which scripts cannot read and no other page can have sent, and which is not the token."""
    first = httpx.get(locked.join("/"), params={"token": TOKEN, "run": "Made/1"})
    assert (first.status_code, first.headers["location"]) == (303, "./?run=Made%2F1")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    with httpx.Client(base_url=locked, cookies=first.cookies) as browser:
        assert browser.get("/api/runs").status_code == 200
        answer = browser.post(f"{RUN}/tags", json={}, headers=acting(browser))
        assert answer.status_code == 200


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x"])
def test_a_wrong_token_gives_no_cookie(locked, token):
    """Not even one that begins right."""
    answer = httpx.get(locked.join("/"), params={"token": token})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_a_program_shows_the_token_in_a_header(locked):
    """Then it needs no other header to act."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert httpx.get(locked.join("/api/runs"), headers=headers).status_code == 200
    answer = httpx.post(locked.join(f"{RUN}/tags"), json={}, headers=headers)
    assert answer.status_code == 200


def test_other_machines_need_a_token_file(tmp_path):
    """One that nobody else can read, with a secret of some length."""
    with pytest.raises(SettingsError, match="--token-file"):
        _token(PageAddress(host="0.0.0.0"))  # noqa: S104 - what is refused
    file = tmp_path / "token"
    for text, mode, said in [("x", 0o600, "at least"), (TOKEN, 0o644, "chmod 600")]:
        file.write_text(text)
        file.chmod(mode)
        with pytest.raises(SettingsError, match=said):
            _token(PageAddress(host="0.0.0.0", token_file=file))  # noqa: S104 - an address that needs a token
    file.chmod(0o600)
    token, shown = _token(PageAddress(host="0.0.0.0", token_file=file))  # noqa: S104 - an address that needs a token
    assert token.is_it(TOKEN)
    assert TOKEN not in shown


# --- what a browser may do ----------------------------------------------------------------------


@pytest.mark.parametrize("address", ["/", "/api/runs", "/nothing", RUN])
def test_the_policy_allows_nothing_but_the_page_itself(client, address):
    """No script in a page or an attribute, no code made of text, and nothing from elsewhere."""
    headers = client.get(address).headers
    policy = headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
    assert policy.startswith("default-src 'none'")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_an_artifact_is_an_attachment(client):
    """Whatever its bytes are, they are saved and not shown."""
    answer = client.get(f"{RUN}/artifact/start/1/rows", params={"raw": 1})
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in answer.headers["content-security-policy"]


def test_the_page_loads_nothing_from_elsewhere(client):
    """Its files name no other address that a browser would load."""
    text = client.get("/").text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)


def test_a_mounted_page_works_below_its_path(store):
    """The cookie is for that path alone, and the way in leads back to it."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    import asyncflow
    from tests.support.page_stores import served

    app = Starlette(routes=[Mount("/flows", asyncflow.page(store, token=TOKEN))])
    with served(app) as address, httpx.Client(base_url=address) as browser:
        first = browser.get("/flows/", params={"token": TOKEN})
        assert "Path=/flows/" in first.headers["set-cookie"]
        assert first.headers["location"] == "./"
        assert browser.get("/flows/api/runs").json()["runs"]
        assert browser.get("/flows/static/vendor/htm.mjs").status_code == 200
