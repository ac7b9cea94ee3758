from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient

from conf.clients import ConnectionConfig
from conf.errors import InputError
from explorer.app import MAX_FORM_BYTES
from explorer.context import ExplorerContext
from explorer.problems import Link, LoadingError, PageError
from explorer.registry import VIEWS
from explorer.view import Endpoint, Needs
from tests.explorer.made_views import app_of, hello

HERE = "http://127.0.0.1:8321"


def get(app: Starlette, path: str = "/made") -> Any:
    return TestClient(app, base_url=HERE).get(path)


def raising(error: Exception) -> Endpoint:
    def endpoint(request: Request, context: ExplorerContext) -> Response:
        raise error

    return endpoint


def test_a_page_error_is_a_page_with_its_status_text_and_links(monkeypatch: pytest.MonkeyPatch) -> None:
    error = PageError(404, "No item <x>", "It is & was not there.", [Link("/made?item=a%2Fb", "a/b")])
    answer = get(app_of(monkeypatch, raising(error)))
    assert answer.status_code == 404
    assert "No item &lt;x&gt;" in answer.text
    assert "It is &amp; was not there." in answer.text
    assert '<a href="/made?item=a%2Fb">a/b</a>' in answer.text


def test_an_input_error_is_shown_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = get(app_of(monkeypatch, raising(InputError("file.json: not readable"))))
    assert answer.status_code == 500
    assert "file.json: not readable" in answer.text


def test_a_failure_has_a_number_that_the_log_has_too_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_of(monkeypatch, raising(ZeroDivisionError("inner detail")))
    with caplog.at_level(logging.ERROR):
        answer = get(app, "/made?user=secret-shopper")
    assert answer.status_code == 500
    text = answer.text
    assert "inner detail" not in text
    assert "Traceback" not in text
    found = re.search(r"under error ([0-9a-f]{8})", text)
    assert found is not None
    assert f"view made failed, error {found.group(1)}" in caplog.text
    assert "inner detail" in caplog.text
    assert "secret-shopper" not in caplog.text


def test_what_is_being_loaded_has_a_page_that_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = get(app_of(monkeypatch, raising(LoadingError())))
    assert answer.status_code == 202
    assert 'hx-get="/loading"' in answer.text
    done = get(app_of(monkeypatch, hello), "/loading")
    assert done.headers["hx-refresh"] == "true"


def test_an_unknown_address_and_a_wrong_method_have_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_of(monkeypatch, hello)
    for path in ("/nothing", "/made/nothing", "/static/nothing.css"):
        answer = get(app, path)
        assert answer.status_code == 404
        assert "No such page" in answer.text
    refused = TestClient(app, base_url=HERE).post("/made")
    assert refused.status_code == 405
    assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    ("needs", "context", "said"),
    [
        (Needs.bundle, ExplorerContext(server=ConnectionConfig()), "artifacts=DIR server=HOST:PORT"),
        (Needs.server, ExplorerContext(), "shelfwise explore server=HOST:PORT"),
    ],
)
def test_a_view_without_what_it_needs_says_how_to_start_the_explorer(
    monkeypatch: pytest.MonkeyPatch, needs: Needs, context: ExplorerContext, said: str
) -> None:
    answer = get(app_of(monkeypatch, hello, needs=needs, context=context))
    assert answer.status_code == 404
    assert said in answer.text


def echo(request: Request, context: ExplorerContext) -> Response:
    return PlainTextResponse(repr(request.state.form))


def test_a_form_reaches_a_view_that_takes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    client = TestClient(app_of(monkeypatch, echo, method="POST", posts=True), base_url=HERE)
    same = {"sec-fetch-site": "same-origin"}
    answer = client.post("/made", data={"item": "a b", "empty": ""}, headers=same)
    assert answer.text == repr({"item": "a b", "empty": ""})
    older = client.post("/made", data={"item": "x"}, headers={"origin": HERE})
    assert older.text == repr({"item": "x"})
    long = client.post("/made", data={"item": "x" * MAX_FORM_BYTES}, headers=same)
    assert long.status_code == 413


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "http://evil.example"},
        {"origin": "null"}, {},
    ],
)  # fmt: skip
def test_a_form_from_a_foreign_page_is_refused(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    client = TestClient(app_of(monkeypatch, echo, method="POST", posts=True), base_url=HERE)
    assert client.post("/made", data={"item": "x"}, headers=headers).status_code == 403


def test_a_view_that_is_read_only_cannot_have_a_form(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answer = TestClient(app_of(monkeypatch, echo, method="POST"), base_url=HERE).post("/made")
    assert answer.status_code == 500
    assert "view 'made' is read-only" in caplog.text


def test_names_and_addresses_of_the_views_are_distinct_and_the_start_page_is_first() -> None:
    assert VIEWS[0].path == "/"
    assert len({view.name for view in VIEWS}) == len({view.path for view in VIEWS}) == len(VIEWS)
    assert all(view.path.startswith("/") and view.summary.endswith(".") for view in VIEWS)
