"""An explorer of a server alone: lists over gRPC, and views that say that they need a bundle."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome

from explorer.registry import VIEWS
from explorer.view import Needs
from tests.browser.harness import Reader, explorer
from tests.browser.test_frame import NOT_FOUND


@pytest.fixture(scope="module")
def remote(driver: Chrome, server: str) -> Iterator[str]:
    with explorer(f"server={server}") as running:
        yield running


@pytest.fixture
def asking(driver: Chrome, remote: str) -> Reader:
    driver.delete_all_cookies()
    return Reader(driver, remote)


def test_the_start_page_says_what_the_server_has(asking: Reader, server: str) -> None:
    asking.check_everywhere("/")
    assert asking.text("h1") == "What this server is"
    facts = dict(zip(asking.texts(".facts dt"), asking.texts(".facts dd"), strict=True))
    assert facts["Items"] == "60"
    assert facts["Shoppers"] == "60"
    assert asking.text("footer") == f"Server {server}, read-only"


def test_a_list_comes_from_the_server_with_the_same_items_as_from_the_bundle(
    asking: Reader, reader: Reader
) -> None:
    # At a fixed time, in seconds for both: recency is measured from it.
    query = "/shopper?user=u1&at=2024-01-15T12:00"

    def items() -> list[str | None]:
        return [item.get_attribute("data-item") for item in reader.all("[data-item]")]

    reader.open(query)
    local = items()
    asking.open(query)
    assert asking.text("h1") == "Shopper u1"
    assert items() == local
    assert len(local) == 10
    asking.check_everywhere(query)
    assert "with artifacts=DIR it stands beside the list" in asking.text()


def test_a_servers_shoppers_are_not_drawn(asking: Reader) -> None:
    asking.open("/shopper?like=loyal")
    assert asking.text("h1") == "Shoppers are drawn from a bundle"
    asking.open("/shopper?like=cold&k=3")
    assert len(asking.all("[data-item]")) == 3


def test_what_the_server_refuses_is_shown_in_its_words(asking: Reader) -> None:
    asking.open("/shopper?user=u1&filter=colour+%3D+1")
    assert asking.text("h1") == "The server refused this"
    assert "colour" in asking.text(".lead")


def test_a_view_of_a_bundle_says_that_it_needs_one(asking: Reader) -> None:
    for view in VIEWS:
        if view.needs is Needs.bundle:
            asking.open(view.path)
            assert asking.text("h1") == "This page needs a bundle"
            asking.check(allow=[NOT_FOUND])
