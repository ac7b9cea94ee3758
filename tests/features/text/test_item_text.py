from __future__ import annotations

import time
from collections.abc import Mapping

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import InputError
from features.text.item_text import (
    TextTemplate,
    has_text,
    join_parts,
    label,
    render_catalogue,
    render_parts,
    render_rows,
    render_text,
)


def render_one(fields: Mapping[str, object], template: TextTemplate) -> str:
    return render_rows([fields], template)[0]


TEMPLATE = TextTemplate(("title", "brand", "tags", "size"), ("colour",), 1000)
FRAME = pl.DataFrame(
    {
        "item_id": ["1", "2", "3", "4", "5"],
        "title": ["Rubber boots", None, "  ", "Wow!", None],
        "brand": ["Acme", "Acme", None, "B.", " \n"],
        "tags": [["red", None, "dry"], None, [], ["x"], None],
        "size": [17.0, float("nan"), None, 2.5, None],
        "colour": ["green", "blue", "grey", None, None],
    }
)


def _clean(text: str) -> str:
    return render_one({"item_id": "id", "title": text}, TextTemplate(("title",)))


def test_fields_are_labelled_but_the_first_and_missing_ones_left_out() -> None:
    assert render_text(FRAME, TEMPLATE).to_list() == [
        "Rubber boots. Brand: Acme. Tags: red, dry. Size: 17",
        "Brand: Acme",
        "Colour: grey",
        "Wow! Brand: B. Tags: x. Size: 2.5",
        "5",
    ]


def test_items_without_their_text_fields_are_told() -> None:
    assert render_catalogue(FRAME, TEMPLATE)[1].to_list() == [True, True, False, True, False]


def test_parts_join_to_the_same_text() -> None:
    parts = render_parts(FRAME, TEMPLATE).to_list()
    assert parts[0] == ["Rubber boots", "Brand: Acme", "Tags: red, dry", "Size: 17"]
    assert parts[4] == ["5"]
    assert [join_parts(p, TEMPLATE.max_chars) for p in parts] == render_text(FRAME, TEMPLATE).to_list()


def test_a_field_that_the_table_lacks_is_a_missing_field() -> None:
    assert render_text(FRAME.drop("brand", "tags", "size", "colour"), TEMPLATE).to_list()[:2] == [
        "Rubber boots",
        "2",
    ]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("a&nbsp;b &amp; c", "a b & c"),
        ("R&amp;amp;D", "R&D"),
        ("AT&T, R&D, S&paradise; &unknown;", "AT&T, R&D, S&paradise; &unknown;"),
        ("&lt;b&gt;Bold&lt;/b&gt; caf&#233; &#x2714;", "Bold café ✔"),
        ("<p>One</p><p>Two<br/>Three</p>", "One Two Three"),
        ("H<sub>2</sub>O <B class='x'>pure</B>", "H2O pure"),
        ("3 < 5 > 2 and <3", "3 < 5 > 2 and <3"),
        ("x<script>alert('<b>')</script>y<!-- hidden -->z<style>p{}</style>", "x y z"),
        ("tab\tnew\nline\x00\x07end  ", "tab new line end"),
        ("zero\u200bwidth soft\u00adhyphen\ufeff", "zerowidth softhyphen"),
        ("cafe\u0301", "café"),
        ("\u3000wide\u2003space\u00a0", "wide space"),
    ],
)
def test_cleaning(raw: str, clean: str) -> None:
    assert _clean(raw) == clean


def test_long_texts_end_at_a_word() -> None:
    def cut(text: str, limit: int) -> str:
        return render_one({"item_id": "1", "title": text}, TextTemplate(("title",), (), limit))

    assert cut("red rubber boots", 16) == "red rubber boots"
    assert cut("red rubber boots", 15) == "red rubber"
    assert cut("red rubber boots", 10) == "red rubber"
    assert cut("red rubber boots", 9) == "red"
    assert cut("rubberboots", 6) == "rubber"
    assert cut("äöü äöü", 5) == "äöü"


def test_labels_read_like_words() -> None:
    assert [label(n) for n in ("product_type", "productType", "BRAND", "pack-size")] == [
        "Product type",
        "Product type",
        "Brand",
        "Pack size",
    ]


_VALUE = st.one_of(
    st.none(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.sampled_from(["<b>Acme</b> &amp; Co.", "a. ", "…", "x\x1fy", "<", "&lt;p&gt;"]),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            _VALUE,
            _VALUE,
            st.one_of(st.none(), st.lists(_VALUE, max_size=3)),
            st.one_of(st.none(), st.floats()),
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 60),
)
def test_one_item_many_items_and_parts_agree(rows: list[tuple[object, ...]], limit: int) -> None:
    template = TextTemplate(("title", "tags", "size"), ("brand",), limit)
    records = [
        {"item_id": str(i), "title": t, "brand": b, "tags": g, "size": s}
        for i, (t, b, g, s) in enumerate(rows)
    ]
    types: dict[str, pl.DataType | type[pl.DataType]] = {
        "item_id": pl.String,
        "title": pl.String,
        "brand": pl.String,
        "tags": pl.List(pl.String),
        "size": pl.Float64,
    }
    frame = pl.DataFrame(records, schema=types)
    texts = render_text(frame, template).to_list()
    assert [render_one(record, template) for record in records] == texts
    assert render_rows(records, template) == texts
    assert [join_parts(parts, limit) for parts in render_parts(frame, template).to_list()] == texts
    assert all(0 < len(text) <= max(limit, 1) for text in texts)
    assert not any(c < " " for text in texts for c in text)


def test_raw_values_of_every_plain_type() -> None:
    fields = {"item_id": "1", "title": 7, "brand": True, "tags": ("a", 2, None), "size": 1e-7}
    assert render_one(fields, TEMPLATE) == "7. Brand: true. Tags: a, 2. Size: 1e-7"
    assert render_one({}, TEMPLATE) == ""
    assert render_one({"title": "lone \ud800 surrogate"}, TEMPLATE) == "lone ? surrogate"
    with pytest.raises(InputError, match="item field 'title': expected text, .* got dict"):
        render_one({"title": {"en": "x"}}, TEMPLATE)


@pytest.mark.parametrize("unit", ["<p>a &amp; ", "<", "<!--", "<script>", "<a ", "&", "  \n", "a"])
def test_a_megabyte_of_anything_is_fast(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    start = time.process_time()
    assert len(_clean(text)) <= 1000
    assert time.process_time() - start < 3.0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"title": "Boots"}, True),
        ({"brand": "&amp;"}, True),
        ({"size": 7}, True),
        ({"tags": ["", "new"]}, True),
        ({}, False),
        ({"item_id": "sku-1", "price": 3.0}, False),
        ({"title": None, "brand": " \t", "tags": []}, False),
        ({"title": "<b>&nbsp;</b>", "brand": "<!-- x -->"}, False),
        ({"size": float("nan")}, False),
    ],
)
def test_an_item_has_text_where_more_than_its_id_is_left(fields: dict[str, object], expected: bool) -> None:
    assert has_text(fields, TEMPLATE) is expected
    assert (render_one({**fields, "item_id": ""}, TEMPLATE) != "") is expected
    assert has_text(fields, TextTemplate((), ()))  # a model that reads nothing asks for nothing


def test_the_template_comes_back_from_the_manifest() -> None:
    info = {"text_fields": ["title"], "text_fallback_fields": ["brand"], "max_text_chars": 9}
    assert TextTemplate.from_info(info) == TextTemplate(("title",), ("brand",), 9)
