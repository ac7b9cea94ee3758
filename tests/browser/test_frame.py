"""What every page has: keyboard, errors, and the guards of the browser itself."""

from __future__ import annotations

import pytest
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.keys import Keys

from explorer.registry import VIEWS
from explorer.view import View
from tests.browser.harness import Reader

PLANTED = """
const script = document.createElement("script");
script.src = "http://127.0.0.1:1/s.js";
document.head.append(script);
const picture = document.createElement("img");
picture.src = "http://127.0.0.1:1/p.png";
document.body.append(picture);
const inline = document.createElement("script");
inline.text = 'document.title = "inline"';
document.head.append(inline);
"""
NOT_FOUND = "the server responded with a status of 404"


@pytest.mark.parametrize("view", VIEWS, ids=[view.name for view in VIEWS])
def test_every_view_is_right_on_desk_and_phone_light_and_dark(reader: Reader, view: View) -> None:
    path = view.path
    reader.check_everywhere(path)
    assert reader.path == path
    current = reader.one("nav a[aria-current=page]")
    assert current.get_attribute("href") == reader.base + path


def test_the_start_page_has_the_bundles_facts_and_leads_to_every_view(reader: Reader) -> None:
    reader.open("/")
    facts = dict(zip(reader.texts(".facts dt"), reader.texts(".facts dd"), strict=True))
    assert facts["Items"] == "60"
    assert facts["Kinds of event"] == "purchase, click"
    assert 0.0 < float(facts["recall@10"].split()[0]) <= 1.0
    assert "best other: " in facts["recall@10"]
    links = {link.get_attribute("href") for link in reader.all(".cards a")}
    assert links == {reader.base + view.path for view in VIEWS if view.name != "start"}


def test_the_first_key_reaches_the_content(reader: Reader) -> None:
    reader.open("/")
    reader.press(Keys.TAB)
    assert reader.focused.text == "Skip to the content"
    reader.press(Keys.ENTER)
    reader.wait(lambda: reader.focused.get_attribute("id") == "main")
    reader.press(Keys.TAB)
    assert reader.focused.tag_name == "a"
    assert reader.focused.get_attribute("href") == reader.base + VIEWS[1].path


def test_a_page_that_does_not_exist_is_readable_and_leads_back(reader: Reader) -> None:
    reader.check_everywhere("/nothing", allow=[NOT_FOUND])
    assert reader.text("h1") == "No such page"
    assert reader.one("main a").get_attribute("href") == reader.base + "/"


def test_the_browser_itself_refuses_scripts_and_pictures_of_other_hosts(reader: Reader) -> None:
    """The header works: without it this page would load both."""
    reader.open("/")
    reader.driver.execute_script(PLANTED)
    refused: list[str] = []

    def all_three() -> bool:
        refused.extend(
            e["message"] for e in reader.log("browser") if "Content Security Policy" in e["message"]
        )
        return len(refused) >= 3

    try:
        reader.wait(all_three)
    except TimeoutException:
        pytest.fail(f"refused only: {refused}")
    assert reader.driver.title != "inline"
