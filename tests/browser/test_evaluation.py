from __future__ import annotations

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from tests.browser.harness import Reader


def test_the_evaluation_is_accessible_in_every_scheme_and_draws_its_charts(reader: Reader) -> None:
    reader.check_everywhere("/evaluation")
    canvases = reader.all("canvas[data-chart]")
    assert len(canvases) >= 3
    for canvas in canvases:
        drawn = reader.driver.execute_script(
            "return arguments[0].getContext('2d').getImageData(0, 0, arguments[0].width, arguments[0].height)"
            ".data.some(value => value !== 0)",
            canvas,
        )
        assert drawn, canvas.get_attribute("aria-label")
    assert "shelfwise beside " in reader.text()


def test_another_part_and_another_system_are_another_address_and_other_numbers(reader: Reader) -> None:
    reader.open("/evaluation")
    before = reader.text(".figures")
    Select(reader.one("select[name=b]")).select_by_visible_text("popularity")
    Select(reader.one("select[name=slice]")).select_by_value("tail_items")
    reader.submit("form button")
    assert "slice=tail_items" in reader.path
    assert "b=popularity" in reader.path
    assert reader.text("#two") == "shelfwise beside popularity: tail items"
    after = reader.text(".figures")
    assert after != before
    reader.open(reader.path)
    assert reader.text(".figures") == after, "an address shows the same page again"


def test_a_worst_shopper_leads_to_the_shopper_s_list(reader: Reader) -> None:
    reader.open("/evaluation")
    link = reader.one("section[aria-labelledby=worst] tbody a")
    user = link.text
    reader.submit("section[aria-labelledby=worst] tbody a")
    assert reader.text("h1") == f"Shopper {user}"


def test_the_form_works_by_keyboard(reader: Reader) -> None:
    reader.open("/evaluation")
    Select(reader.one("select[name=metric]"))
    field = reader.one("select[name=metric]")
    field.send_keys("mrr")
    field.send_keys(Keys.TAB)
    assert reader.focused.tag_name == "button"
    before = reader.one("html")
    reader.press(Keys.ENTER)
    reader.wait(lambda: reader.one("html") != before)
    assert "metric=mrr" in reader.path


def test_every_chart_has_a_table_with_its_numbers(reader: Reader) -> None:
    reader.open("/evaluation")
    for section in reader.all("main section"):
        if section.find_elements(By.TAG_NAME, "canvas"):
            assert section.find_elements(By.TAG_NAME, "table"), section.text[:40]
