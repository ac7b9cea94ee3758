from __future__ import annotations

import hashlib

import pytest
from starlette.testclient import TestClient

from explorer.security import COOKIE, Access, is_loopback
from tests.explorer.made_views import app_of, hello

HERE = "http://127.0.0.1:8321"


def client(monkeypatch: pytest.MonkeyPatch, access: Access | None = None, base: str = HERE) -> TestClient:
    return TestClient(app_of(monkeypatch, hello, access=access), base_url=base, follow_redirects=False)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("192.0.2.1", False),
        ("shop", False),
    ],
)
def test_only_addresses_of_this_machine_are_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local


@pytest.mark.parametrize("host", ["127.0.0.1:8321", "localhost", "[::1]:8321", "LOCALHOST:1"])
def test_a_local_explorer_answers_under_its_own_names(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    assert client(monkeypatch).get("/made", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.5:8321", "", "localhost.evil.example:8321"]
)
def test_a_local_explorer_refuses_foreign_names(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    answer = client(monkeypatch).get("/made", headers={"host": host})
    assert answer.status_code == 421
    assert "hello" not in answer.text
    assert client(monkeypatch).get("/static/explorer.css", headers={"host": host}).status_code == 421


def test_an_open_explorer_answers_under_numbers_and_configured_names_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    access = Access("secret", local=False, hosts=("Explorer.example.com",))
    made = client(monkeypatch, access)
    made.cookies.set(COOKIE, access.cookie)
    codes = {
        host: made.get("/made", headers={"host": host}).status_code
        for host in ("10.0.0.5:8321", "explorer.example.com", "evil.example")
    }
    assert codes == {"10.0.0.5:8321": 200, "explorer.example.com": 200, "evil.example": 421}


def test_without_the_key_there_is_a_readable_page_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    made = client(monkeypatch, Access("secret"))
    for path in ("/", "/made", "/loading", "/nothing", "/pictures/on"):
        answer = made.get(path)
        assert answer.status_code == 401, path
        assert "needs a key" in answer.text
        assert "hello" not in answer.text
    assert "That is not the key" in made.get("/made?key=wrong").text
    assert made.get("/static/explorer.css").status_code == 200


def test_the_key_in_the_address_becomes_a_cookie_and_leaves_the_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = client(monkeypatch, Access("s e&cret"))
    answer = made.get("/made?k=3&key=s%20e%26cret&user=a%26b")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/made?k=3&user=a%26b"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}={hashlib.sha256(b'shelfwise explorer s e&cret').hexdigest()};")
    assert "httponly" in cookie.lower()
    assert "samesite=lax" in cookie.lower()
    assert made.get("/made").text == "hello"


def test_a_program_sends_the_key_as_a_bearer_token(monkeypatch: pytest.MonkeyPatch) -> None:
    made = client(monkeypatch, Access("secret"))
    assert made.get("/made", headers={"authorization": "Bearer secret"}).text == "hello"
    assert made.get("/made", headers={"authorization": "Bearer secre"}).status_code == 401
    assert made.get("/made", headers={"cookie": f"{COOKIE}=secret"}).status_code == 401
    assert made.get("/made", headers={b"authorization": b"Bearer \xff"}).status_code == 401


def test_an_address_of_another_host_is_not_redirected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    made = client(monkeypatch, Access("secret"))
    assert made.get(f"{HERE}//evil.example/made?key=secret").headers["location"] == "/evil.example/made"
    for back in ("//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)"):
        made.cookies.set(COOKIE, Access("secret").cookie)
        assert made.get("/pictures/on", params={"back": back}).headers["location"] == "/"


def test_every_response_forbids_what_the_pages_do_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    made = client(monkeypatch)
    for path in ("/", "/made", "/nothing", "/static/explorer.css"):
        headers = made.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'self'; img-src 'self' data:;"), path
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_pictures_of_other_hosts_need_the_readers_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    made = client(monkeypatch)
    answer = made.get("/pictures/on", params={"back": "/made?k=3"})
    assert answer.headers["location"] == "/made?k=3"
    assert "img-src 'self' data: https: http:;" in made.get("/made").headers["content-security-policy"]
    made.get("/pictures/off")
    assert "img-src 'self' data:;" in made.get("/made").headers["content-security-policy"]
