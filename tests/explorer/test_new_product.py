"""The page about a product that does not exist, over HTTP."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import polars as pl
import pytest
from starlette.testclient import TestClient

from conf.schema import PipelineConfig
from explorer import studies
from explorer.app import create_app
from explorer.context import ExplorerContext
from explorer.loading import store_loader
from explorer.studies import KEPT, Study
from explorer.views import new_product
from explorer.views.new_product import address, compared, form_fields, shown_words, typed_in
from ranking.insight.new_product import NewProducts, Shopper, sample
from ranking.insight.product_words import Move, Piece, Standing, WordEffect, WordEffects
from tests.explorer.storefront.test_guard import until

TEXT = {"a.title": "summit boots compass no900", "a.brand": "Acme", "a.price": "12.5"}


class Reader:
    """Opens the page, and waits until all is worked out."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def get(self, **params: str) -> Any:
        found: list[Any] = []
        query = urlencode(params)

        def there() -> bool:
            found.append(self.client.get(f"/new-product?{query}"))
            return bool(found[-1].status_code != 202)

        until(there, 180)
        while 'id="progress"' in found[-1].text:
            answer = self.client.get(f"/new-product/progress?{query}")
            if answer.headers.get("hx-refresh") == "true":
                there()
        return found[-1]

    @property
    def model(self) -> Any:
        return self.client.app.state.context.model()  # type: ignore[attr-defined]

    @property
    def desk(self) -> Any:
        return self.client.app.state.desk  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def reader(trained: PipelineConfig) -> Reader:
    store = Path(trained.work_dir) / "artifacts"
    app = create_app(ExplorerContext(store=store, loader=store_loader(store, "cpu", 1)))
    return Reader(TestClient(app, base_url="http://127.0.0.1:8321"))


def figures(page: str) -> dict[str, str]:
    """The figures at the head of each text and of the comparison."""
    return dict(re.findall(r"<div><dt>([^<]+)</dt><dd>([^<]*?) ?(?:<small>.*?</small>)?</dd></div>", page))


def test_an_empty_page_asks_for_the_attributes_of_the_catalogue(reader: Reader) -> None:
    page = reader.get().text
    assert re.findall(r'name="(a\.\w+)"', page) == ["a.title", "a.brand", "a.price"]
    assert '<datalist id="a-brand"><option value="Acme"></option>' in page
    assert "Change words and compare" not in page


def test_it_is_counted_in_the_lists_that_the_engine_makes(reader: Reader) -> None:
    page = reader.get(**TEXT).text
    desk, model = reader.desk, reader.model
    products: NewProducts = desk.products
    shoppers = [Shopper(user, model.shoppers.history(user)) for user in sample(model.shoppers.ids, 500)]
    product = products.add({"title": "summit boots compass no900", "brand": "Acme", "price": 12.5})
    audience = product.audience(shoppers, 50)
    assert audience.places
    shown = figures(page)
    assert shown["In the first 10"] == str(audience.within(10))
    assert shown["In the first 50"] == str(audience.within(50))
    assert shown["Best place"] == str(audience.places[0].place)
    assert shown["In a search for its words"] == "1"
    best = re.findall(r'<a href="/shopper\?user=([^"]+)">', page)
    assert best == [place.user_id for place in audience.places[:20]]
    assert f"of {len(shoppers)} lists" in page


def test_every_word_is_coloured_and_can_be_taken_out(reader: Reader) -> None:
    page = reader.get(**TEXT).text
    words = re.findall(r'<mark class="w(-?\d)">([^<]+)</mark>', page)
    assert [word for _, word in words] == ["summit", "boots", "compass", "no900", "Acme"]
    assert max(abs(int(level)) for level, _ in words) == 3
    links = [html.unescape(link) for link in re.findall(r'<a href="([^"]+)" aria-label="Compare', page)]
    assert links[1] == address(
        {
            "a": {"title": "summit boots compass no900", "brand": "Acme", "price": "12.5"},
            "b": {"title": "summit compass no900", "brand": "Acme", "price": "12.5"},
        },
        500,
    )
    assert "b.brand" not in links[4]


def test_two_texts_are_compared_shopper_by_shopper(reader: Reader) -> None:
    other = {"b.title": "skillet whisk ladle no901", "b.brand": "Acme"}
    page = reader.get(**TEXT, **other).text
    a, b = (reader.desk.study(typed_in({**TEXT, **other}, name), 500) for name in ("a", "b"))
    places = [{place.user_id for place in study.audience.places} for study in (a, b)]
    shown = figures(page)
    assert int(shown["Lists gained"]) == len(places[1] - places[0])
    assert int(shown["Lists lost"]) == len(places[0] - places[1])
    both = sum(int(shown[name]) for name in ("Higher in the list", "Lower", "Same place"))
    assert both == len(places[0] & places[1])
    assert "A: “summit boots compass no900. Brand: Acme”" in page
    assert "B: “skillet whisk ladle no901. Brand: Acme”" in page


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"a.price": "3"}, "no text to read; type a title or brand"),
        ({"a.title": "<p></p>"}, "no text to read"),
        (
            {"a.title": "boots", "a.price": "cheap"},
            "price: &#39;cheap&#39; is not a number; type for example",
        ),
        ({"a.titel": "boots"}, "did you mean &#39;title&#39;"),
    ],
)
def test_what_cannot_be_added_is_said_beside_the_form(
    reader: Reader, typed: dict[str, str], said: str
) -> None:
    answer = reader.get(**typed)
    assert answer.status_code == 200
    assert said in answer.text
    assert "In the first 10" not in answer.text


def test_a_fault_of_one_text_leaves_the_other(reader: Reader) -> None:
    page = reader.get(**TEXT, **{"b.title": "x", "b.price": "cheap"}).text
    assert "is not a number" in page
    assert "In the first 10" in page
    assert "Lists gained" not in page


def test_a_product_in_no_list_says_how_far_it_was(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "DEPTH", 1)
    page = reader.get(**{"a.title": "skillet rose crib", "n": "40"}).text
    study = reader.desk.study({"title": "skillet rose crib"}, 40)
    assert study.audience.places == ()
    whole = study.words.whole
    assert whole.best is None or whole.best > 1
    text = re.sub(r"\s+", " ", page)
    assert f"Of the {study.words.shoppers} who chose most of the nearest products, it is" in text
    said = f"for {whole.proposed}, at place {whole.best} at best" if whole.proposed else "for none"
    assert said in text


def test_html_scripts_and_long_texts_are_text(reader: Reader) -> None:
    page = reader.get(**{"a.title": "<script>alert(1)</script><b>trail</b> boots & more", "n": "100"}).text
    assert "“trail boots &amp; more”" in page
    assert "<script>alert" not in page
    long = reader.get(**{"a.title": "boots " * 800, "n": "100"}).text
    assert "The encoder reads the first 16" in long
    assert len(re.findall("<mark", long)) <= 24
    foreign = reader.get(**{"a.title": "ハイキング ブーツ", "n": "100"}).text
    assert "are unknown to the encoder" in foreign


def test_a_single_word_has_nothing_to_take_out(reader: Reader) -> None:
    assert "there is nothing to take out" in reader.get(**{"a.title": "boots", "n": "100"}).text


@pytest.mark.parametrize("size", ["0", "x", "2001", "-1", "1e3"])
def test_a_wrong_number_of_shoppers_is_a_readable_error(reader: Reader, size: str) -> None:
    answer = reader.get(n=size)
    assert answer.status_code == 400
    assert "is not a number from 1 to 2000" in answer.text


def test_work_goes_on_in_slices_and_is_kept(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_product, "PATIENCE", 0.0)
    monkeypatch.setattr(new_product, "SLICE", 0.0)
    typed = {"a.title": "guitar drum strings"}
    first = reader.client.get(f"/new-product?{urlencode(typed)}").text
    assert re.search(r'hx-get="/new-product/progress\?a\.title=guitar\+drum\+strings"', first)
    assert "Nearest products" in first
    assert "In the first 10" not in first
    study = reader.desk.study({"title": "guitar drum strings"}, 500)
    part = reader.client.get(f"/new-product/progress?{urlencode(typed)}").text
    assert re.search(r"Making lists: \d+ of \d+", part)
    page = reader.get(**typed).text
    assert "In the first 10" in page
    assert reader.desk.study({"title": "guitar drum strings"}, 500) is study
    assert study.finished


def test_studies_beyond_the_limit_are_dropped(reader: Reader) -> None:
    reader.get(**{"a.title": "first", "n": "1"})
    first = reader.desk.study({"title": "first"}, 1)
    for number in range(KEPT):
        reader.desk.study({"title": f"boots {number}"}, 1)
    assert reader.desk.study({"title": "first"}, 1) is not first


def test_another_version_gets_another_copy(reader: Reader) -> None:
    reader.get(**TEXT)
    before = reader.desk
    before.version = "another"
    reader.get(**TEXT)
    assert reader.desk is not before
    assert reader.desk.version == reader.model.version


def test_a_study_without_shoppers_has_no_audience(reader: Reader) -> None:
    reader.get(**TEXT)
    study = Study(reader.desk.products, [], {"title": "trail boots"})
    while not study.finished:
        study.work(0.0)
    assert study.audience is not None
    assert study.audience.places == ()
    assert study.words is not None
    assert study.words.whole == Standing(0.0, 0, 0.0)


def test_effects_are_levels_beside_the_strongest() -> None:
    def effect(text: str, score: float) -> WordEffect:
        return WordEffect(Piece("title", text, "rest"), score, 0, 0.0)

    effects = WordEffects(Standing(0.0, 0, 0.0), (effect("a", 3.0), effect("b", -1.1), effect("c", 0.2)), 5)
    shown = shown_words(effects, "a", {"a": {"title": "a b c"}, "b": {}}, 100)
    assert [word.level for word in shown] == [3, -1, 0]
    assert shown[0].without == "/new-product?a.title=a+b+c&b.title=rest&n=100"


def test_a_comparison_counts_gains_losses_and_directions() -> None:
    moved = [Move("a", None, 3), Move("b", 9, None), Move("c", 5, 2), Move("d", 2, 5), Move("e", 4, 4)]
    assert compared(moved) == {"gained": 1, "lost": 1, "higher": 1, "lower": 1, "equal": 1}


def test_the_form_has_the_text_first_then_price_then_others(reader: Reader) -> None:
    reader.get()
    fields = form_fields(reader.model)
    assert [(field.name, field.text) for field in fields] == [
        ("title", True), ("brand", True), ("price", False),
    ]  # fmt: skip
    brands = reader.model.bundle.catalogue.frame["brand"].unique().sort()
    assert fields[1].values == tuple(brands.to_list())
    assert new_product._values(pl.Series([True, None])) == ("true", "false")
