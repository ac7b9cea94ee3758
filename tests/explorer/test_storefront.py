"""The pages of the storefront, over HTTP, with a real server behind them."""

from __future__ import annotations

import html
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from conf.clients import ConnectionConfig
from conf.schema import PipelineConfig
from explorer.app import create_app
from explorer.context import ExplorerContext
from explorer.loading import store_loader
from explorer.storefront.shop_server import Phase, ShopServer
from explorer.views import storefront
from shelfwise_client import Client
from tests.explorer.storefront.test_guard import until
from tests.processes import children

HERE = "http://127.0.0.1:8321"
SAME = {"origin": HERE}


@pytest.fixture(scope="module")
def artifacts(trained: PipelineConfig) -> Path:
    return Path(trained.work_dir) / "artifacts"


@pytest.fixture(scope="module")
def app(artifacts: Path) -> Iterator[Starlette]:
    made = create_app(ExplorerContext(store=artifacts, loader=store_loader(artifacts, "cpu", 1)))
    yield made
    made.state.storefront.server.close()


class Reader:
    """Opens pages of one app."""

    def __init__(self, app: Starlette) -> None:
        self.client = TestClient(app, base_url=HERE, follow_redirects=False)

    def get(self, path: str) -> Any:
        """A page, once whatever it waits for is there."""
        found: list[Any] = []

        def there() -> bool:
            found.append(self.client.get(path))
            return bool(found[-1].status_code != 202)

        until(there, 180)
        return found[-1]

    def post(self, page: str, what: str, headers: dict[str, str] | None = None, **changes: str) -> Any:
        """Press a button of a page."""
        form = {**fields(page), "what": what, **changes}
        return self.client.post("/storefront/act", data=form, headers=SAME | (headers or {}))


def fields(page: str) -> dict[str, str]:
    """The hidden fields of the form that actions are sent by."""
    form = re.search(r'<form id="act".*?</form>', page, re.S)
    assert form is not None
    found = re.findall(r'name="(\w+)" value="([^"]*)"', form.group(0))
    return {name: html.unescape(value) for name, value in found}


def listed(page: str) -> list[str]:
    """Item ids of the list beside the shelf."""
    return re.findall(r'<li class="item[^"]*" data-item="([^"]+)"', page)


def shelf(page: str) -> list[str]:
    return re.findall(r'<li data-item="([^"]+)"', page)


@pytest.fixture(scope="module")
def reader(app: Starlette) -> Reader:
    return Reader(app)


def test_a_shelf_with_popular_products_and_a_list_beside_it(reader: Reader) -> None:
    answer = reader.get("/storefront")
    assert answer.status_code == 200
    assert len(shelf(answer.text)) == 24
    assert len(listed(answer.text)) == 12
    assert shelf(answer.text)[0] == listed(answer.text)[0]
    assert "Nothing is known about this shopper: popular items" in answer.text


def test_a_filter_of_the_shelf_leaves_what_it_names(reader: Reader) -> None:
    page = reader.get("/storefront").text
    assert re.search(r'<select name="f.brand">.*?<option value="Acme">Acme \(\d+\)', page, re.S)
    answer = reader.get("/storefront?f.brand=Acme")
    assert 'value="Acme" selected' in answer.text
    frame = reader.client.app.state.context.model().bundle.catalogue.frame  # type: ignore[attr-defined]
    brands = dict(zip(frame["item_id"].to_list(), frame["brand"].to_list(), strict=True))
    assert {brands[item] for item in shelf(answer.text)} == {"Acme"}
    assert "No product qualifies" in reader.get("/storefront?f.price=900-901").text


def test_without_scripts_an_action_leads_to_the_address_after_it(reader: Reader) -> None:
    page = reader.get("/storefront?visit=0000aaaa").text
    answer = reader.post(page, "buy:0:i0")
    assert answer.status_code == 303
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    assert query == {"visit": ["0000aaaa"], "did": ["buy:i0"]}
    after = reader.get(answer.headers["location"]).text
    assert "Recorded at the server" in after
    assert "products so far: 1 bought" in after
    assert "Personalised with the history" in after
    assert re.search(r"By the last action: \d+ new", after)
    assert listed(after) != listed(page)


def test_with_scripts_shop_and_list_are_swapped_and_the_address_goes_along(reader: Reader) -> None:
    page = reader.get("/storefront?visit=0000aaab").text
    answer = reader.post(page, "click:0:i6", {"hx-request": "true"})
    assert answer.status_code == 200
    assert answer.headers["hx-push-url"] == "/storefront?visit=0000aaab&item=i6&did=click%3Ai6"
    assert "<html" not in answer.text
    assert '<div id="shop">' in answer.text
    assert '<aside id="for-you" aria-labelledby="for-you-title" hx-swap-oob="true">' in answer.text
    assert 'id="product"' in answer.text
    whole = reader.get(answer.headers["hx-push-url"])
    assert listed(whole.text) == listed(answer.text)
    again = reader.post(answer.text, "cart:3:i12", {"hx-request": "true"})
    assert again.headers["hx-push-url"].endswith("did=click%3Ai6&did=cart%3Ai12")


def test_the_address_shows_the_same_without_anything_recorded(reader: Reader) -> None:
    page = reader.get("/storefront?visit=0000aaac").text
    done = reader.post(page, "buy:0:i1")
    mine = reader.get(done.headers["location"]).text
    theirs = reader.get(done.headers["location"].replace("0000aaac", "0000aaad")).text
    assert listed(theirs) == listed(mine)
    assert "They came with the address" in theirs
    assert "Personalised with what was done" in theirs


def test_forms_of_other_pages_are_refused(reader: Reader) -> None:
    page = reader.get("/storefront?visit=0000aaae").text
    assert reader.post(page, "buy:0:i0", {"origin": "http://elsewhere.example"}).status_code == 403
    assert reader.post(page, "buy:0:i0", {"sec-fetch-site": "cross-site"}).status_code == 403
    assert reader.post(page, "buy:0:i0", form_token="x").status_code == 403
    assert reader.post(page, "buy:0:i0", form_token="").status_code == 403
    assert reader.client.post("/storefront/restart", headers=SAME).status_code == 403
    assert reader.client.get("/storefront/act").status_code == 405


@pytest.mark.parametrize("what", ["", "buy", "buy:0:", "steal:0:i0"])
def test_a_form_without_an_action_is_a_readable_error(reader: Reader, what: str) -> None:
    answer = reader.post(reader.get("/storefront").text, what)
    assert answer.status_code == 400
    assert "names no action and no product" in answer.text


def test_what_the_server_refuses_is_said(reader: Reader) -> None:
    page = reader.get("/storefront").text
    answer = reader.post(page, "buy:0:nothing", {"hx-request": "true"})
    assert "The server did not take this: item_id &#39;nothing&#39; is not in the catalogue" in answer.text
    assert reader.post(page, "buy:0:nothing").status_code == 400


def test_search_product_and_intent(reader: Reader) -> None:
    model = reader.client.app.state.context.model()  # type: ignore[attr-defined]
    title = model.items.title(7)
    found = reader.get(f"/storefront?q={title}").text
    assert shelf(found)[0] == "i7"
    assert "Found for" in found
    product = reader.get("/storefront?item=i7").text
    assert html.escape(title) in product
    assert len(shelf(product)) == 8
    assert "i7" not in shelf(product)
    meant = reader.get("/storefront?intent=guitar").text
    plain = reader.get("/storefront").text
    assert listed(meant) != listed(plain)
    assert "for “guitar”" in meant
    missing = reader.get("/storefront?item=i7x")
    assert missing.status_code == 404
    assert '<a href="/storefront?item=i7">i7</a>' in missing.text


def test_a_copy_of_a_shopper_begins_with_the_history(reader: Reader) -> None:
    model = reader.client.app.state.context.model()  # type: ignore[attr-defined]
    user = model.shoppers.ids[3]
    copy = reader.get(f"/storefront?as={user}&visit=0000aaaf").text
    assert f"A copy of shopper {user}" in copy
    assert "Personalised with the copied history" in copy
    assert listed(copy) != listed(reader.get("/storefront").text)
    after = reader.get(reader.post(copy, "buy:0:i2").headers["location"]).text
    assert f"A copy of shopper {user}" in after
    unknown = reader.get(f"/storefront?as={user}x")
    assert unknown.status_code == 404
    assert f'<a href="/storefront?as={user}">{user}</a>' in unknown.text


def test_what_is_said_of_kinds_that_the_model_does_not_have(reader: Reader) -> None:
    page = reader.get("/storefront").text
    assert "Cart as <code>add_to_cart</code>: the model was not trained on “add_to_cart”" in page
    assert "Click as" not in page


def test_a_server_that_dies_is_said_and_started_again(reader: Reader) -> None:
    page = reader.get("/storefront?visit=0000aab0").text
    after = reader.post(page, "buy:0:i0").headers["location"]
    mine = listed(reader.get(after).text)
    held = reader.client.app.state.storefront.server  # type: ignore[attr-defined]
    [child] = children(held._process.pid)
    os.kill(child, signal.SIGKILL)
    until(lambda: held.state().phase is Phase.failed)
    closed = reader.get(after)
    assert closed.status_code == 503
    assert "Its server has failed: it ended with exit code 9" in closed.text
    assert "listening on" in closed.text
    lost = reader.post(page, "buy:0:i6", {"hx-request": "true"})
    assert lost.headers["hx-redirect"] == "/storefront?visit=0000aab0"
    token = re.search(r'name="form_token" value="([^"]+)"', closed.text)
    state = re.search(r'name="state" value="([^"]+)"', closed.text)
    assert token is not None
    assert state is not None
    form = {"form_token": token.group(1), "state": html.unescape(state.group(1))}
    started = reader.client.post("/storefront/restart", data=form, headers=SAME)
    assert started.status_code == 303
    assert started.headers["location"] == after
    back = reader.get(after)
    assert back.status_code == 200
    assert set(listed(back.text)) & set(mine)
    assert "Recorded at the server" in back.text


def test_a_page_that_waits_for_the_server_loads_itself_again(reader: Reader) -> None:
    reader.get("/storefront")
    assert reader.client.get("/storefront/opening").headers["hx-refresh"] == "true"


@pytest.mark.parametrize("key", ["", "the-shop's-key"])
def test_a_pseudonymised_bundle_is_served_with_a_key(
    reader: Reader, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    reader.get("/storefront")
    context = reader.client.app.state.context  # type: ignore[attr-defined]
    monkeypatch.setenv(context.privacy.key_env, key)
    assert storefront._privacy(context) == ((), {})
    monkeypatch.setitem(context.model().bundle.manifest, "hash_users", True)
    settings, variables = storefront._privacy(context)
    assert settings == ("privacy.hash_users=true", f"privacy.key_env={context.privacy.key_env}")
    [used] = variables.values()
    assert used == key if key else len(used) == 64
    assert os.environ[context.privacy.key_env] == key


@pytest.fixture(scope="module")
def given(artifacts: Path) -> Iterator[ConnectionConfig]:
    """A server that somebody else has started."""
    server = ShopServer(artifacts)
    server.start()
    yield ConnectionConfig(server.wait(180).address)
    server.close()


def test_a_given_server_is_read_only(artifacts: Path, given: ConnectionConfig) -> None:
    reader = Reader(create_app(ExplorerContext(server=given)))
    page = reader.get("/storefront?visit=0000aab1").text
    assert "Read-only: what you do is sent to" in page
    assert "Actions are recorded" not in page
    with Client(given.address) as client:
        before = client.status().event_count
        answer = reader.post(page, "click:0:i0")
        after = reader.get(answer.headers["location"]).text
        assert client.status().event_count == before
    assert listed(after) != listed(page)
    assert "A new visitor" in after
    assert "<select" not in page
    product = reader.get("/storefront?item=i7").text
    assert "brand: " in product
    assert reader.get("/storefront?item=nothing").status_code == 404


def test_with_writing_actions_are_recorded_and_a_banner_says_so(given: ConnectionConfig) -> None:
    reader = Reader(create_app(ExplorerContext(server=given, write=True)))
    page = reader.get("/storefront?visit=0000aab2").text
    assert f"Actions are recorded at {given.address}" in page
    assert "storefront-0000aab2" in page
    with Client(given.address) as client:
        before = client.status().event_count
        answer = reader.post(page, "click:0:i0")
        assert client.status().event_count == before + 1
    assert "Recorded at the server" in reader.get(answer.headers["location"]).text
    assert reader.get("/storefront?as=u1").status_code == 400


def test_a_given_server_that_is_not_there_is_a_readable_page() -> None:
    reader = Reader(create_app(ExplorerContext(server=ConnectionConfig("127.0.0.1:9"))))
    answer = reader.get("/storefront")
    assert answer.status_code == 502
    assert "no server answers at 127.0.0.1:9" in answer.text
