from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from features.data import prefixes
from features.data.dataset import Catalogue, Dataset
from features.data.demand import demand_names
from features.data.statistics import (
    Statistics,
    attribute_codes,
    co_occurrence,
    drawn_blocks,
    item_statistics,
    nearest_items,
    strongest,
)
from tests.synthetic import DAY, START, described, everything, make_dataset


def statistics_of(dataset: Dataset, now: int = START, neighbours: int = 3, window: int = 2) -> Statistics:
    return item_statistics(dataset, everything(dataset), now, neighbours, window)


def sequences(*users: str) -> Dataset:
    """One user per string; every letter is an item, a second apart."""
    rows = [
        (f"u{n}", letter, "purchase", START + place)
        for n, letters in enumerate(users)
        for place, letter in enumerate(letters)
    ]
    return make_dataset(rows, list("abcde"))


def test_co_occurrence_by_hand() -> None:
    data = sequences("abca", "cb", "d", "ee")
    matrix = co_occurrence(data.events, everything(data), 5, window=2).toarray()
    expected = np.zeros((5, 5))
    expected[0, 1] = 1.0  # a, b
    expected[1, 2] = 1.0  # b, c
    expected[2, 0] = 1.0  # c, a
    expected[0, 2] = 0.5  # a, then c two later
    expected[1, 0] = 0.5  # b, then a two later
    expected[2, 1] = 1.0  # the second user's c, b
    assert np.array_equal(matrix, expected), "an item does not follow itself"


@settings(max_examples=50, deadline=None)
@given(
    users=st.lists(st.text(alphabet="abcde", max_size=9), min_size=1, max_size=4),
    window=st.integers(1, 4),
    cut=st.integers(0, 2),
)
def test_co_occurrence_is_the_loop(users: list[str], window: int, cut: int) -> None:
    data = sequences(*users)
    end = np.maximum(data.events.offsets[1:] - cut, data.events.offsets[:-1])
    expected = np.zeros((5, 5))
    for start, stop in zip(data.events.offsets[:-1], end, strict=True):
        own = data.events.item[start:stop]
        for place, first in enumerate(own):
            for distance, second in enumerate(own[place + 1 : place + 1 + window], start=1):
                if first != second:
                    expected[first, second] += 1.0 / distance
    np.testing.assert_allclose(co_occurrence(data.events, end, 5, window).toarray(), expected, atol=1e-5)


def test_cosine_by_hand() -> None:
    matrix = sparse.csr_matrix(
        np.array([[0.0, 4.0, 0.0], [0.0, 0.0, 9.0], [0.0, 5.0, 0.0]], dtype=np.float32)
    )
    # Row sums 4, 9, 5; column sums 0, 9, 9.
    expected = [[0, 4 / 6, 0], [0, 0, 1.0], [0, 5 / np.sqrt(45), 0]]
    near = nearest_items(lambda rows: matrix[rows], matrix.indptr, 2)
    assert near.ids.tolist() == [[1, -1], [2, -1], [1, -1]]
    np.testing.assert_allclose(near.weights[:, 0], np.max(expected, axis=1), atol=1e-6)


def test_strongest_orders_by_weight_then_row_and_pads() -> None:
    matrix = sparse.csr_matrix(
        np.array(
            [[0.0, 1.0, 3.0, 1.0], [0.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0], [0.0] * 4], dtype=np.float32
        )
    )
    near = strongest(matrix, 2)
    assert near.ids.tolist() == [[2, 1], [-1, -1], [0, -1], [-1, -1]]
    assert near.weights.tolist() == [[3.0, 1.0], [0.0, 0.0], [2.0, 0.0], [0.0, 0.0]]
    assert strongest(matrix, 9).ids.shape == (4, 9)


def test_neighbours_follow_and_together_by_hand() -> None:
    found = statistics_of(sequences("ab", "ab", "ac"), window=1)
    # a is followed by b twice and by c once: cosines 2 / sqrt(3 * 2) and 1 / sqrt(3 * 1).
    assert found.follow.ids[0].tolist() == [1, 2, -1]
    np.testing.assert_allclose(found.follow.weights[0], [2 / np.sqrt(6), 1 / np.sqrt(3), 0], atol=1e-6)
    assert found.follow.ids[1].tolist() == [-1, -1, -1]
    # Either order counts for being together.
    assert found.together.ids[1].tolist() == [0, -1, -1]
    np.testing.assert_allclose(found.together.weights[1], [2 / np.sqrt(6), 0, 0], atol=1e-6)


def test_counts_halve_with_age() -> None:
    rows = [("u", "a", "purchase", START - age * DAY) for age in (14, 3, 0)] + [("u", "b", "purchase", START)]
    found = statistics_of(make_dataset(rows, ["a", "b", "c"]))
    assert found.count.tolist() == [3.0, 1.0, 0.0]
    assert found.recent.tolist() == pytest.approx([0.5 + 0.5 ** (3 / 14) + 1, 1.0, 0.0])


def test_an_event_after_the_cut_counts_as_new_not_as_more() -> None:
    data = make_dataset([("u", "a", "purchase", START + 100 * DAY)], ["a"])
    assert statistics_of(data, now=START).recent.tolist() == [1.0]


def test_only_the_prefix_is_looked_at() -> None:
    data = sequences("abc", "de")
    found = item_statistics(data, np.array([1, 3]), START, 3, 2)
    assert found.count.tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert (found.follow.ids == -1).all()
    assert found.demand.present[:, demand_names().index("is_new")].tolist() == [0.0, 1.0, 1.0, 1.0, 1.0]


def test_demand_counts_the_same_events() -> None:
    rows = [("u", "a", "purchase", START + age * DAY) for age in (0, 3, 3, 40)]
    found = statistics_of(make_dataset([*rows, ("v", "b", "purchase", START + 39 * DAY)], ["a", "b", "c"]))
    sold = found.demand.present[:, demand_names().index("log_sold")]
    np.testing.assert_allclose(sold, np.log1p(found.count), rtol=1e-6)
    later = described(found.demand, np.array([[0, 1, 2]], np.int32), np.array([START + 40 * DAY]))[0]
    np.testing.assert_allclose(later[:, demand_names().index("log_sold")], np.log1p([3, 1, 0]), rtol=1e-6)


def test_without_timestamps_nothing_is_older() -> None:
    data = make_dataset([("u", "a", "purchase", 5), ("u", "b", "purchase", 6)], ["a", "b"], has_time=False)
    found = statistics_of(data, now=10**9)
    assert found.recent.tolist() == found.count.tolist() == [1.0, 1.0]
    # Every list is asked for at 0 in training and at some real time from a server: both know all of it.
    rows = np.array([[0, 1]], np.int32)
    for now in (0, START):
        columns = described(found.demand, rows, np.array([now]))[0]
        names = demand_names()
        np.testing.assert_allclose(columns[:, names.index("log_sold")], np.log1p([1, 1]), rtol=1e-6)
        assert columns[:, names.index("is_new")].tolist() == [0.0, 0.0], now


def test_without_timestamps_everything_lies_on_the_day_before_the_first() -> None:
    rows = [("u", "a", "purchase", 0), ("u", "b", "purchase", 0), ("v", "a", "purchase", 0)]
    found = statistics_of(make_dataset(rows, ["a", "b", "c"], has_time=False), now=0)
    assert found.demand.calendar.tolist() == [-1, 2], (
        "day -1 and the day after it, on which lists are asked for"
    )
    assert found.demand.first.tolist() == [0, 0, 2]
    columns = dict(
        zip(demand_names(), described(found.demand, np.array([[0, 1, 2]]), np.array([0]))[0].T, strict=True)
    )
    for name in ("log_sold", "log_sold_7", "log_sold_365"):
        np.testing.assert_allclose(columns[name], np.log1p([2, 1, 0]), rtol=1e-6)
    np.testing.assert_allclose(columns["log_days_on_sale"], np.log1p([1, 1, 0]), rtol=1e-6)
    assert columns["is_new"].tolist() == [0.0, 0.0, 1.0]
    assert found.recent.tolist() == found.count.tolist() == [2.0, 1.0, 0.0]


def test_repeat_rate_and_gap_by_hand() -> None:
    rows = [
        ("u", "a", "purchase", START),
        ("u", "a", "purchase", START + 3600),
        ("u", "a", "purchase", START + 10 * DAY),
        ("v", "a", "purchase", START),
        ("v", "b", "purchase", START),
        ("v", "b", "purchase", START + 4 * DAY),
        ("v", "b", "purchase", START + 6 * DAY),
    ]
    data = make_dataset(rows, ["a", "b", "c"])
    found = statistics_of(data)
    # Buyers: a has u and v, b has v. Repeaters: u of a (an hour later is the same visit), v of b: 2 of 3.
    assert found.repeat_rate.tolist() == pytest.approx([(1 + 5 * 2 / 3) / 7, (1 + 5 * 2 / 3) / 6, 2 / 3])
    # Gaps: a once 239/24 days; b 4 and 2 days; typical (239/24 + 6) / 3.
    gap, typical = 239 / 24, (239 / 24 + 6) / 3
    assert found.gap_days.tolist() == pytest.approx(
        [(gap + 3 * typical) / 4, (6 + 3 * typical) / 5, typical], rel=1e-5
    )


def test_a_long_absence_counts_as_a_year_at_most() -> None:
    rows = [("u", "a", "purchase", START), ("u", "a", "purchase", START + 5000 * DAY)]
    assert statistics_of(make_dataset(rows, ["a"])).gap_days.tolist() == pytest.approx([365.0])


def test_a_catalogue_without_events_has_finite_statistics() -> None:
    found = statistics_of(make_dataset([], ["a", "b"]), now=0)
    assert found.count.tolist() == [0.0, 0.0]
    assert found.repeat_rate.tolist() == [0.0, 0.0]
    assert found.gap_days.tolist() == [365.0, 365.0]
    assert (found.together.ids == -1).all()
    assert found.together.ids.shape == (2, 3)
    assert all(np.isfinite(getattr(found, name)).all() for name in Statistics.__dataclass_fields__)


def test_a_single_item_has_no_neighbours() -> None:
    found = statistics_of(make_dataset([("u", "a", "purchase", START)] * 3, ["a"]))
    assert found.count.tolist() == [3.0]
    assert (found.follow.ids == -1).all()


def test_prices_are_logs_and_nonsense_is_unknown() -> None:
    table = pl.DataFrame(
        {
            "item_id": list("abcdef"),
            "item_text": list("abcdef"),
            "price": [0.0, 9.0, None, -3.0, float("nan"), float("inf")],
        }
    )
    found = statistics_of(make_dataset([], table), now=0)
    assert found.log_price.tolist() == pytest.approx([0.0, np.log(10.0), 0.0, 0.0, 0.0, 0.0])


def catalogue(**columns: list[object]) -> Catalogue:
    count = len(next(iter(columns.values())))
    ids = [f"i{n}" for n in range(count)]
    return Catalogue(pl.DataFrame({"item_id": ids, "item_text": ids, **columns}))


def test_attributes_that_group_items_get_codes() -> None:
    colours: list[object] = ["red", "blue", None, "red", "green", "blue", *["red"] * 9]
    found = attribute_codes(
        catalogue(
            colour=colours,
            sku=[f"sku{n}" for n in range(15)],
            shop=["one"] * 15,
            sparse=[*["x", "y"], *[None] * 13],
            size=list(range(15)),
            lonely=["only", *[None] * 5, *["only"] * 9],
        )
    )
    # Too many values, one value, mostly missing, no string, one value: only the colour groups.
    assert found[:, 0].tolist() == [2, 0, -1, 2, 1, 0, *[2] * 9]
    assert found.shape == (15, 1)
    assert found.dtype == np.int32


def test_codes_do_not_depend_on_what_was_numbered_before() -> None:
    first = attribute_codes(catalogue(colour=["zinc", "ash", "zinc"]))
    pl.Series(["zinc", "amber", "ash"]).cast(pl.Categorical)
    assert (
        attribute_codes(catalogue(colour=["zinc", "ash", "zinc"])).tolist()
        == first.tolist()
        == [[1], [0], [1]]
    )


def test_at_most_four_attributes() -> None:
    columns: dict[str, list[object]] = {f"c{n}": ["x", "y"] * 5 for n in range(6)}
    assert attribute_codes(catalogue(**columns)).shape == (10, 4)
    assert attribute_codes(catalogue(price=[1.0, 2.0])).shape == (2, 0)


def test_saved_statistics_are_equal(tmp_path: Path, dataset: Dataset) -> None:
    before = statistics_of(dataset)
    before.save(tmp_path / "statistics.safetensors")
    after = Statistics.load(tmp_path / "statistics.safetensors")
    for name in Statistics.__dataclass_fields__:
        assert np.array_equal(getattr(before, name), getattr(after, name)), name
        assert getattr(before, name).dtype == getattr(after, name).dtype, name


@pytest.mark.parametrize("size", [1, 7, 40])
def test_blocks_do_not_change_the_statistics(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    rows = [
        (f"u{rng.integers(9)}", f"i{rng.integers(12)}", "purchase", START - int(rng.integers(40)) * DAY // 2)
        for _ in range(150)
    ]
    data = make_dataset(rows, [f"i{n}" for n in range(14)])
    end = np.maximum(data.events.offsets[1:] - 2, data.events.offsets[:-1])
    whole = item_statistics(data, end, START, 4, 3)
    monkeypatch.setattr("features.data.statistics._PAIRS_BLOCK", size)
    monkeypatch.setattr(prefixes.prefix_blocks, "__defaults__", (size,))
    monkeypatch.setattr(prefixes.user_blocks, "__defaults__", (size,))
    divided = item_statistics(data, end, START, 4, 3)
    for field in fields(whole):
        mine, theirs = getattr(divided, field.name), getattr(whole, field.name)
        if "weights" in field.name:  # single-precision sums in another order
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, err_msg=field.name)
        elif "ids" not in field.name:
            np.testing.assert_array_equal(mine, theirs, err_msg=field.name)
    assert [set(row) for row in divided.follow_ids[:, :1].tolist()] == [
        set(row) for row in whole.follow_ids[:, :1].tolist()
    ]


def test_above_the_limit_neighbours_are_counted_from_drawn_users_and_the_rest_from_all() -> None:
    data = sequences(*["ab"] * 40, *["bc"] * 40)
    end = everything(data)
    drawn = item_statistics(data, end, START, 3, 2, most=20, seed=1)
    users = prefixes.drawn_users(data.events.lengths(), 20, 1)
    assert len(users) == 10
    expected = np.zeros((5, 5), dtype=np.float32)
    for user in users:
        first, second = data.events.item[2 * user : 2 * user + 2]
        expected[first, second] += 1
    assert 0 < expected[0, 1] < 10, "the draw has users of both kinds"
    matrix = sparse.csr_matrix(expected)
    near = nearest_items(lambda rows: matrix[rows], matrix.indptr, 3)
    assert np.array_equal(drawn.follow_ids, near.ids)
    assert np.array_equal(drawn.follow_weights, near.weights)
    assert drawn.count.tolist() == [40, 80, 40, 0, 0]
    assert drawn.demand_totals[-1] == 160


def test_drawn_blocks_have_whole_prefixes_of_drawn_users(monkeypatch: pytest.MonkeyPatch) -> None:
    data = sequences("abc", "de", "abcd", "e")
    end = data.events.offsets[1:] - np.array([1, 0, 2, 1])
    monkeypatch.setattr("features.data.statistics._PAIRS_BLOCK", 3)
    blocks = [block.tolist() for block in drawn_blocks(data.events, end, 0)]
    assert blocks == [[0, 1], [3, 4], [5, 6]]
    few = [place for block in drawn_blocks(data.events, end, 4, seed=2) for place in block.tolist()]
    chosen = prefixes.drawn_users(end - data.events.offsets[:-1], 4, 2)
    assert len(chosen) == 2
    assert few == [p for user in chosen for p in range(data.events.offsets[user], end[user])]
