from __future__ import annotations

import re

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.keys import Keys

from tests.browser.harness import Reader
from tests.browser.test_frame import NOT_FOUND


def drawn(reader: Reader) -> str:
    """Return how many points are drawn, once they are."""
    reader.wait(lambda: reader.one("#map").get_attribute("data-drawn"))
    return str(reader.one("#map").get_attribute("data-drawn"))


def listed(reader: Reader) -> int:
    """Return of how many items the list below the map is."""
    found = re.search(r"([\d,]+) items?$", reader.text("#list caption"))
    assert found is not None
    return int(found.group(1).replace(",", ""))


def test_every_page_is_right_on_desk_and_phone_light_and_dark(reader: Reader) -> None:
    for path in (
        "?colour=novelty&q=trail",
        "/item?item=i1",
        "/duplicates?least=0.9",
        "/no-events",
        "/rejected",
    ):
        reader.check_everywhere(f"/catalogue{path}")


def test_the_map_draws_every_item_and_names_the_one_under_the_pointer(reader: Reader) -> None:
    reader.open("/catalogue")
    assert drawn(reader) == "60"
    for x in range(-300, 301, 10):  # somewhere along the middle lies an item
        ActionChains(reader.driver).move_to_element_with_offset(reader.one("#map"), x, 0).perform()
        if reader.one("#label").is_displayed():
            break
    reader.wait(lambda: "events" in reader.text("#label"))
    reader.check()
    reader.open("/catalogue/item?item=i1")
    title = reader.text("h1")
    reader.one("a[href^='/catalogue?x=']").click()
    reader.wait(lambda: "mark=i1" in reader.path)
    assert drawn(reader) == "60"
    assert len(str(reader.one("#map").get_attribute("data-found")).split(",")) == 1
    assert title in reader.text("#list")


def test_the_wheel_narrows_the_list_and_the_address_shows_the_same_again(reader: Reader) -> None:
    reader.open("/catalogue")
    drawn(reader)
    assert listed(reader) == 60
    origin = ScrollOrigin.from_element(reader.one("#map"))
    ActionChains(reader.driver).scroll_from_origin(origin, 0, -400).perform()
    reader.wait(lambda: "w=" in reader.path)
    reader.wait(lambda: listed(reader) < 60)
    narrowed, address = listed(reader), reader.path
    assert narrowed > 0
    reader.check()
    reader.open(address)
    assert listed(reader) == narrowed


def test_arrow_keys_move_and_links_do_the_same_without_a_pointer(reader: Reader) -> None:
    reader.open("/catalogue?w=0.5")
    drawn(reader)
    reader.one("#map").send_keys(Keys.ARROW_LEFT)
    reader.wait(lambda: "x=0.37500" in reader.path)
    reader.open("/catalogue?w=0.5")
    reader.one("nav[aria-label='Part of the map'] a:nth-child(3)").click()
    reader.wait(lambda: "x=0.375" in reader.path)
    reader.one("nav[aria-label='Part of the map'] a:last-child").click()
    reader.wait(lambda: listed(reader) == 60)


def test_an_unknown_item_is_readable(reader: Reader) -> None:
    reader.check_everywhere("/catalogue/item?item=nothing", allow=[NOT_FOUND])
