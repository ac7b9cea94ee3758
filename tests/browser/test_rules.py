from __future__ import annotations

from urllib.parse import urlencode

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from tests.browser.harness import Reader
from tests.browser.test_frame import NOT_FOUND

RULES = urlencode({"diversity": "0.4", "pin_item": "i7", "pin_position": "1"})
REFUSED = "the server responded with a status of 400"


def measured(reader: Reader) -> dict[str, list[str]]:
    """Return the rows of the table of costs by measure, once it is there."""
    reader.wait(lambda: reader.all("#cost table"))
    rows = [row.find_elements(By.TAG_NAME, "td") for row in reader.all("#cost tbody tr")]
    return {cells[0].text.splitlines()[0]: [cell.text for cell in cells[1:]] for cells in rows}


def test_rules_are_right_on_desk_and_phone_with_their_cost(reader: Reader) -> None:
    reader.open(f"/rules?{RULES}")
    table = measured(reader)
    names = ("Recall@10", "ndcg@10", "Popularity lift", "New items", "Coverage")
    assert [name for name in names if any(row.startswith(name) for row in table)] == list(names)
    reader.check_everywhere(f"/rules?{RULES}")
    reader.check_everywhere(f"/rules/cost?{RULES}")


def test_the_form_is_filled_in_by_keyboard_and_the_lists_obey(reader: Reader) -> None:
    reader.open("/rules")
    assert "Nothing is set" in reader.text()
    slider = reader.one("input[name=diversity]")
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert slider.find_element(By.XPATH, "..").find_element(By.TAG_NAME, "output").text == "0.1"
    Select(reader.one("select[name=cap_attribute]")).select_by_visible_text("brand")
    reader.one("input[name=cap_max]").send_keys("1")
    reader.one("input[name=pin_item]").send_keys("i7")
    reader.one("input[name=pin_position]").send_keys("1")
    reader.submit("#rules button")
    assert "cap_attribute=brand" in reader.path
    assert "diversity=0.1" in reader.path
    firsts = reader.texts(".halves > div:nth-child(2) .places li:first-child")
    assert len(firsts) >= 3
    assert all("pinned" in text for text in firsts)
    assert "max_items: 1" in reader.text("pre")
    measured(reader)
    reader.check()


def test_a_wrong_filter_is_explained_and_kept(reader: Reader) -> None:
    query = urlencode({"boost_filter": "prise < 3", "boost_strength": "0.2"})
    reader.check_everywhere(f"/rules?{query}", allow=[REFUSED])
    assert "unknown attribute 'prise'" in reader.text("[role=alert]")
    assert reader.one("input[name=boost_filter]").get_attribute("value") == "prise < 3"


def test_an_unknown_shopper_is_readable(reader: Reader) -> None:
    reader.check_everywhere("/rules?user=nobody", allow=[NOT_FOUND])
