"""The page about a product that does not exist, as a person uses it."""

from __future__ import annotations

from tests.browser.harness import Reader

BOOTS = "/new-product?a.title=summit+boots+compass+no900&a.brand=Acme&a.price=12.5"


def figures(reader: Reader) -> dict[str, str]:
    return dict(zip(reader.texts(".side .facts dt"), reader.texts(".side .facts dd"), strict=True))


def test_a_plausible_product_is_in_some_lists(reader: Reader) -> None:
    reader.open("/new-product")
    reader.one("textarea[name='a.title'], input[name='a.title']").send_keys("summit boots compass no900")
    reader.one("input[name='a.brand']").send_keys("Acme")
    reader.one("input[name='a.price']").send_keys("12.5")
    reader.submit("main form button")
    reader.wait(lambda: reader.all("mark"))
    shown = figures(reader)
    assert int(shown["In the first 50"].split()[0]) > 0
    assert shown["Best place"] != "none"
    assert shown["In a search for its words"] == "1"
    assert reader.texts("mark") == ["summit", "boots", "compass", "no900", "Acme"]
    assert reader.all("a[href^='/shopper?user=']")
    reader.check()
    reader.check_everywhere(BOOTS)


def test_other_words_move_it(reader: Reader) -> None:
    reader.open(BOOTS)
    reader.submit("a.button.quiet")
    field = reader.one("[name='b.title']")
    assert field.get_attribute("value") == "summit boots compass no900"
    field.clear()
    field.send_keys("skillet whisk ladle no900")
    reader.submit("main form button")
    reader.wait(lambda: reader.all("#moves"))
    moves = dict(zip(reader.texts("#moves ~ dl dt"), reader.texts("#moves ~ dl dd"), strict=True))
    assert sum(int(value) for value in moves.values()) > 0
    assert moves["Same place"] != str(sum(int(value) for value in moves.values()))
    rises = reader.texts("section[aria-labelledby=moves] tbody td:last-child")
    assert any(rise.startswith(("+", "-")) and rise != "+0" for rise in rises)
    reader.check()
    reader.check_everywhere(reader.path)


def test_a_word_taken_out_is_a_comparison(reader: Reader) -> None:
    reader.open(BOOTS)
    reader.wait(lambda: reader.all("mark"))
    reader.one(".side summary").click()
    reader.submit("a[aria-label='Compare with the text without boots']")
    reader.wait(lambda: reader.all("#moves"))
    assert "B: “summit compass no900. Brand: Acme”" in reader.texts("h2")


def test_a_product_without_text_is_refused_beside_the_form(reader: Reader) -> None:
    reader.open("/new-product?a.price=3")
    assert "no text to read; type a title or brand" in reader.text("[role=alert]")
    reader.check()
