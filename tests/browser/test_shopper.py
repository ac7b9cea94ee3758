from __future__ import annotations

import pytest
from selenium.webdriver.common.by import By

from tests.browser.harness import Reader
from tests.browser.test_frame import NOT_FOUND

LOYAL = "/shopper?like=loyal&seed=1"


def test_the_first_visit_counts_the_shoppers_and_offers_some(reader: Reader) -> None:
    reader.open("/shopper")
    assert "60 shoppers have a stored history." in reader.text()
    assert len(reader.all("nav[aria-label='Somebody like'] a")) == 4


def test_a_drawn_shopper_has_a_history_and_a_list_with_scores_sources_and_reasons(reader: Reader) -> None:
    reader.check_everywhere(LOYAL)
    history, listed = reader.all("section")
    past = history.find_elements(By.CSS_SELECTOR, ".item")
    assert f"{len(past)} events" in history.text
    assert len([event for event in past if event.is_displayed()]) == 10
    items = listed.find_elements(By.CSS_SELECTOR, ".item")
    assert len(items) == 10
    assert [item.find_element(By.CLASS_NAME, "place").text for item in items] == [
        str(n) for n in range(1, 11)
    ]
    for item in items:
        assert "score " in item.text
        assert "purchase " in item.text
        assert item.find_elements(By.CSS_SELECTOR, ".tag")
    assert len({item.get_attribute("data-item") for item in items}) == 10


def test_an_address_shows_the_same_page_again_and_another_seed_another_shopper(reader: Reader) -> None:
    reader.open(LOYAL)
    before = reader.text()
    reader.open(LOYAL)
    assert reader.text() == before
    names = set()
    for _ in range(4):
        reader.submit("nav[aria-label='Somebody like'] a[aria-current]")
        names.add(reader.text("h1"))
    assert len(names) > 1
    assert "seed=5" in reader.path


def test_a_shopper_is_found_by_id_and_by_its_beginning_with_the_keyboard(reader: Reader) -> None:
    reader.open("/shopper")
    reader.one("input[name=user]").send_keys("u1")
    reader.submit()
    assert reader.text("h1") == "Shopper u1"
    field = reader.one("input[name=user]")
    field.clear()
    field.send_keys("u")
    reader.submit()
    assert reader.text("h2") == "Ids that begin with “u”"
    first = reader.one(".links a")
    assert first.text == "u0"
    reader.submit(".links a")
    assert reader.text("h1") == "Shopper u0"


def test_an_unknown_shopper_leads_to_the_closest_ids(reader: Reader) -> None:
    reader.check_everywhere("/shopper?user=x17", allow=[NOT_FOUND])
    assert reader.text("h1") == "No shopper “x17”"
    reader.open("/shopper?user=u99")
    assert "u9" in reader.texts(".links a")


def test_a_visitor_gets_popular_items_and_has_no_history(reader: Reader) -> None:
    reader.open("/shopper?like=cold")
    assert reader.text("h1") == "A visitor without events"
    assert "Nothing is known about this shopper: popular items" in reader.text()
    assert len(reader.all("section:last-of-type .item")) == 10


def test_options_stand_in_the_address_and_change_the_list(reader: Reader) -> None:
    reader.open(LOYAL)
    plain = [item.get_attribute("data-item") for item in reader.all("[data-item]")]
    reader.open(LOYAL + "&k=3&exclude_seen=yes&filter=price+%3C+25")
    fewer = [item.get_attribute("data-item") for item in reader.all("[data-item]")]
    assert len(fewer) == 3
    assert fewer != plain[:3]
    assert not reader.all("[data-item] .title .tag")
    prices = [float(text.split(" · ")[1]) for text in reader.texts("[data-item] .meta:nth-of-type(2)")]
    assert max(prices) < 25
    assert reader.one("input[name=filter]").get_attribute("value") == "price < 25"


def test_an_intent_is_answered_in_the_words_of_a_reason(reader: Reader) -> None:
    reader.open("/shopper?like=cold&intent=guitar+drum")
    assert 'Matches "guitar drum"' in reader.text()
    assert "guitar" in reader.text("[data-item] .title") or "drum" in reader.text("[data-item] .title")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("k=0", "k: “0” is not a whole number from 1 to 100."),
        ("diversity=2", "diversity: “2” is not a number from 0 to 1."),
        ("exclude_seen=maybe", "exclude_seen: “maybe” is not yes or no."),
        ("at=noon", "at: “noon” is not an ISO time"),
        ("like=rich", "like: “rich” is none of random, new, loyal, cold."),
        ("filter=price+%3C", "filter: "),
        ("filter=colour+%3D+1", "filter: "),
    ],
)
def test_a_wrong_value_in_the_address_is_named(reader: Reader, query: str, said: str) -> None:
    reader.open(f"/shopper?user=u1&{query}")
    assert said in reader.text()
    assert "status of 400" in str(reader.log("browser"))
