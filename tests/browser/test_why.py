from __future__ import annotations

import re

from selenium.webdriver.common.by import By

from tests.browser.harness import Reader
from tests.browser.test_frame import NOT_FOUND

EXAMPLE = "/why?example=1"


def listed(reader: Reader) -> list[str]:
    return [str(item.get_attribute("data-item")) for item in reader.all("[data-item]")]


def test_the_form_offers_an_example(reader: Reader) -> None:
    reader.check_everywhere("/why")
    assert reader.text("h1") == "Why, and why not"
    reader.submit("a.button")
    assert reader.path == EXAMPLE
    assert "is not in this list of 10." in reader.text("h1")


def test_stages_stand_in_order_with_what_happened(reader: Reader) -> None:
    reader.check_everywhere(EXAMPLE)
    names = [stage.get_attribute("data-stage") for stage in reader.all("[data-stage]")]
    assert names[:3] == ["limits", "sources", "ranking"]
    assert len(reader.all(".stage.lost")) == 1
    assert "proposed at place" in reader.text("[data-stage=sources]")
    assert reader.text("#final").startswith("Lost at the stage “")
    shares = [float(text) for text in reader.texts(".features > tbody > tr > td.number")]
    score, mean = re.findall(r"-?\d+\.\d+", reader.text(".features caption"))
    assert abs(sum(shares) - (float(score) - float(mean))) < 0.001 * (len(shares) + 2)
    assert shares == sorted(shares, key=abs, reverse=True)
    assert len(reader.all(".features svg rect")) == len(shares)


def test_every_change_leads_to_a_list_with_the_item_at_that_place(reader: Reader) -> None:
    reader.open(EXAMPLE)
    item = str(reader.one("input[name=item]").get_attribute("value"))
    assert item not in listed(reader)
    changes = [
        (str(line.find_element(By.TAG_NAME, "a").get_attribute("href")), line.text)
        for line in reader.all(".changes li")
    ]
    assert len(changes) >= 2
    for address, text in changes:
        place = int(re.findall(r"it is at place (\d+)$", text)[0])
        reader.open(address.removeprefix(reader.base))
        assert listed(reader)[place - 1] == item
        assert f"is at place {place} of" in reader.text("h1")
        assert reader.one("[aria-current=true]").get_attribute("data-item") == item
        reader.check()


def test_an_assumption_can_be_taken_out_again(reader: Reader) -> None:
    reader.open("/why?user=u1&item=i1&event=purchase%3Ai2&k=5")
    assert "further event purchase:i2" in reader.text()
    assert "i2" in reader.text(".past")
    reader.submit("a[aria-label='Take out: further event purchase:i2']")
    assert "further event" not in reader.text()
    assert reader.path == "/why?user=u1&item=i1&k=5"


def test_rules_are_kept_by_the_form(reader: Reader) -> None:
    reader.open("/why?user=u1&item=i1&cap=brand%3A1&boost=0.5%3Aprice+%3C+20&exploration=0.2")
    assert "cap brand:1" in reader.text()
    reader.one("input[name=item]").clear()
    reader.one("input[name=item]").send_keys("i3")
    reader.submit()
    assert "(i3)" in reader.text("h1")
    assert "cap brand:1" in reader.text()
    assert "boost 0.5:price < 20" in reader.text()
    assert "After caps: " in reader.text("[data-stage=rerank]")
    reader.check()


def test_a_word_of_the_title_leads_to_items(reader: Reader) -> None:
    reader.check_everywhere("/why?user=u1&item=guitar")
    assert reader.text("h2") == "Items for “guitar”"
    reader.submit(".links a")
    assert "guitar" in reader.text("h1")


def test_the_list_of_a_shopper_leads_to_why_and_why_not(reader: Reader) -> None:
    reader.open("/shopper?user=u1&k=4&exclude_seen=yes")
    before = listed(reader)
    reader.submit("[data-item] a[href^='/why']")
    assert "is at place 1 of 4." in reader.text("h1")
    assert listed(reader) == before
    other = next(f"i{n}" for n in range(60) if f"i{n}" not in before)
    reader.open("/shopper?user=u1&k=4&exclude_seen=yes")
    reader.one("section form input[name=item]").send_keys(other)
    reader.submit("section form button")
    assert f"({other}) is not in this list of 4." in reader.text("h1")
    assert listed(reader) == before


def test_unknown_ids_and_wrong_values_are_named(reader: Reader) -> None:
    reader.check_everywhere("/why?user=u1&item=i1x9", allow=[NOT_FOUND])
    assert reader.text("h1") == "No item “i1x9”"
    reader.open("/why?user=u99&item=i1")
    assert reader.text("h1") == "No shopper “u99”"
    reader.open("/why?user=u1&item=i1&filter=prize+%3C+3")
    assert "unknown attribute 'prize'; did you mean 'price'?" in reader.text()
    reader.open("/why?user=u1&item=i1&quota=poppy%3A3")
    assert "no source has the quota 'poppy'" in reader.text()


def test_a_visitor_without_events_is_explained(reader: Reader) -> None:
    reader.open("/why?item=i1")
    assert "a visitor without events" in reader.text()
    assert "no history to search with" in reader.text("[data-stage=sources]")
    assert not reader.all(".past")
    reader.check()
