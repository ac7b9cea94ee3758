"""Recorded events counted by a served bundle: popularity, demand, neighbours, and items that were new."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from numba import typeof

from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Dataset
from features.data.demand import demand_names
from features.data.statistics import Statistics
from ranking.assembly import near_recent
from ranking.catalogue.live_catalogue import ItemChange
from ranking.kernels import popularity_order as popularity_loops
from ranking.live import demand, neighbours
from ranking.live.events import WELL_KNOWN
from ranking.live.recorded_events import CountResult, Interaction, RecordedEvent
from ranking.live.updates import LiveItems
from ranking.retrieval.source_indexes import popularity, popularity_order
from ranking.types import History, Request
from tests.bundles import make_bundle
from tests.ranking.changes import change, item
from tests.ranking.live.test_updates import listed
from tests.synthetic import DAY, EMPTY, make_dataset, new_rows_of

YEARS_LATER = 1_900_000_000
"""Long after the last event of the bundle: none of its numbers has aged by then."""
NOBODY = Request(EMPTY, now=YEARS_LATER, k=5)


def event(item_id: str, *before: str, seconds: int = 0, kind: str = "purchase") -> RecordedEvent:
    interactions = tuple(Interaction(earlier, "purchase") for earlier in before)
    return RecordedEvent(item_id, kind, (YEARS_LATER + seconds) * 1_000_000, interactions)


def statistics(live: LiveItems) -> Statistics:
    return live.current.recommender.recommender.arrays.statistics


def present(live: LiveItems, item_id: str) -> dict[str, float]:
    """Demand columns as counts."""
    row = live.current.catalogue.row(item_id)
    assert row is not None
    values = np.expm1(statistics(live).demand.present[row].astype(np.float64))
    return dict(zip(demand_names(), np.round(values, 2).tolist(), strict=True))


@pytest.fixture
def live(dataset: Dataset, encoder: TextEncoder) -> LiveItems:
    return LiveItems(make_bundle(dataset, encoder), 20)


def test_counts_go_on_from_the_bundles(live: LiveItems, dataset: Dataset) -> None:
    before = statistics(live)
    count, recent, sold = float(before.count[7]), float(before.recent[7]), present(live, "i7")["log_sold"]
    assert live.count_events([event("i7"), event("i3"), event("i7", seconds=60)]) == CountResult(3, 0, 0)
    after = statistics(live)
    assert after.count[7] == count + 2
    assert after.recent[7] == pytest.approx(recent + 2, abs=1e-3)
    found = present(live, "i7")
    assert (found["log_sold"], found["is_new"]) == (sold + 2, 0)
    assert found["log_sold_7"] >= 2


def test_recent_popularity_is_halved_in_a_fortnight_of_recording(live: LiveItems) -> None:
    recent = statistics(live).recent.copy()
    live.count_events([event("i7"), event("i8", seconds=14 * DAY)])
    now = statistics(live).recent
    assert now[7] == pytest.approx((recent[7] + 1) / 2, rel=1e-5)
    assert now[8] == pytest.approx(recent[8] / 2 + 1, rel=1e-5)
    assert now[9] == pytest.approx(recent[9] / 2, rel=1e-5)


def test_the_popular_items_are_those_of_everything_that_is_known(live: LiveItems) -> None:
    base = statistics(live)
    scores = popularity(base.recent, base.count).astype(np.float64)
    rng = np.random.default_rng(0)
    for days in range(30):
        rows = rng.integers(0, 60, 20)
        live.count_events([event(f"i{row}", seconds=days * DAY) for row in rows])
        np.add.at(scores, rows, 2.0 ** (days / 14) + 1e-3)
        expected = [f"i{row}" for row in popularity_order(scores.astype(np.float32))]
        assert listed(live.current, NOBODY) == expected[:5]


def test_an_added_item_that_many_buy_is_popular_and_proposed_beside_what_it_is_bought_with(
    live: LiveItems,
) -> None:
    change(live, item("new", "guitar"))
    assert "new" not in listed(live.current, NOBODY)
    live.count_events([event("new", "i5", seconds=n) for n in range(200)])
    assert listed(live.current, NOBODY)[0] == "new"
    row = live.current.catalogue.row("new")
    assert row is not None
    together = statistics(live).together
    assert together.ids[5, 0] == row
    # 200 pairs at distance one, nothing else: of the new item's sum all, of the other's 200 and the bundle's
    full = sum(1 / distance for distance in range(1, 11)) * 2 * (statistics(live).count[5])
    assert together.weights[5, 0] == pytest.approx(200 / np.sqrt(200 * (200 + full)), rel=1e-3)
    session = History(np.array([5], np.int32), np.zeros(1, np.int8), np.array([YEARS_LATER]))
    [answer] = live.current.recommender.recommend([Request(session, YEARS_LATER, k=60, explain=True)])
    reasons = {i.row: {reason.kind for reason in i.reasons} for i in answer.items}
    assert "goes_with" in reasons[row]
    found = present(live, "new")
    assert (found["log_sold"], found["log_sold_365"], found["is_new"]) == (200, 200, 0)


def test_events_of_items_that_come_later_count_once_these_are_there(live: LiveItems) -> None:
    events = [event("later", "i5"), event("i5", "later"), event("i5")]
    assert live.count_events(events) == CountResult(2, 1, 0)
    change(live, item("other", "drum"))
    change(live, item("later", "guitar"))
    row = live.current.catalogue.row("later")
    assert row == 61
    assert statistics(live).count[row] == 1
    assert statistics(live).together.ids[row].tolist()[:2] == [5, -1]
    live.count_events([event("other") for _ in range(300)])
    live.count_events([event("later") for _ in range(400)])
    assert listed(live.current, NOBODY)[:2] == ["later", "other"]
    change(live, item("later", "violin"))
    assert statistics(live).count[row] == 401


def test_events_that_waited_make_an_item_popular_at_once(live: LiveItems) -> None:
    live.count_events([event("later") for _ in range(500)])
    change(live, item("later", "guitar"))
    assert listed(live.current, NOBODY)[0] == "later"


def test_no_more_than_so_many_events_wait_for_their_items(
    dataset: Dataset, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ranking.live.events._MAX_DEFERRED", 3)
    live = LiveItems(make_bundle(dataset, encoder), 20)
    assert live.count_events([event(f"n{n}") for n in range(5)]) == CountResult(0, 5, 0)
    for n in range(5):
        change(live, item(f"n{n}", "guitar"))
    assert statistics(live).count[60:].tolist() == [0, 0, 1, 1, 1]


def test_lists_of_the_past_know_what_was_known_then(live: LiveItems, dataset: Dataset) -> None:
    demand = statistics(live).demand
    rows = np.arange(60, dtype=np.int32)[None]
    days = [int(dataset.events.time.max()) - n * DAY for n in (1, 30)]

    def tables() -> list[list[float]]:
        found = []
        for day in days:
            table, places = demand.table(rows, np.array([day]))
            found.append(table[places[0]].ravel().tolist())
        return found

    before = tables()
    live.count_events([event(f"i{n}", seconds=n * DAY) for n in range(50)])
    assert tables() == before
    table, _ = demand.table(rows, np.array([YEARS_LATER]))
    assert table[7, 0] > before[0][7 * table.shape[1]]


def test_the_days_move_on_for_items_without_events_too_a_few_at_a_time(
    live: LiveItems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ranking.live.events._REFRESH_ROWS", 25)
    sold = [present(live, f"i{n}")["log_sold_365"] for n in range(60)]
    live.count_events([event("i0")])
    behind = [live.count_events([event("i0", seconds=400 * DAY)]).behind]
    while behind[-1]:
        behind.append(live.count_events([]).behind)
    assert behind == [35, 10, 0]
    assert sum(sold) > 60
    assert [present(live, f"i{n}")["log_sold_365"] for n in range(60)] == [1.0, *[0.0] * 59]
    assert present(live, "i9")["log_sold"] > 0


def test_an_item_is_no_new_one_any_more_once_it_is_well_known(encoder: TextEncoder) -> None:
    data = make_dataset(
        [("u", f"i{n}", "purchase", 1_700_000_000 + n) for n in range(8)], [f"i{n}" for n in range(12)]
    )
    live = LiveItems(make_bundle(data, encoder), 20)
    change(live, item("new", "guitar"))

    def new() -> list[int]:
        return new_rows_of(live.current.recommender.recommender)

    assert new() == [8, 9, 10, 11, 12]
    live.count_events([event(i) for i in ("new", "i9") for _ in range(WELL_KNOWN - 1)])
    assert new() == [8, 9, 10, 11, 12]
    live.count_events([event("new"), event("i9")])
    assert new() == [8, 10, 11]
    change(live, item("newer", "drum"))
    assert new() == [8, 10, 11, 13]


def test_recorded_events_lend_no_factors(live: LiveItems) -> None:
    learnt = live._arrays._has_factors.copy()
    change(live, item("new", "guitar"))
    live.count_events([event("new")])
    assert live._arrays._trained(61).tolist() == [*learnt.tolist(), False]


def test_a_shop_without_history_counts_from_nothing(dataset: Dataset, encoder: TextEncoder) -> None:
    empty = make_dataset([], dataset.catalogue.frame)
    live = LiveItems(make_bundle(empty, encoder, trained=False), 10)
    change(live, item("new", "guitar"))
    live.count_events([event("new", "i5"), event("i5"), event("new", "i5"), event("new"), event("i5")])
    nobody = Request(EMPTY, now=1, k=2)
    assert listed(live.current, nobody) == ["new", "i5"]
    version = change(live, item("newer", "drum"), ItemChange("new", None))
    assert listed(version, nobody)[0] == "i5"
    assert "new" not in listed(version, Request(EMPTY, now=1, k=62))
    live.count_events([event("newer"), event("newer"), event("newer")])
    assert listed(live.current, nobody) == ["newer", "i5"]


@pytest.mark.parametrize("size", [7, 300])
def test_events_count_the_same_in_whatever_batches_they_come(
    dataset: Dataset, encoder: TextEncoder, size: int
) -> None:
    """A running server counts them as they come, a restarted one all at once: lists must not change."""
    served, restarted = (LiveItems(make_bundle(dataset, encoder), 20) for _ in range(2))
    for each in (served, restarted):
        change(each, item("new", "violet boots"))
    rng = np.random.default_rng(0)
    ids = ["new", *served.current.catalogue.base.ids]
    # Three days: several steps of aging, and ends of days.
    events = [
        event(ids[int(now)], ids[int(before)], seconds=int(second))
        for now, before, second in zip(
            rng.integers(0, len(ids), 300) ** 2 // len(ids), rng.integers(0, len(ids), 300),
            np.sort(rng.integers(0, 3 * DAY, 300)), strict=True,
        )
    ]  # fmt: skip
    for one in events:
        served.count_events([one])
    for begin in range(0, 300, size):
        restarted.count_events(events[begin : begin + size])
    for each in (served, restarted):
        while each.count_events([]).behind:
            pass
    ours, theirs = (each.current.recommender.recommender.arrays for each in (served, restarted))
    found = ours.statistics
    for name, array in vars(found).items():
        if isinstance(array, np.ndarray):
            np.testing.assert_allclose(getattr(theirs.statistics, name), array, rtol=1e-5, err_msg=name)
    np.testing.assert_array_equal(theirs.statistics.demand.present, found.demand.present)
    np.testing.assert_allclose(theirs.text_near_recent, ours.text_near_recent, rtol=1e-5)
    # And it is what its definition says.
    np.testing.assert_allclose(ours.text_near_recent, near_recent(ours.text_near.ids, found), rtol=1e-6)
    for k in (5, 40):
        request = Request(EMPTY, now=YEARS_LATER + 3 * DAY, k=k)
        assert listed(served.current, request) == listed(restarted.current, request)


def test_hidden_items_are_counted_and_come_back_popular(live: LiveItems) -> None:
    change(live, ItemChange("i5", None))
    live.count_events([event("i5") for _ in range(500)])
    assert "i5" not in listed(live.current, Request(EMPTY, now=YEARS_LATER, k=60))
    change(live, item("i5", "guitar"))
    assert listed(live.current, NOBODY)[0] == "i5"


def test_what_is_recorded_on_the_last_day_of_the_bundle_counts_on_it(
    live: LiveItems, dataset: Dataset
) -> None:
    end, rows = int(dataset.events.time.max()), np.array([[3]], dtype=np.int32)

    def sold() -> float:
        table, places = statistics(live).demand.table(rows, np.array([end + 60]))
        return float(np.expm1(table[places[0, 0], 0]))

    before = sold()
    live.count_events([event("i3", seconds=30) for _ in range(40)])
    assert sold() == pytest.approx(before + 40)


def test_a_warmed_up_model_counts_its_first_event_without_compiling_anything(
    dataset: Dataset, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """numba compiles a loop once for each combination of argument types: warming up has to use them all."""
    called: dict[str, set[tuple[object, ...]]] = {}

    def record(module: ModuleType, name: str) -> None:
        loop = getattr(module, name)

        def recorded(*arguments: object) -> object:
            called.setdefault(f"{module.__name__}.{name}", set()).add(tuple(map(typeof, arguments)))
            return loop(*arguments)

        monkeypatch.setattr(module, name, recorded)

    for module, name in (
        (demand, "_add"),
        (demand, "_put"),
        (neighbours, "_count"),
        (popularity_loops, "_rise"),
    ):
        record(module, name)
    live, untouched = (LiveItems(make_bundle(dataset, encoder), 20) for _ in range(2))
    live.warm_up()
    warmed = {name: set(types) for name, types in called.items()}
    for name, array in vars(statistics(untouched)).items():
        if isinstance(array, np.ndarray):
            np.testing.assert_array_equal(getattr(statistics(live), name), array, name)
    assert live.count_events([event("i7"), event("i9", "i7", "i3")]) == CountResult(2, 0, 0)
    assert len(called) == 4
    assert called == warmed
    untouched.count_events([event("i7"), event("i9", "i7", "i3")])
    np.testing.assert_array_equal(statistics(live).together_ids, statistics(untouched).together_ids)
    np.testing.assert_array_equal(statistics(live).together_weights, statistics(untouched).together_weights)
    assert listed(live.current, NOBODY) == listed(untouched.current, NOBODY)
