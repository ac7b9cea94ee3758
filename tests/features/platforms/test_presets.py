"""Presets of platforms and data sets, each on a small file in the real layout (tests/data)."""

from __future__ import annotations

import zipfile
from pathlib import Path

import polars as pl
import pytest

from conf.composition.compose import compose_command
from conf.errors import InputError
from tests.features.conftest import Prepared, Shop

FILES = Path(__file__).parents[2] / "data"


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


def test_shopify(preset: Preset) -> None:
    folder = FILES / "shopify"
    done = preset(
        "shopify", f"data.items={folder}/products_export.csv", f"data.events={folder}/orders_export.csv"
    )
    items = done.table("items")
    assert items.select("item_id", "product", "title", "options", "price", "inventory").rows() == [
        ("LS-WHT-M", "linen-shirt", "Linen shirt", "Colour: White, Size: M", 59.0, 12),
        ("LS-WHT-L", "linen-shirt", "Linen shirt", "Colour: White, Size: L", 59.0, 3),
        ("LS-NVY-M", "linen-shirt", "Linen shirt", "Colour: Navy, Size: M", 62.0, 0),
        ("rain-hat", "rain-hat", "Rain hat", None, 19.0, None),  # without a SKU
    ]
    assert items["item_text"][2] == (
        "Linen shirt. Brand: Borealis. Product type: Shirts. Options: Colour: Navy, Size: M. "
        "Category: Apparel & Accessories > Clothing > Shirts & Tops. Tags: linen, summer. "
        "Description: Airy, with a chest pocket. Wash at 30°."
    )
    assert items["image"].to_list() == [
        "https://cdn.example.org/shirt-white.jpg",
        "https://cdn.example.org/shirt-white.jpg",
        "https://cdn.example.org/shirt-1.jpg",
        "https://cdn.example.org/hat.jpg",
    ]
    # 10:14 at +02:00 is 08:14 UTC, 1714724040; Ben bought at the till and has a telephone number alone
    assert done.table("events").select(*EVENT, "quantity", "value", "session_id").rows() == [
        ("+491701234567", "LS-NVY-M", "purchase", 1714665600, 1.0, 62.0, "#1002"),
        ("ada@example.com", "LS-WHT-L", "purchase", 1714456800, 1.0, 59.0, "#1000"),
        ("ada@example.com", "LS-WHT-M", "purchase", 1714724040, 2.0, 59.0, "#1003"),
        ("ada@example.com", "rain-hat", "purchase", 1714724040, 1.0, 19.0, "#1003"),
    ]
    assert done.info["adapter_dropped"] == {
        "row of a product that holds another picture": 1,
        "line of a cancelled order": 1,
    }
    assert done.info["rejects"] == {"items": {}, "events": {}}


def test_shopify_in_the_layout_of_today(preset: Preset) -> None:
    done = preset("shopify", f"data.items={FILES}/shopify/products_export_new.csv")
    assert done.table("items").select("item_id", "title", "options", "status", "published").rows() == [
        ("LS-WHT-M", "Linen shirt", "Size: M", "active", True),
        ("LS-WHT-L", "Linen shirt", "Size: L", "active", True),
    ]


def test_shopify_variants_without_skus_are_known_by_their_options(preset: Preset) -> None:
    shop = preset.shop
    items = shop.write(
        "products.csv",
        "Handle,Title,Option1 Name,Option1 Value,Variant SKU,Variant Price\ntee,Tee,Size,S,,9\ntee,,,M,,9\n",
    )
    orders = shop.write(
        "orders.csv",
        "Name,Email,Created at,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku\n"
        "#1,a@example.com,2024-05-01 10:00:00 +0000,1,Tee - M,9,\n"
        "#2,b@example.com,2024-05-01 11:00:00 +0000,1,Tee - S,9,\n",
    )
    done = preset("shopify", f"data.items={items}", f"data.events={orders}")
    assert done.table("items")["item_id"].to_list() == ["tee/S", "tee/M"]
    assert done.table("events").select("user_id", "item_id").rows() == [
        ("a@example.com", "tee/M"),
        ("b@example.com", "tee/S"),
    ]


def test_a_setting_overrides_what_a_preset_chooses(preset: Preset) -> None:
    folder = FILES / "shopify"
    done = preset(
        "shopify",
        f"data.items={folder}/products_export.csv",
        f"data.events={folder}/orders_export.csv",
        "data.columns={events.user_id: Id, items.grams: Variant Grams}",
        "data.max_reject_fraction=0.5",
    )
    assert set(done.table("events")["user_id"]) == {"5550000000", "5550000002", "5550000003"}
    # an order's id stands in its first row alone
    assert done.info["rejects"]["events"] == {"missing user_id": 1}
    assert done.table("items")["grams"].to_list() == ["200", "210", "200", "90"]


def test_a_file_that_is_no_such_export_is_refused(preset: Preset) -> None:
    items = preset.shop.write("items.csv", "item_id,title\n1,Boots\n")
    with pytest.raises(InputError, match=r"no column 'Handle', so it is no products export of Shopify"):
        preset("shopify", f"data.items={items}")
    with pytest.raises(InputError, match=r"no column 'Name', so it is no products export of WooCommerce"):
        preset("woocommerce", f"data.items={items}")
    with pytest.raises(InputError, match=r"no column 'event_name', so it is no BigQuery export of GA4"):
        preset("ga4", f"data.events={items}")


def test_woocommerce(preset: Preset) -> None:
    folder = FILES / "woocommerce"
    done = preset(
        "woocommerce", f"data.items={folder}/wc-product-export.csv", f"data.events={folder}/orders.csv"
    )
    items = done.table("items")
    assert items.select("item_id", "product", "title", "price", "in_stock").rows() == [
        ("55", "55", "Beanie", 18.0, False),  # without a SKU, at its sale price
        ("hoodie-blue", "hoodie", "Hoodie - Blue", 45.0, True),
        ("hoodie-green", "hoodie", "Hoodie - Green", 47.0, True),
        ("mug", "mug", "Mug", 9.0, True),  # its variation has no SKU, but a price
    ]
    assert items["item_text"][2] == (
        "Hoodie - Green. Brand: Borealis. Categories: Clothing > Hoodies, Sale. Attributes: Color: Green. "
        "Tags: warm, winter. Short description: A warm hoodie. Description: Brushed & heavy."
    )
    assert done.table("events").select(*EVENT, "quantity", "session_id").rows() == [
        ("ada@example.com", "hoodie-blue", "purchase", 1709289000, 1.0, "701"),
        ("ada@example.com", "55", "purchase", 1709289000, 1.0, "701"),
        ("ben@example.com", "mug", "purchase", 1709377200, 2.0, "702"),
    ]
    assert done.info["adapter_dropped"] == {
        "variation without a SKU: its product stands for it": 1,
        "variable product: its variations stand for it": 1,
        "line of a cancelled or unpaid order": 1,
    }


def test_woocommerce_orders_of_analytics_list_their_products(preset: Preset) -> None:
    folder = FILES / "woocommerce"
    done = preset(
        "woocommerce",
        f"data.items={folder}/wc-product-export.csv",
        f"data.events={folder}/analytics-orders.csv",
    )
    assert done.table("events").select(*EVENT, "quantity").rows() == [
        ("ada example", "hoodie-blue", "purchase", 1709289011, 1.0),
        ("ada example", "55", "purchase", 1709289011, 2.0),
    ]


def test_woocommerce_lines_may_name_the_number_of_a_product(preset: Preset) -> None:
    orders = preset.shop.write(
        "orders.csv",
        "order_id,status,date,billing_email,item_sku,item_product_id,item_name,item_quantity,item_total\n"
        "9,completed,2024-03-01 10:30:00,a@example.com,,80,Renamed,1,45\n",
    )
    items = FILES / "woocommerce" / "wc-product-export.csv"
    done = preset("woocommerce", f"data.items={items}", f"data.events={orders}")
    assert done.table("events")["item_id"].to_list() == ["hoodie-blue"]


def test_magento(preset: Preset) -> None:
    folder = FILES / "magento"
    done = preset(
        "magento", f"data.items={folder}/catalog_product.csv", f"data.events={folder}/order_lines.csv"
    )
    items = done.table("items")
    assert items.select("item_id", "product", "title", "price", "in_stock", "image").rows() == [
        ("TEE-M", "TEE", "Tee-M", 20.0, True, "/t/e/tee.jpg"),
        ("TEE-L", "TEE", "Tee-L", 15.0, False, "/t/e/tee.jpg"),
        ("MUG", "MUG", "Mug", 9.5, True, None),
    ]
    assert items["item_text"].to_list() == [
        "Tee-M. Categories: Men > Tops. Attributes: color: Red, size: M. Description: Soft cotton.",
        "Tee-L. Categories: Men > Tops, Sale. Attributes: color: Red, size: L. Description: Soft cotton.",
        "Mug. Categories: Kitchen. Short description: A mug.",
    ]
    assert done.table("events").select(*EVENT, "quantity", "value", "session_id").rows() == [
        ("ada@example.com", "TEE-L", "purchase", 1714557600, 2.0, 15.0, "000000012"),
        ("ben@example.com", "MUG", "purchase", 1714644000, 1.0, 9.5, "000000013"),
    ]
    assert done.info["adapter_dropped"] == {
        "row of a product for one store view": 1,
        "configurable product: its variations stand for it": 1,
        "line of a variation that repeats the line of its product": 1,
        "line of a cancelled or unpaid order": 1,
    }


def test_ga4(preset: Preset) -> None:
    done = preset("ga4", f"data.events={FILES}/ga4/events_20240501.jsonl")
    items = done.table("items")
    assert items.select("item_id", "title", "brand", "variant", "categories", "price").rows() == [
        ("BOOT", "Rubber boots", "Borealis", None, ["Shoes"], 39.9),
        ("HAT", "Rain hat, new", "Borealis", None, ["Hats", "Rain"], 19.0),
    ]
    assert items["item_text"][1] == "Rain hat, new. Brand: Borealis. Categories: Hats, Rain"
    assert done.table("events").select(*EVENT, "quantity", "value").rows() == [
        ("1.2", "BOOT", "view", 1714557610, 1.0, 39.9),
        ("1.2", "BOOT", "add_to_cart", 1714557630, 1.0, 39.9),
        ("3.4", "HAT", "view", 1714557660, 1.0, 19.0),
        ("ada", "BOOT", "purchase", 1714557640, 2.0, 39.9),
        ("ada", "HAT", "purchase", 1714557640, 1.0, 19.0),
    ]
    assert done.info["ignored_events"] == {"begin_checkout": 1, "impression": 2}


def test_ga4_beside_a_catalogue(preset: Preset) -> None:
    items = preset.shop.write("items.csv", "sku,title\nBOOT,Boots of rubber\nHAT,Hat\n")
    done = preset("ga4", f"data.items={items}", f"data.events={FILES}/ga4/events_20240501.jsonl")
    assert done.table("items")["item_text"].to_list() == ["Boots of rubber", "Hat"]
    assert done.info["events"] == 5


def test_ga4_as_parquet(preset: Preset) -> None:
    path = preset.shop.folder / "events.parquet"
    pl.read_ndjson(FILES / "ga4" / "events_20240501.jsonl").with_columns(
        pl.col("event_timestamp").cast(pl.Int64)
    ).write_parquet(path)
    assert preset("ga4", f"data.events={path}").info["kind_counts"] == {
        "add_to_cart": 1, "click": 0, "purchase": 2, "view": 2,
    }  # fmt: skip


@pytest.mark.parametrize("feed", ["feed.xml", "feed.tsv"])
def test_merchant_feed(feed: str, preset: Preset) -> None:
    folder = FILES / "merchant_feed"
    done = preset("merchant_feed", f"data.items={folder}/{feed}", f"data.events={folder}/events.csv")
    items = done.table("items")
    assert items.select("item_id", "title", "price", "in_stock", "product", "color", "size").rows() == [
        ("TV-55", 'TV 55" flat', 1299.0, True, None, None if feed == "feed.xml" else "black", None),
        ("BOOT-38", "Rubber boots", 39.9, False, "BOOT", "green", "38"),
    ]
    assert items["item_text"][0].startswith('TV 55" flat. Brand: Acme. ')
    assert items["item_text"][0].endswith('Description: A television, "smart" & flat.')
    assert done.table("events").select(*EVENT).rows() == [
        ("anna", "TV-55", "view", 1714557600),
        ("anna", "BOOT-38", "purchase", 1714557840),
    ]


def test_analytics_beside_a_feed(preset: Preset) -> None:
    feed = preset.shop.write("feed.tsv", "id\ttitle\nBOOT\tRubber boots\nHAT\tRain hat\n")
    done = preset("ga4", f"data.items={feed}", f"data.events={FILES}/ga4/events_20240501.jsonl")
    assert done.table("items")["item_id"].to_list() == ["BOOT", "HAT"]
    assert done.info["events"] == 5


def test_benchmarks_are_read_out_of_their_archives(preset: Preset) -> None:
    archive = preset.shop.folder / "MINDsmall_train.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("news.tsv", "behaviors.tsv"):
            file.write(FILES / "mind" / name, f"MINDsmall_train/{name}")
    inside = f"{archive}/MINDsmall_train"
    done = preset("mind", f"data.items={inside}/news.tsv", f"data.events={inside}/behaviors.tsv")
    assert done.info["items"] == 3
    assert done.info["events"] == 5


def test_a_platforms_file_in_another_encoding(preset: Preset) -> None:
    path = preset.shop.folder / "products.csv"
    path.write_bytes("Handle;Title;Variant SKU;Variant Price\nhut;Grüner Hut;H1;9,90\n".encode("cp1252"))
    done = preset("shopify", f"data.items={path}", "data.encoding=cp1252")
    assert done.table("items").select("item_id", "title").rows() == [("H1", "Grüner Hut")]
