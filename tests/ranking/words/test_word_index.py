"""The words and names of a catalogue, as it is published and as it changes, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conf.errors import InputError
from features.data.dataset import Catalogue
from features.text.item_text import TextTemplate, render_text
from ranking.words.item_words import IDENTIFIED, TITLED, VALUED, WRITTEN, ItemReader
from ranking.words.live_words import LiveWords
from ranking.words.word_index import K1, NAMES, B, WordIndex

TEMPLATE = TextTemplate(("title", "brand"))
ITEMS = [
    ("a-1", "Oat milk", "Acme"),
    ("a-2", "Milk", "Müller"),
    ("a-3", "Whole milk 2 l", "Acme"),
    ("a-4", "Crème brûlée", None),
    ("a-5", None, None),  # its id stands for its text
    ("a-6", "a-2", None),  # a title that is another item's id
]


def catalogue_of(items: list[tuple[str, str | None, str | None]]) -> Catalogue:
    frame = pl.DataFrame(items, schema=["item_id", "title", "brand"], orient="row")
    return Catalogue(frame.with_columns(render_text(frame, TEMPLATE)))


@pytest.fixture(scope="module")
def index() -> WordIndex:
    return WordIndex.build(catalogue_of(ITEMS), TEMPLATE)


@pytest.fixture
def live(index: WordIndex) -> LiveWords:
    return LiveWords(index)


def put(live: LiveWords, row: int, item_id: str, title: str | None, brand: str | None = None) -> None:
    made = catalogue_of([(item_id, title, brand)])
    live.put([(row, ItemReader(TEMPLATE, ["title", "brand"]).item(item_id, made.texts[0], title))])


def weight(frequency: int) -> float:
    return float(np.log1p((len(ITEMS) - frequency + 0.5) / (frequency + 0.5)))


def share(live: LiveWords, text: str) -> dict[int, float]:
    heard = live.find(text)
    assert heard.rows.tolist() == sorted(set(heard.rows.tolist()))
    return dict(zip(heard.rows.tolist(), heard.shares.tolist(), strict=True))


def named(live: LiveWords, text: str) -> dict[int, int]:
    heard = live.find(text)
    return dict(zip(heard.named.tolist(), heard.levels.tolist(), strict=True))


def test_an_item_is_read_without_labels_and_its_title_counts_twice() -> None:
    reader = ItemReader(TEMPLATE, ["title", "brand"])
    item = reader.item("a-1", "Oat milk. Brand: Acme", "Oat milk")
    assert item.words == ["oat", "milk", "acme", "oat", "milk"]
    # The brand; the title, which is a value, too, and the text; the id.
    assert sorted(item.names.values()) == [VALUED, TITLED, TITLED, WRITTEN, WRITTEN, IDENTIFIED]


def test_without_a_title_column_the_first_field_is_the_title() -> None:
    reader = ItemReader(TextTemplate(("kind", "brand")), ["kind", "brand"])
    assert reader.column is None
    assert reader.title == "kind"
    assert reader.item("x", "Oat milk. Brand: Acme", "Oat milk").words.count("oat") == 2


@pytest.mark.parametrize(
    ("column", "titles"),
    [
        (pl.Series(["Oat &amp; <b>milk</b>", None]), [["oat", "milk"], []]),
        (pl.Series([9783, None]), [["9783"], []]),
        (pl.Series([["oat", "milk"], None]), [[], []]),
        (pl.Series([1.5, None]), [[], []]),
        (pl.Series([True, None]), [[], []]),
    ],
)
def test_titles_of_a_bundle_and_of_later_items_are_read_alike(
    column: pl.Series, titles: list[list[str]]
) -> None:
    texts = ["Tea", "Tea"]
    frame = pl.DataFrame({"item_id": ["a", "b"], "item_text": texts, "title": column})
    reader = ItemReader(TextTemplate(("kind",)), ["title"])
    assert [item.words[1:] for item in reader.catalogue(Catalogue(frame))] == titles
    for row in range(2):
        assert reader.item(frame["item_id"][row], "Tea", frame.row(row)[2]).words[1:] == titles[row]


@pytest.mark.parametrize("title", [None, "a-5", ""])
def test_a_text_that_is_only_the_id_has_no_words(title: str | None) -> None:
    item = ItemReader(TEMPLATE, ["title", "brand"]).item("a-5", "a-5", title)
    assert item.words == []
    assert list(item.names.values()) == [IDENTIFIED]


def test_shares_are_bm25_over_what_the_words_tell_at_most(live: LiveWords) -> None:
    # Words: oat milk acme oat milk, milk muller milk, whole milk 2 l acme twice but acme, creme brulee twice,
    # none, and a-2 twice: a, 2, a, 2.
    lengths = np.array([5, 3, 9, 4, 0, 4])
    usual = 1 - B + B * lengths / lengths.mean()
    found = share(live, "Oats milk")
    most = weight(1) + weight(3)
    both = (weight(1) + weight(3)) * 2 / (2 + K1 * usual[0])
    assert found.keys() == {0, 1, 2}
    assert found[0] == pytest.approx(both / most, rel=1e-5)
    assert found[1] == pytest.approx(weight(3) * 2 / (2 + K1 * usual[1]) / most, rel=1e-5)
    assert found[2] == pytest.approx(weight(3) * 2 / (2 + K1 * usual[2]) / most, rel=1e-5)


def test_words_that_no_item_has_lower_all_shares_alike(live: LiveWords) -> None:
    most = weight(3)
    ratio = {row: value / share(live, "milk")[row] for row, value in share(live, "milk zzz").items()}
    assert list(ratio.values()) == pytest.approx([most / (most + weight(0))] * 3, rel=1e-5)


def test_accents_case_and_plural_do_not_matter(live: LiveWords) -> None:
    assert share(live, "CREME brulees") == share(live, "crème brûlée") != {}
    assert share(live, "müller").keys() == share(live, "MULLER").keys() == {1}


def test_labels_and_ids_are_no_words(live: LiveWords) -> None:
    assert share(live, "brand") == {}
    assert share(live, "a-5") == {}


def test_the_beginning_of_a_last_word_finds_it(live: LiveWords) -> None:
    assert share(live, "who").keys() == {2}
    assert share(live, "milk bru").keys() == {0, 1, 2, 3}
    assert share(live, "wh") == {}
    assert share(live, "bru milk").keys() == {0, 1, 2}
    assert 0 < share(live, "who")[2] < share(live, "whole")[2]


def test_titles_texts_and_ids_name_their_items(live: LiveWords) -> None:
    assert named(live, "oat MILK!") == {0: TITLED}
    assert named(live, " oat  MILK ") == {0: WRITTEN}
    assert named(live, "Oat milk. Brand: Acme") == {0: WRITTEN}
    assert named(live, "Oat milk - brand Acme") == {0: TITLED}
    assert named(live, "creme BRULEE") == {3: TITLED}
    assert named(live, "CRÈME brûlée") == {3: WRITTEN}
    assert named(live, "A-5") == {4: IDENTIFIED}
    assert named(live, "a-2") == {1: IDENTIFIED, 5: WRITTEN}
    assert named(live, "a 2") == {5: TITLED}
    assert named(live, "milk oat") == {} == named(live, "...")


def test_values_of_fields_name_their_items(live: LiveWords) -> None:
    assert named(live, "ACME") == {0: VALUED, 2: VALUED}
    assert named(live, "muller") == {1: VALUED}
    put(live, 0, "a-1", "Acme", "Acme")
    put(live, 6, "a-7", "Tea", "Acme")
    assert named(live, "acme") == {0: WRITTEN, 2: VALUED, 6: VALUED}
    put(live, 6, "acme", "Tea", "Acme")
    assert named(live, "acme")[6] == IDENTIFIED


def test_changed_and_new_items_count_as_if_they_had_been_there(live: LiveWords) -> None:
    put(live, 1, "a-2", "Kombucha ginger lemon", "Acme")
    put(live, 6, "a-7", "Oat milk", "Acme")
    assert share(live, "milk").keys() == {0, 2, 6}
    assert share(live, "oat milk")[6] == pytest.approx(share(live, "oat milk")[0], rel=1e-5)
    assert share(live, "kombuch").keys() == share(live, "kombucha").keys() == {1}
    assert named(live, "Milk") == {}
    assert named(live, "kombucha ginger lemon") == {1: WRITTEN}
    assert named(live, "oat milk") == {0: WRITTEN, 6: WRITTEN}
    assert named(live, "a-2") == {1: IDENTIFIED, 5: WRITTEN}
    put(live, 6, "a-7", "Tea")
    put(live, 1, "a-2", "Milk", "Müller")
    assert share(live, "oat milk").keys() == {0, 1, 2}
    assert share(live, "kombucha") == {}
    assert named(live, "oat milk") == {0: WRITTEN}
    assert named(live, "milk") == {1: WRITTEN}


def test_who_says_nothing_is_known(live: LiveWords) -> None:
    assert live.silent.tolist() == [4]
    put(live, 4, "a-5", "Tea")
    put(live, 6, "a-7", None)
    assert live.silent.tolist() == [6]


def test_an_index_is_the_same_when_it_is_read_again(index: WordIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "words")
    loaded = WordIndex.load(tmp_path / "words")
    assert (len(loaded), loaded.average, loaded.vocabulary) == (len(ITEMS), index.average, index.vocabulary)
    for text in ("oat milk", "acme 2", "creme", "a-2", "who"):
        before, after = LiveWords(index).find(text), LiveWords(loaded).find(text)
        assert before.rows.tolist() == after.rows.tolist()
        assert before.shares.tolist() == after.shares.tolist()
        assert (before.named.tolist(), before.levels.tolist()) == (
            after.named.tolist(),
            after.levels.tolist(),
        )
    again = tmp_path / "again"
    WordIndex.build(catalogue_of(ITEMS), TEMPLATE).save(again)
    for file in (tmp_path / "words").iterdir():
        assert file.read_bytes() == (again / file.name).read_bytes(), (
            "a version's name is a hash of its files"
        )


@pytest.mark.parametrize("name", [NAMES, "vocab.index.json", "indptr.csc.index.npy", "data.csc.index.npy"])
def test_an_index_that_cannot_be_read_says_so(index: WordIndex, tmp_path: Path, name: str) -> None:
    index.save(tmp_path)
    (tmp_path / name).write_bytes(b"{")
    with pytest.raises(InputError, match="not an index of words; roll back or publish again"):
        WordIndex.load(tmp_path)


def test_a_catalogue_without_a_word_has_an_index_too() -> None:
    live = LiveWords(WordIndex.build(catalogue_of([("a", None, None), ("b", None, None)]), TEMPLATE))
    assert share(live, "milk") == {}
    assert named(live, "b") == {1: IDENTIFIED}
    put(live, 2, "c", "Milk")
    assert share(live, "milk").keys() == {2}
