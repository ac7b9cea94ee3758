"""Planted wrong times, copies and order: each is found, with its count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from conf.schema import Severity, SplitConfig, SplitKind
from features.data.splits import make_split
from ranking.lint.linter import quick_lint
from ranking.lint.material import Material
from ranking.lint.order import shuffled_ties
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
from tests.synthetic import DAY, START, make_dataset, with_event


def test_events_of_the_future_and_of_1970_are_counted() -> None:
    shop = clean_shop()
    items, users = items_of(shop), users_of(shop)
    later = [(users[n], items[n], "purchase", 4_000_000_000 + n) for n in range(7)]
    zero = [(users[n], items[n], "purchase", n) for n in range(20, 25)]
    material = shop.adding([*later, *zero]).material()
    both = [f for f in measured(material) if f.check == "event_times"]
    assert sorted((f.count, f.title) for f in both) == [
        (5, "5 events are before 1990"),
        (7, "7 events are later than the present"),
    ]
    assert {f.severity for f in both} == {Severity.serious}
    assert any("2096-10-02" in f.example for f in both)
    assert len(quick_lint(material)) == 2


def test_times_that_prepare_raised_are_a_warning_from_one_in_a_thousand() -> None:
    material = clean_shop().material()
    for raised, severity in ((len(material.events) // 2000, Severity.note), (40, Severity.warning)):
        info = {**material.dataset.info, "timestamps_raised": raised}
        finding = found(replace(material, dataset=replace(material.dataset, info=info)), "event_times")
        assert (finding.count, finding.severity) == (raised, severity)


def test_an_event_out_of_order_is_on_the_wrong_side_of_the_cut() -> None:
    """A user's first event is moved behind the others: it stays in the history, and the last is a target."""
    shop = clean_shop()
    user = next(u for u in users_of(shop) if before(shop, u, 2**40)[-1][3] < VALID_START - 60 * DAY)
    dataset = shop.dataset()
    row = dataset.user_ids.index(user)
    first = int(dataset.events.offsets[row])
    changed = with_event(dataset, first, time=TEST_START + DAY)
    material = shop.material()
    split = make_split(changed, material.config.split, [])
    finding = found(replace(material, dataset=changed, split=split), "windows")
    assert (finding.count, finding.severity) == (2, Severity.serious)
    assert user in finding.example


def test_leave_one_out_states_the_events_of_others_that_are_later() -> None:
    """a's query is at 2, when half of the training events (1 and 11) are to come; b's is at 12."""
    rows: list[Row] = [
        (u, f"i{n}", "purchase", START + s + n) for u, s in (("a", 0), ("b", 10)) for n in (1, 2, 3)
    ]
    dataset = make_dataset(rows, ["i1", "i2", "i3"])
    config = replace(clean_shop().material().config, split=SplitConfig(SplitKind.leave_one_out))
    material = Material.of(dataset, make_split(dataset, config.split, []), config)
    finding = found(material, "later_events_of_others")
    assert (finding.count, finding.total) == (1, 2)
    assert "25% of the training events" in finding.title
    assert "user 'a': 50%" in finding.example


@pytest.mark.parametrize("across", [False, True])
def test_repeated_rows_are_counted_and_those_across_the_cut_are_serious(across: bool) -> None:
    """Under leave-one-out a repeated last event is target and history at once."""
    shop = clean_shop()
    users = users_of(shop)[:9]
    place = -1 if across else 0
    again = [before(shop, user, 2**40)[place] for user in users]
    finding = found(shop.adding(again).material(SplitKind.leave_one_out), "repeated_rows")
    assert finding.count == 9
    assert finding.severity is (Severity.serious if across else Severity.note)
    assert ("9 of them on both sides of the cut" if across else "none across the cut") in finding.title


def test_an_event_under_two_ids_is_a_repeated_row() -> None:
    shop = clean_shop()
    rows = [before(shop, user, 2**40)[0] for user in users_of(shop)[:4]]
    material = shop.adding(rows).material()
    ids = np.arange(len(material.events))
    named = pl.DataFrame({"event_id": ids.astype(str)})
    finding = found(replace(material, columns=named), "repeated_rows")
    assert finding.count == 4
    assert "4 have different event ids" in finding.title


def test_test_events_copied_into_training_are_caught_with_the_inflated_recall() -> None:
    shop = clean_shop()
    copies: list[Row] = []
    for user, item, kind, time in shop.rows:
        if time >= TEST_START:
            first = before(shop, user, VALID_START)[0][3]
            copies.append((user, item, kind, first + 60))
    finding = found(shop.adding(copies).material(), "copied_targets")
    assert (finding.count, finding.total, finding.severity) == (len(copies), len(copies), Severity.serious)
    assert finding.title.startswith("100% of the test targets")
    assert finding.worth is not None
    assert finding.worth.low > 0.2
    assert finding.worth.as_is > 2 * finding.worth.without


def test_honest_repeats_are_no_copies() -> None:
    """A fifth of the events repeats the first item of its user, in every window alike."""
    shop = clean_shop()
    rng = np.random.default_rng(1)
    rows = [(u, before(shop, u, 2**40)[0][1] if rng.random() < 0.2 else i, k, t) for u, i, k, t in shop.rows]
    material = shop.with_rows(rows).material()
    assert "copied_targets" not in {f.check for f in measured(material)}


def test_users_that_are_copies_of_others_are_counted() -> None:
    shop = clean_shop()
    copied = users_of(shop)[:6]
    rows = [(f"copy-{user}", i, k, t + 5) for user, i, k, t in shop.rows if user in copied]
    finding = found(shop.adding(rows).material(), "copied_users")
    assert finding.count == 6
    assert finding.severity >= Severity.warning
    assert "copy-" in finding.example


def test_sessions_under_two_users_are_counted() -> None:
    shop = clean_shop()
    users = users_of(shop)
    columns: dict[tuple[str, str, int], dict[str, object]] = {}
    for user, item, _, time in shop.rows:
        number = users.index(user)
        shared = number // 2 if number < 10 else number + 100
        columns[(user, item, time)] = {"session_id": f"s{shared}"}
    finding = found(replace(shop, columns=columns).material(), "shared_sessions")
    assert (finding.count, finding.total) == (5, 295)


BASKET = 15


def chained(users: int = 200) -> Shop:
    """Draw baskets of one time each, where half of the items are followed by their neighbour on a form."""
    shop = clean_shop()
    rng = np.random.default_rng(3)
    form = [str(i) for i in rng.permutation(items_of(shop))]
    rows: list[Row] = []
    for number in range(users):
        places: list[int] = []
        while len(places) < BASKET:
            follow = (
                (places[-1] + 1) % len(form)
                if places and rng.random() < 0.5
                else int(rng.integers(len(form)))
            )
            if follow not in places:
                places.append(follow)
        time = START + int(rng.integers(200)) * DAY
        rows += [(f"u{number:04d}", form[place], "purchase", time) for place in places]
    return replace(shop, rows=rows)


def test_an_order_within_a_basket_that_gives_the_answer_away_is_measured_by_shuffling() -> None:
    shop = chained()
    finding = found(shop.material(SplitKind.leave_one_out), "order_within_time")
    assert (finding.count, finding.total) == ((BASKET - 1) * 200, BASKET * 200)
    assert finding.severity is Severity.serious
    assert finding.worth is not None
    assert finding.worth.low > 0
    shuffled = shop.material(SplitKind.leave_one_out)
    shuffled = shuffled.with_events(shuffled_ties(shuffled.events, 5))
    honest = found(shuffled, "order_within_time")
    assert honest.severity is Severity.note
    assert honest.worth is not None
    assert abs(honest.worth.as_is - finding.worth.without) < 0.1


def test_shuffling_keeps_users_and_times_and_moves_only_ties() -> None:
    material = chained().material(SplitKind.leave_one_out)
    events, other = material.events, shuffled_ties(material.events, 1)
    assert np.array_equal(events.time, other.time)
    assert not np.array_equal(events.item, other.item)
    for low in events.offsets[:-1]:
        assert sorted(events.item[low : low + BASKET]) == sorted(other.item[low : low + BASKET])
    clean = clean_shop().material().events
    assert np.array_equal(clean.item, shuffled_ties(clean, 1).item)


def test_baskets_sorted_by_row_are_found() -> None:
    shop = chained()
    shuffled = shop.with_rows(sorted(shop.rows, key=lambda row: (row[0], row[1])))
    finding = found(shuffled.material(SplitKind.leave_one_out), "sorted_within_time")
    assert (finding.count, finding.total) == ((BASKET - 1) * 200, (BASKET - 1) * 200)
    assert "ascending" in finding.title
    assert finding.worth is not None
    assert finding.worth.low > 0
