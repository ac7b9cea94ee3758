"""Planted products, ids, texts, attributes and users: each is found, with its count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from conf.schema import PrivacyConfig, Severity, SplitKind
from features.data import schema
from ranking.lint.linter import quick_lint
from ranking.lint.relisted import equal_texts
from tests.ranking.lint.shop import (
    TEST_START,
    VALID_START,
    Row,
    Shop,
    before,
    clean_shop,
    found,
    items_of,
    measured,
    users_of,
)
from tests.synthetic import DAY, START


def relisted(count: int = 8) -> Shop:
    """Give the most sold items a new id from the start of test on, with the same words in another order."""
    shop = clean_shop()
    sold = pl.Series([row[1] for row in shop.rows if row[3] >= TEST_START]).value_counts(sort=True)
    ids = sold.to_series(0).to_list()[:count]
    rows = [(u, f"new-{i}" if i in ids and t >= TEST_START else i, k, t) for u, i, k, t in shop.rows]
    old = shop.items.filter(pl.col(schema.ITEM_ID).is_in(ids))
    reversed_words = pl.col(schema.TEXT).str.to_uppercase().str.split(" ").list.reverse().list.join(", ")
    new = old.with_columns(
        pl.concat_str(pl.lit("new-"), schema.ITEM_ID).alias(schema.ITEM_ID), reversed_words
    )
    return replace(shop, rows=rows, items=pl.concat([shop.items, new]))


def test_items_listed_again_across_the_cut_are_measured_by_merging() -> None:
    finding = found(relisted().material(), "relisted_items")
    assert (finding.count, finding.severity) == (8, Severity.warning)
    assert "new-" in finding.example
    assert finding.worth is not None
    assert finding.worth.without > finding.worth.as_is  # two ids hide the answer from a model of ids
    assert found(relisted().material(), "equal_items").count == 8


def test_a_text_that_many_items_share_is_no_relisting() -> None:
    shop = relisted()
    kinds = {i: "Greeting card everyday" for i in items_of(shop) if i.startswith("new-")}
    findings = {f.check: f for f in measured(shop.with_texts(kinds).material())}
    assert "relisted_items" not in findings
    assert findings["equal_items"].count == len(kinds) - 1


def test_texts_are_equal_whatever_the_order_but_not_with_other_numbers() -> None:
    long = [f"w{chr(97 + n)}" for n in range(20)]
    texts = [
        "Red cup, 250 ml", "cup RED 250 ml", "Red cup 500 ml", "Blue cup 250 ml", "", "",
        " ".join(long), " ".join([*long[:-1], "other"]), " ".join([*long[:-3], "three", "other", "words"]),
    ]  # fmt: skip
    assert equal_texts(texts).tolist() == [-1, 0, -1, -1, -1, -1, -1, 6, -1]


def arriving(by_row: bool) -> Shop:
    """Let items arrive over the whole time, in the order of their rows or at random."""
    shop = clean_shop(users=400)
    ids = items_of(shop)
    rng = np.random.default_rng(2)
    place = np.arange(len(ids)) if by_row else rng.permutation(len(ids))
    rows: list[Row] = []
    for user, _, kind, time in shop.rows:
        now = (time - START) / (300 * DAY) * len(ids)
        there = np.flatnonzero((place <= now) & (place > now - 40))
        rows.append((user, ids[int(rng.choice(there)) if len(there) else int(np.argmin(place))], kind, time))
    return shop.with_rows(rows)


def test_rows_in_the_order_of_arrival_rank_new_items() -> None:
    findings = [f for f in measured(arriving(by_row=True).material()) if f.check == "item_order"]
    assert len(findings) == 1  # the ids are sorted, so row and id tell the same
    assert findings[0].severity is Severity.warning
    assert findings[0].worth is not None
    assert findings[0].worth.low > 0
    assert "item_order" not in {f.check for f in measured(arriving(by_row=False).material())}


def test_rows_numbered_along_the_histories_are_found() -> None:
    """Items are numbered as they first come up, user after user, as published copies of data sets do."""
    shop = clean_shop(users=60, items=1000)
    shop = replace(shop, rows=[row for user in sorted(users_of(shop)) for row in before(shop, user, 2**40)])
    order = list(dict.fromkeys(row[1] for row in shop.rows))
    order += [i for i in items_of(shop) if i not in order]
    table = shop.items.join(pl.DataFrame({schema.ITEM_ID: order, "at": range(len(order))}), on=schema.ITEM_ID)
    numbered = replace(shop, items=table.sort("at").drop("at"))
    finding = found(numbered.material(SplitKind.leave_one_out), "rows_follow_histories")
    steps = sum(
        order.index(b[1]) == order.index(a[1]) + 1
        for user in users_of(shop)
        for a, b in zip(before(shop, user, 2**40), before(shop, user, 2**40)[1:], strict=False)
    )
    assert finding.count == steps > 0
    assert finding.worth is not None
    assert finding.worth.low > 0


def test_user_ids_in_the_order_of_registration_are_noted() -> None:
    shop = clean_shop()
    ordered = sorted(users_of(shop), key=lambda user: before(shop, user, 2**40)[0][3])
    number = {user: str(1000 + place) for place, user in enumerate(ordered)}
    material = shop.with_rows([(number[u], i, k, t) for u, i, k, t in shop.rows]).material()
    finding = found(material, "user_order")
    assert "+1.00" in finding.title
    assert finding.severity is Severity.note


def sold_in_test(shop: Shop, most: int) -> list[str]:
    """Return the items with the most events in test."""
    sold = pl.Series([row[1] for row in shop.rows if row[3] >= TEST_START]).value_counts(sort=True)
    ids: list[str] = sold.to_series(0).to_list()[:most]
    return ids


def test_texts_that_speak_of_sales_are_measured_by_masking() -> None:
    """Half of all test events are of ten new items; the phrase is on them and on four that always sold."""
    shop = clean_shop()
    rng = np.random.default_rng(4)
    new, classics = np.split(rng.choice(items_of(shop), size=14, replace=False), [10])
    rows = [
        (u, str(rng.choice(new if t >= TEST_START else classics)) if rng.random() < 0.5 else i, k, t)
        for u, i, k, t in shop.rows
        if i not in new
    ]
    texts = dict(zip(items_of(shop), shop.items[schema.TEXT].to_list(), strict=True))
    said = {str(i): f"{texts[str(i)]} Bestseller" for i in (*new, *classics)}
    finding = found(shop.with_rows(rows).with_texts(said).material(), "sales_in_text")
    assert (finding.count, finding.severity) == (14, Severity.serious)
    assert "'bestseller'" in finding.title
    assert finding.worth is not None
    assert finding.worth.low > 0


def test_phrases_on_sales_are_told_from_product_names() -> None:
    shop = clean_shop()
    said = ["over 500 sold", "1,204 reviews", "Sales rank: #12", "4.7 out of 5", "bought by 300 people"]
    names = [
        "set of 6 soldiers",
        "review pad",
        "rank badge",
        "5 stars bunting",
        "sold by the metre",
        "best seat",
    ]
    ids = items_of(shop)
    texts = dict(zip(ids, [*said, *names], strict=False))
    assert found(shop.with_texts(texts).material(), "sales_in_text").count == len(said)


def test_dates_after_the_cut_are_counted() -> None:
    shop = clean_shop()
    ids = items_of(shop)
    late, early = (str(np.datetime64(t, "s"))[:10] for t in (TEST_START + 20 * DAY, START))
    texts = {**{i: f"cup {n} updated {late}" for n, i in enumerate(ids[:4])}, ids[5]: f"cup since {early}"}
    finding = found(shop.with_texts(texts).material(), "dates_in_text")
    assert (finding.count, finding.severity) == (4, Severity.warning)
    assert late in finding.title


def answering(shop: Shop, phrase: str) -> Shop:
    """Write the title of the item that a user bought next in test into the text of the item before it."""
    texts = dict(zip(items_of(shop), shop.items[schema.TEXT].to_list(), strict=True))
    changed = dict(texts)
    for user in users_of(shop):
        history = before(shop, user, TEST_START)
        targets = [row for row in shop.rows if row[0] == user and row[3] >= TEST_START]
        if history and targets:
            changed[history[-1][1]] += f"{phrase}{texts[targets[0][1]]}"
    return shop.with_texts({i: t for i, t in changed.items() if t != texts[i]})


def test_texts_that_name_the_next_purchase_are_measured_by_masking() -> None:
    shop = clean_shop()
    leaky = answering(shop, " Customers also bought ")
    changed = int((leaky.items[schema.TEXT] != shop.items[schema.TEXT]).sum())
    finding = found(leaky.material(), "co_purchases_in_text")
    assert (finding.count, finding.severity) == (changed, Severity.serious)
    assert finding.worth is not None
    assert finding.worth.low > 0


def test_texts_nearer_to_the_answers_than_to_earlier_ones_are_found_without_any_phrase() -> None:
    finding = found(answering(clean_shop(), " ").material(), "answers_in_text")
    assert finding.severity is Severity.serious
    assert finding.count > finding.total / 2
    assert finding.worth is not None
    assert finding.worth.low > 0


def test_attributes_that_count_sales_are_found_by_name_and_by_what_they_tell() -> None:
    shop = clean_shop()
    ids = items_of(shop)
    new = set(sold_in_test(shop, 60))
    shop = shop.with_rows([row for row in shop.rows if row[1] not in new or row[3] >= TEST_START])
    sold = [sum(row[1] == i for row in shop.rows) for i in ids]
    rng = np.random.default_rng(0)
    shop = shop.with_column("reviews", sold).with_column("score", [n + 0.1 for n in sold])
    shop = shop.with_column("weight", rng.uniform(size=len(ids)).tolist())
    findings = [f for f in measured(shop.material()) if f.check == "sales_in_attribute"]
    assert sorted(f.title.split("'")[1] for f in findings) == ["reviews", "score"]
    assert {f.count for f in findings} == {len(ids)}
    assert all(f.severity is Severity.serious for f in findings)
    assert all(f.worth is not None and f.worth.low > 0 for f in findings)


def test_attributes_that_list_other_items_are_found() -> None:
    shop = clean_shop()
    ids = items_of(shop)
    following: dict[str, list[str]] = {i: [] for i in ids}
    for user in users_of(shop):
        history = before(shop, user, 2**40)
        for a, b in zip(history, history[1:], strict=False):
            following[a[1]].append(b[1])
    links = [list(dict.fromkeys(following[i])) for i in ids]
    shop = shop.with_column("also_bought", links).with_column("colour", ["red blue"] * len(ids))
    finding = found(shop.material(), "co_purchases_in_attribute")
    assert finding.count == sum(len(link) > 1 for link in links)
    assert "'also_bought'" in finding.title
    assert finding.worth is not None
    assert finding.worth.low > 0


def test_items_updated_after_the_cut_and_created_after_their_first_sale_are_counted() -> None:
    shop = clean_shop()
    ids = items_of(shop)
    late, early = TEST_START + 5 * DAY, START - DAY
    updated = [late if n < 6 else early for n in range(len(ids))]
    created = [VALID_START if n < 3 else early for n in range(len(ids))]
    material = shop.with_column(schema.UPDATED_AT, updated).with_column(schema.CREATED_AT, created).material()
    both = [f for f in measured(material) if f.check == "later_item_versions"]
    assert sorted((f.count, f.title.split("'")[1]) for f in both) == [(3, "created_at"), (6, "updated_at")]
    assert {f.severity for f in both} == {Severity.warning}


def test_prices_of_after_the_cut_are_counted() -> None:
    """Five items cost 10 before the cut and 5 after it; the catalogue has the 5."""
    shop = clean_shop(users=600)
    ids = items_of(shop)
    cheap = set(sold_in_test(shop, 5))
    columns: dict[tuple[str, str, int], dict[str, object]] = {
        (u, i, t): {"value": 2 * (5.0 if i in cheap and t >= TEST_START else 10.0), "quantity": 2.0}
        for u, i, _, t in shop.rows
    }
    priced = shop.with_column(schema.PRICE, [5.0 if i in cheap else 10.0 for i in ids])
    finding = found(replace(priced, columns=columns).material(), "later_prices")
    assert finding.count == 5
    assert "5.00 in the catalogue, 10.00 paid before the cut, 5.00 after" in finding.example


def test_a_till_a_bot_and_a_wholesaler_are_counted() -> None:
    shop = clean_shop()
    ids = items_of(shop)
    rng = np.random.default_rng(0)

    def bought(user: str, times: list[int]) -> list[Row]:
        return [(user, str(rng.choice(ids)), "purchase", START + t) for t in times]

    till = bought("guest", [int(t) for t in rng.integers(0, 290 * DAY, size=400)])
    regular = bought("monitor-a", [DAY + 21_600 * n for n in range(150)])
    fast = bought("crawler-b", [DAY * d + 97 * n + n % 7 for d in (3, 8, 9, 20) for n in range(30)])
    findings = {f.check: f for f in measured(shop.adding([*till, *regular, *fast]).material())}
    assert (findings["tills"].count, findings["tills"].severity) == (1, Severity.serious)
    assert findings["tills"].example.startswith("user 'guest': 400 events")
    assert (findings["bots"].count, findings["bots"].severity) == (2, Severity.serious)
    assert findings["bots"].worth is not None
    heavy = bought("wholesaler", [int(t) for t in rng.integers(0, 290 * DAY, size=700)])
    others = clean_shop(users=2000)
    noted = found(others.adding(heavy).material(), "heavy_users")
    assert (noted.count, noted.severity) == (1, Severity.note)


def test_user_ids_in_examples_are_pseudonyms_where_the_settings_ask_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHELFWISE_USER_KEY", "secret")
    shop = clean_shop()
    rng = np.random.default_rng(0)
    times = rng.integers(0, 290 * DAY, size=400)
    till = [("guest", str(rng.choice(items_of(shop))), "purchase", START + int(t)) for t in times]
    shop = shop.adding(till)
    hashed = shop.material(privacy=PrivacyConfig(hash_users=True))
    [finding] = quick_lint(hashed)
    assert "guest'" not in finding.example
    assert hashed.pseudonyms is not None
    pseudonym = hashed.pseudonyms.of("guest")
    assert finding.example == quick_lint(shop.material())[0].example.replace("guest", pseudonym)


def test_the_protocol_is_described() -> None:
    """A bag is in every second history, and ten users are new in test."""
    shop = clean_shop()
    ids = items_of(shop)
    bag = [(u, ids[0], "purchase", START + 50) for u in users_of(shop)[::2]]
    new = [(f"new{n}", ids[n + 1], "purchase", TEST_START + DAY * 10 + n) for n in range(10)]
    material = shop.adding([*bag, *new]).material()
    findings = {f.check: f for f in measured(material)}
    assert findings["ubiquitous_items"].count == 1
    assert f"item '{ids[0]}'" in findings["ubiquitous_items"].example
    empty = int((material.split.test.end == material.events.offsets[material.split.test.user]).sum())
    assert findings["users_without_history"].count == empty >= 10
    worth = findings["users_without_history"].worth
    assert worth is not None
    assert not worth.paired
    assert worth.low <= worth.as_is - worth.without <= worth.high
