"""`inspect` on exports of platforms and on shops' own files: the command that it prints works when typed."""

from __future__ import annotations

import json
import shlex
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from conf.clients import InspectConfig
from conf.composition.compose import compose_command
from conf.composition.overrides import with_key
from conf.errors import InputError
from features.inspection import report
from features.inspection.plan import Plan
from features.inspection.report import command_of, inspect
from features.prepare import prepare
from shelfwise import split_command
from tests.features.inspected_shops import SHOPS, at, lines, titles, write

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a shop's files, which commands are typed in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def look(*files: str | Path, **settings: Any) -> tuple[Plan, str]:
    """Inspect files; return what is proposed and what is printed."""
    out = StringIO()
    plan = inspect(InspectConfig(files=[str(f) for f in files], **settings), Console(file=out, width=200))
    return plan, out.getvalue()


def typed(plan: Plan) -> dict[str, Any]:
    """Run the proposed command as far as `prepare`, as a shell would hand it over; return dataset.json."""
    words = shlex.split(command_of(plan, "work"))
    assert words[:2] == ["shelfwise", "run"]
    _, overrides = split_command(words[1:])
    folder = prepare(compose_command("prepare", overrides), Console(file=StringIO()))
    info: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
    return info


PRESETS: dict[str, tuple[list[str], dict[str, int]]] = {
    "shopify": (["products_export.csv", "orders_export.csv"], {"items": 4, "events": 4}),
    "woocommerce": (["wc-product-export.csv", "orders.csv"], {"items": 4, "events": 3}),
    "merchant_feed": (["feed.tsv", "events.csv"], {"items": 2, "events": 2}),
    "magento": (["catalog_product.csv", "order_lines.csv"], {"items": 3, "events": 2}),
    "ga4": (["events_20240501.jsonl"], {"items": 2, "events": 5}),
    "hm": (["articles.csv", "transactions_train.csv"], {"items": 3, "events": 3}),
    "retailrocket": (
        ["item_properties_part1.csv", "item_properties_part2.csv", "events.csv", "category_tree.csv"],
        {"items": 3, "events": 4},
    ),
    "otto": (["otto-recsys-train.jsonl"], {"items": 2, "events": 4}),
    "mind": (["behaviors.tsv", "news.tsv"], {"items": 3, "events": 5}),
    "yoochoose": (["yoochoose-clicks.dat", "yoochoose-buys.dat"], {"items": 3, "events": 6}),
}


@pytest.mark.parametrize("name", PRESETS)
def test_every_presets_files_are_recognised(name: str) -> None:
    files, counts = PRESETS[name]
    plan, printed = look(*(DATA / name / file for file in files))
    assert plan.preset == name
    assert plan.unsure == ()
    assert plan.unused == ()
    assert f"shelfwise run data={name} " in printed
    info = typed(plan)
    assert {key: info[key] for key in counts} == counts


def test_other_layouts_of_a_preset() -> None:
    for name, files in (
        ("shopify", ["products_export_new.csv"]),
        ("woocommerce", ["wc-product-export.csv", "analytics-orders.csv"]),
        ("merchant_feed", ["feed.xml", "events.csv"]),
    ):
        assert look(*(DATA / name / file for file in files))[0].preset == name


def test_analytics_beside_a_feed_and_beside_a_table(here: Path) -> None:
    log = DATA / "ga4" / "events_20240501.jsonl"
    (here / "feed.tsv").write_text("id\ttitle\tlink\timage link\nBOOT\tBoots\tx\ty\nHAT\tHat\tx\ty\n")
    plan, _ = look("feed.tsv", log)
    assert plan.preset == "ga4"
    assert typed(plan)["events"] == 5
    (here / "items.csv").write_text("artikelnummer,titel\nBOOT,Rubber boots\nHAT,Rain hat\n")
    plan, _ = look("items.csv", log)
    assert plan.settings == {"data.columns": {"items.item_id": "artikelnummer"}}
    assert typed(plan)["text_fields"] == ["titel"]


@pytest.mark.parametrize("name", SHOPS)
def test_a_shops_own_files(name: str) -> None:
    make, settings, facts = SHOPS[name]
    plan, printed = look(*make())
    assert plan.preset == "files"
    given = {key: value for key, value in (plan.settings or {}).items() if value}
    if settings:
        assert given == settings
    assert command_of(plan, "work/shop") in printed.splitlines()
    assert "tried, and it reads:" in printed
    info = typed(plan)
    assert {key: info[key] for key in facts} == facts


def test_values_are_shown_as_they_are_read(here: Path) -> None:
    write("items.csv", "sku,title,price,link", [("007", 'TV 55"', "1299.50", "https://x.example.org/7")])
    write("sales.csv", "customer,sku,date", [("anna", "007", "2024-05-01T10:00:00+02:00")])
    _, printed = look("items.csv", "sales.csv")
    row = next(line for line in printed.splitlines() if line.startswith("date "))
    assert row.split() == (
        "date always the same 0% timestamp 2024-05-01T10:00:00+02:00 2024-05-01 08:00:00 UTC".split()
    )
    assert 'item: item_id=007, item_text=TV 55", title=TV 55", price=1299.5' in printed


def test_a_catalogue_alone(here: Path) -> None:
    plan, _ = look(write("items.csv", "id,name,price", [(i, t, 9.5) for i, t in enumerate(titles(30))]))
    assert plan.items == ("items.csv",)
    assert plan.events == ()
    assert plan.settings == {"data.columns": {"title": "name", "items.item_id": "id"}}
    assert typed(plan)["items"] == 30


def test_events_alone_are_known_by_their_ids(here: Path) -> None:
    rows = [(f"u{u}", f"p{i}", "view", at(m)) for u, i, m in lines(80)]
    plan, printed = look(write("log.csv", "user,item,event,time", rows))
    assert plan.items == plan.events == ("log.csv",)
    assert "no table of items: what events say of them is all that is known" in printed
    assert typed(plan)["events"] == 80


def test_order_lines_without_a_customer(here: Path) -> None:
    write("items.csv", "sku,title", [(f"s{i}", t) for i, t in enumerate(titles(30))])
    rows = [(n // 2, f"s{i}", 1, at(m)) for n, (_, i, m) in enumerate(lines(80))]
    plan, _ = look("items.csv", write("lines.csv", "order_id,sku,quantity,date", rows))
    assert (plan.settings or {})["data.columns"]["user_id"] == "order_id"
    assert any("so every order is one" in note for note in plan.unsure)
    assert typed(plan)["users"] == 40


def test_two_shops_are_not_joined_silently(here: Path) -> None:
    write("items.csv", "sku,title", [(f"s{i}", t) for i, t in enumerate(titles(30))])
    plan, printed = look(
        "items.csv", write("log.csv", "user_id,sku,time", [(u, f"x{i}", at(m)) for u, i, m in lines(9)])
    )
    assert "no column of log.csv holds ids of items.csv: are they of the same shop?" in plan.unsure
    assert "tried, and it stops:" in printed
    assert "unknown item" in printed
    assert "the command, once that is mended:" in printed


def test_a_part_of_the_ids_is_said(here: Path) -> None:
    write("items.csv", "sku,title", [(f"s{i}", t) for i, t in enumerate(titles(15))])
    plan, _ = look(
        "items.csv", write("log.csv", "user_id,sku,time", [(u, f"s{i}", at(m)) for u, i, m in lines(200)])
    )
    assert any("only 50% of the ids that events name ('sku')" in note for note in plan.unsure)


def test_unknown_kinds_are_named(here: Path) -> None:
    write("items.csv", "sku,title", [(f"s{i}", t) for i, t in enumerate(titles(30))])
    rows = [(u, f"s{i}", ("view", "wish list")[n % 2], at(m)) for n, (u, i, m) in enumerate(lines(80))]
    plan, _ = look("items.csv", write("log.csv", "user_id,sku,event,time", rows))
    note = next(n for n in plan.unsure if "wish list" in n)
    fix = shlex.split(note.partition("purchases; ")[2].removesuffix(" leaves one out"))
    config = compose_command("prepare", fix)
    assert config.data.event_weights == {"wish list": 0.0, "impression": 0.0, "*": 1.0}


def test_kinds_that_are_no_choice_get_no_weight(here: Path) -> None:
    write("items.csv", "sku,title", [(f"s{i}", t) for i, t in enumerate(titles(30))])
    rows = [(u, f"s{i}", ("view", "remove_from_cart")[n % 2], at(m)) for n, (u, i, m) in enumerate(lines(80))]
    plan, _ = look("items.csv", write("log.csv", "user_id,sku,event,time", rows))
    assert plan.unsure == ()
    assert typed(plan)["ignored_events"] == {"remove_from_cart": 40}


def test_without_a_time_an_order_counts_or_that_of_the_file(here: Path) -> None:
    write("items.csv", "item_id,title", list(enumerate(titles(30))))
    rows = [(u, i, n) for n, (u, i, _) in enumerate(lines(80))]
    plan, _ = look("items.csv", write("log.csv", "user_id,item_id,sequence", rows))
    assert (plan.settings or {})["data.columns"] == {"order": "sequence"}
    assert typed(plan)["has_order"]
    plan, _ = look("items.csv", write("ratings.csv", "user_id,item_id,rating", rows))
    assert (plan.settings or {})["data.default_event"] == "rating"
    assert plan.unsure == (
        "ratings.csv: no column says when it happened, so the order of the file is taken; where one does, "
        "name it with data.columns.timestamp=COLUMN instead of data.file_order=true",
    )
    assert typed(plan)["has_order"]


def test_a_first_line_whose_values_recur_is_no_header(here: Path) -> None:
    rows = [(1714550000 + 60 * m, f"u{u}", f"p{i}", "click") for u, i, m in lines(80)]
    plan, _ = look(write("log.txt", "", rows, "|"))
    assert (plan.settings or {})["data.without_header"] == ["items", "events"]
    assert typed(plan)["kind_counts"] == {"click": 80}


def test_files_that_say_nothing(here: Path) -> None:
    write("rates.csv", "currency,rate", [("EUR", 1.1), ("USD", 1.0)])
    Path("broken.parquet").write_text("no parquet")
    plan, printed = look("rates.csv", "broken.parquet")
    assert plan.items == plan.events == ()
    assert "none of the files looks like items or events" in printed
    assert "broken.parquet: cannot be read" in printed
    assert "the command" not in printed


def test_what_is_not_needed_is_said(here: Path) -> None:
    write("rates.csv", "currency,rate", [("EUR", 1.1), ("USD", 1.0)])
    plan, printed = look(
        "rates.csv", write("items.csv", "sku,title", [("a", "Red boots"), ("b", "Blue hat")])
    )
    assert plan.unused == ("rates.csv",)
    assert "not used: rates.csv" in printed


def test_large_files_are_not_tried(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_TRIED", 10)
    write("items.csv", "sku,title", [("a", "Red boots"), ("b", "Blue hat")])
    _, printed = look("items.csv")
    assert "not tried: the files hold more than 100 MB; run `prepare` first" in printed
    assert "shelfwise run data.items=items.csv" in printed
    assert "tried, and" not in printed


def test_values_inside_objects_are_columns(here: Path) -> None:
    items = [
        {"sku": f"s{i}", "title": t, "price": {"amount": 5 + i, "currency": "EUR"}}
        for i, t in enumerate(titles(30))
    ]
    orders = []
    for n, (u, i, _) in enumerate(lines(80)):
        two = [{"sku": f"s{i}", "quantity": 1}, {"sku": f"s{(i + 1) % 30}", "quantity": 2}]
        moment = f"2024-05-01T10:{n % 60:02d}:00Z"
        orders.append({"number": n, "customer": {"id": f"c{u}"}, "created_at": moment, "line_items": two})
    for name, rows in (("items.jsonl", items), ("orders.jsonl", orders)):
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan, _ = look("items.jsonl", "orders.jsonl")
    assert (plan.settings or {})["data.columns"] == {
        "user_id": "customer.id",
        "timestamp": "created_at",
        "events.quantity": "line_items.quantity",
        "price": "price.amount",
        "items.item_id": "sku",
        "events.item_id": "line_items.sku",
    }
    info = typed(plan)
    assert info["events"] == 160
    assert info["users"] == 12
    assert info["attributes"]["price"] == "number"


def test_arguments_are_files_unless_they_set_something(here: Path) -> None:
    Path("day=1.csv").write_text("x\n")
    arguments = with_key(["a b.csv", "rows=9", "day=1.csv", "Käufe[2].csv"], "files")
    config = compose_command("inspect", arguments)
    assert config.files == ["a b.csv", "day=1.csv", "Käufe[2].csv"]
    assert config.rows == 9


def test_without_files_and_without_such_a_file(here: Path) -> None:
    with pytest.raises(InputError, match=r"inspect: which files\? e.g. shelfwise inspect products.csv"):
        look()
    with pytest.raises(InputError, match="inspect: no such file: none.csv"):
        look("none.csv")


def test_dates_and_prices_of_other_countries_are_shown_as_they_are_read(here: Path) -> None:
    prices = [(f"s{i}", t, f"1'{200 + i}.50 CHF") for i, t in enumerate(titles(30))]
    rows = []
    for n, (u, i, _) in enumerate(lines(80)):
        rows.append((f"k{u}", f"s{i}", f"{1 + n % 28:02d}.05.2024 09:{n % 60:02d}"))
    write("artikel.csv", "sku;titel;preis", prices, ";")
    plan, printed = look("artikel.csv", write("verkauf.csv", "kunde;sku;datum", rows, ";"))
    assert "1200.5 | 1201.5 | 1202.5" in printed
    assert "2024-05-01 09:00:00 UTC | 2024-05-02 09:01:00 UTC" in printed
    assert typed(plan)["time_range"] == ["2024-05-01T09:00:00+00:00", "2024-05-28T09:55:00+00:00"]


def test_where_no_date_tells_the_day_from_the_month_one_is_assumed_and_said(here: Path) -> None:
    write("items.csv", "sku,title", [(f"s{i}", t) for i, t in enumerate(titles(30))])
    rows = [(u, f"s{i}", f"{1 + n % 9:02d}/05/2024") for n, (u, i, _) in enumerate(lines(80))]
    plan, _ = look("items.csv", write("log.csv", "user_id,sku,date", rows))
    assert (plan.settings or {})["data.timestamp_format"] == "%d/%m/%Y"
    assert typed(plan)["time_range"] == ["2024-05-01T00:00:00+00:00", "2024-05-09T00:00:00+00:00"]
    note = next(n for n in plan.unsure if "day first" in n)
    [other] = shlex.split(note.partition("first; ")[2].removesuffix(" puts the month first"))
    assert compose_command("prepare", [other]).data.timestamp_format == "%m/%d/%Y"
