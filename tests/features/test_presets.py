"""Presets of platforms and data sets, each on a small file in the real layout (tests/data)."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from conf.compose import compose_command
from conf.errors import InputError
from tests.features.conftest import Prepared, Shop

FILES = Path(__file__).parents[1] / "data"


@pytest.fixture
def preset(shop: Shop) -> Preset:
    return Preset(shop)


class Preset:
    """Prepares files of tests/data as the command line would."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    def __call__(self, name: str, *overrides: str) -> Prepared:
        config = compose_command("prepare", [f"data={name}", *overrides])
        return self.shop.prepare(config.data)


def test_hm(preset: Preset) -> None:
    folder = FILES / "hm"
    done = preset("hm", f"data.items={folder}/articles.csv", f"data.events={folder}/transactions_train.csv")
    assert done.table("events").select("user_id", "item_id", "event", "timestamp", "value").rows() == [
        ("00a1c5", "0110065001", "purchase", 1556755200, 0.0508305084745762),
        ("00a1c5", "0599580017", "purchase", 1556755200, 0.0305084745762711),
        ("17fe90", "0110065002", "purchase", 1556841600, 0.0508305084745762),
    ]
    assert done.table("items").select("item_id", "item_text").rows()[2] == (
        "0599580017",
        "Garden parasol. Product type: Other accessories. Product group: Accessories. Colour: Pink. "
        "Pattern: Stripe. Department: Home. Section: Home Outdoor",
    )
    assert done.info["rejects"] == {"items": {}, "events": {}}


EVENT = ("user_id", "item_id", "event", "timestamp")


def test_retailrocket(preset: Preset) -> None:
    folder = FILES / "retailrocket"
    parts = ",".join(
        f"{folder}/{name}.csv" for name in ("item_properties_part1", "item_properties_part2", "category_tree")
    )
    done = preset("retailrocket", f"data.items=[{parts}]", f"data.events={folder}/events.csv")
    assert done.table("items").select("item_id", "category", "available", "parent_category").rows() == [
        ("355908", "1338", "1", "1278"),  # the values of August and September, not those of June
        ("460429", "1016", None, "213"),
        ("248676", None, None, None),  # seen, never described
    ]
    assert done.table("events").select(*EVENT, "session_id").rows() == [
        ("12", "248676", "view", 1433223236, None),
        ("257597", "355908", "view", 1433221332, None),
        ("257597", "355908", "add_to_cart", 1433221999, None),
        ("257597", "355908", "purchase", 1433222276, "4000"),
    ]


def test_otto(preset: Preset) -> None:
    done = preset("otto", f"data.events={FILES}/otto/otto-recsys-train.jsonl")
    assert done.table("items").rows() == [("1517085", "1517085"), ("1563459", "1563459")]
    assert done.table("events").select(*EVENT).rows() == [
        ("0", "1517085", "click", 1659304800),
        ("0", "1563459", "add_to_cart", 1659304904),
        ("0", "1563459", "purchase", 1659305000),
        ("12", "1517085", "click", 1659367439),
    ]


def test_otto_with_a_row_per_event(preset: Preset) -> None:
    path = preset.shop.folder / "train.parquet"
    kinds = pl.Series([0, 1, 2], dtype=pl.Int8)
    pl.DataFrame(
        {"session": [5, 5, 5], "aid": [9, 8, 8], "ts": [100, 200, 300], "type": kinds}
    ).write_parquet(path)
    done = preset("otto", f"data.events={path}")
    assert done.table("events").select(*EVENT).rows() == [
        ("5", "9", "click", 100),
        ("5", "8", "add_to_cart", 200),
        ("5", "8", "purchase", 300),
    ]


def test_mind(preset: Preset) -> None:
    folder = FILES / "mind"
    done = preset("mind", f"data.items={folder}/news.tsv", f"data.events={folder}/behaviors.tsv")
    assert done.table("items")["item_text"].to_list() == [
        'The "best" brands for a Sunday. Subcategory: lifestyleroyals. Category: lifestyle. '
        "Abstract: Shop the notebooks, jackets, and more.",
        "50 worst habits for belly fat. Subcategory: weightloss. Category: health",
        "The cost of trenches. Subcategory: newsworld. Category: news. "
        "Abstract: Lt. Ivan Molchanets peeked over a parapet.",
    ]
    # 11/11/2019 9:05:58 AM is 1573463158; the two clicks of the history come before it, and only once
    assert done.table("events").select(*EVENT, "list_position").rows() == [
        ("U13740", "N55528", "click", 1573463158, None),
        ("U13740", "N19639", "click", 1573463158, None),
        ("U13740", "N61837", "click", 1573463158, 1),
        ("U13740", "N55528", "click", 1573714908, 1),
        ("U91836", "N61837", "click", 1573582290, 2),
    ]
    assert done.info["ignored_events"] == {"impression": 2}


def test_mind_wants_its_own_layout(preset: Preset) -> None:
    folder = FILES / "mind"
    with pytest.raises(InputError, match=r"data.items: .*behaviors.tsv: expected 8 fields .*, not 5"):
        preset("mind", f"data.items={folder}/behaviors.tsv", f"data.events={folder}/news.tsv")


def test_yoochoose(preset: Preset) -> None:
    folder = FILES / "yoochoose"
    done = preset("yoochoose", f"data.events=[{folder}/yoochoose-clicks.dat,{folder}/yoochoose-buys.dat]")
    assert done.table("items").select("item_id", "category", "brand", "price").rows() == [
        ("214536500", "5", None, 1046.0),  # S, a special offer, is no category
        ("214536502", None, None, None),
        ("214536506", None, "1034578012", None),
    ]
    assert done.table("events").select(*EVENT, "value", "quantity").rows() == [
        ("1", "214536502", "click", 1396867869, None, None),
        ("1", "214536500", "click", 1396868049, None, None),
        ("1", "214536500", "purchase", 1396868349, 1046.0, 1.0),
        ("2", "214536500", "click", 1396878997, None, None),
        ("2", "214536506", "click", 1396879039, None, None),
        ("2", "214536506", "purchase", 1396879320, None, None),
    ]


@pytest.mark.parametrize("name", ["retailrocket", "otto", "mind", "yoochoose"])
def test_a_preset_without_its_files_names_them(name: str, preset: Preset) -> None:
    with pytest.raises(InputError, match=rf"data.adapter={name}: set data\.(items|events)="):
        preset(name)
