"""Scenarios: what a person writes becomes the request that it says, and a change can be written down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conf.errors import InputError
from conf.schema import PipelineConfig
from features.data import schema
from ranking.bundle.bundle import HISTORIES, Bundle, load_bundle
from ranking.insight.changes import Change, Kind
from ranking.insight.explanation import explain_item
from ranking.insight.obstacles import Obstacle, Rule
from ranking.insight.scenario import Scenario, changed, only, resolve, settings_of, without_obstacles
from ranking.insight.trace import place_in
from ranking.types import History
from tests.synthetic import EMPTY


@pytest.fixture(scope="module")
def store(trained: PipelineConfig) -> Path:
    return Path(trained.work_dir) / "artifacts"


@pytest.fixture(scope="module")
def bundle(store: Path) -> Bundle:
    return load_bundle(store)


@pytest.fixture(scope="module")
def histories(store: Path, bundle: Bundle) -> dict[str, History]:
    frame = pl.read_parquet(store / HISTORIES)
    found = {}
    for (user,), part in frame.group_by(schema.USER_ID, maintain_order=True):
        items = np.array(bundle.catalogue.find(part[schema.ITEM_ID].to_list()), np.int32)
        kinds = np.array([bundle.kinds.index(kind) for kind in part[schema.EVENT]], np.int8)
        found[str(user)] = History(items, kinds, part[schema.TIMESTAMP].to_numpy())
    return found


SCENARIOS = (
    Scenario(k=4),
    Scenario(k=4, exclude_seen=True),
    Scenario(k=3, filter='brand = "Acme" AND price < 40'),
    Scenario(k=4, caps=(("brand", 1),), diversity=0.3),
    Scenario(k=4, caps=(("brand", 1),), pins=(("i9", 2),), boosts=((0.4, "price > 25"),)),
    Scenario(k=3, intent="trail boots"),
)


def test_a_change_that_is_written_down_does_what_was_found(
    bundle: Bundle, histories: dict[str, History]
) -> None:
    rng, checked, kinds = np.random.default_rng(0), 0, set()
    users = list(histories)
    for n in range(48):
        scenario, history = SCENARIOS[n % len(SCENARIOS)], histories[users[n % len(users)]]
        item = f"i{int(rng.integers(60))}"
        asked = resolve(bundle, history, bundle.data_end + 1, item, scenario)
        found = explain_item(asked.recommender, asked.question, bundle.kinds)
        changes = found.changes
        if changes.lifted_place is not None:
            written = without_obstacles(scenario, changes.lifted, asked.question, bundle.catalogue.ids)
            again = resolve(bundle, history, bundle.data_end + 1, item, written)
            assert place_in(again.recommender, again.question) == changes.lifted_place
            checked += 1
        for outcome in changes.outcomes:
            written = changed(scenario, outcome.change, changes.lifted, asked.question, bundle.catalogue.ids)
            again = resolve(bundle, history, bundle.data_end + 1, item, written)
            assert place_in(again.recommender, again.question) == outcome.place, (scenario, outcome)
            checked += 1
            kinds.add(outcome.change.kind)
    assert checked > 60
    assert {Kind.k, Kind.boost, Kind.quota, Kind.companion} <= kinds


FULL = Scenario(
    k=4, filter="price < 9 AND brand:*", intent="boots", exclude_seen=True, exclude=("i1", "i2"),
    caps=(("brand", 1), ("title", 2)), pins=(("i9", 2), ("i8", 1)),
    boosts=((0.4, "price > 25"), (0.1, "price > 2")), exploration=0.2, events=(("click", "i3"),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        (Change(Kind.k, 12), "k", 12),
        (Change(Kind.diversity, 0.5), "diversity", 0.5),
        (Change(Kind.novelty, 0.02), "novelty", 0.02),
        (Change(Kind.intent), "intent", ""),
        (Change(Kind.cap, 3, "title", 1), "caps", (("brand", 1), ("title", 3))),
        (Change(Kind.cap, 0, "brand", 0), "caps", (("title", 2),)),
        (Change(Kind.pin, row=8), "pins", (("i9", 2),)),
        (Change(Kind.other_boost, number=0), "boosts", ((0.1, "price > 2"),)),
        (Change(Kind.exploration), "exploration", 0.0),
        (Change(Kind.boost, 0.3), "boosts", (*FULL.boosts, (0.3, 'item_id = "i5"'))),
        (Change(Kind.quota, 40, "popular"), "quotas", (("popular", 40),)),
        (Change(Kind.event, name="purchase", row=5), "events", (("click", "i3"), ("purchase", "i5"))),
        (Change(Kind.companion, name="click", row=6), "events", (("click", "i3"), ("click", "i6"))),
        (Change(Kind.without_event, row=3), "without", ("i3",)),
    ],
)
def test_a_change_is_written_in_its_field(
    bundle: Bundle, change: Change, field: str, expected: object
) -> None:
    asked = resolve(bundle, EMPTY, bundle.data_end, "i5", FULL).question
    written = changed(FULL, change, (), asked, bundle.catalogue.ids)
    assert getattr(written, field) == expected
    others = ("events",) if change.kind is Kind.without_event else ()
    for name in settings_of(FULL):
        assert name in (field, *others) or getattr(written, name) == getattr(FULL, name)
    if others:
        assert written.events == ()


def test_lifting_rules_leaves_the_others(bundle: Bundle) -> None:
    asked = resolve(bundle, EMPTY, bundle.data_end, "i2", FULL).question
    found = (Obstacle(Rule.filter, 0), Obstacle(Rule.excluded), Obstacle(Rule.seen), Obstacle(Rule.cap, 1))
    lifted = without_obstacles(FULL, found, asked, bundle.catalogue.ids)
    assert lifted.filter == "brand:*"
    assert lifted.exclude == ("i1",)
    assert lifted.exclude_seen is False
    assert lifted.caps == (("brand", 1),)


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        (Scenario(k=0), "k: 0 is below 1"),
        (Scenario(diversity=2.0), "diversity: 2 is not between 0 and 1"),
        (Scenario(exploration=-0.5), "exploration: -0.5 is not between 0 and 1"),
        (Scenario(filter="prize < 3"), "filter: column 1: unknown attribute 'prize'; did you mean 'price'?"),
        (Scenario(exclude=("i999",)), "exclude: no item 'i999' in the catalogue; did you mean 'i9'"),
        (Scenario(caps=(("brnd", 1),)), "cap: unknown attribute 'brnd'; did you mean 'brand'?"),
        (Scenario(caps=(("brand", 0),)), "caps brand: 0 is below 1"),
        (Scenario(pins=(("i1", 1), ("i2", 1))), "pin: positions count from 1, and each holds one item"),
        (Scenario(boosts=((0.0, "price > 1"),)), "boost: 0 is not between -1 and 1, or is 0"),
        (Scenario(boosts=((0.5, "price >"),)), "boost: filter 'price >': column 8"),
        (
            Scenario(events=(("bought", "i1"),)),
            "event: the bundle has no kind 'bought'; it has purchase, click",
        ),
        (
            Scenario(quotas=(("poppular", 5),)),
            "quota: no source has the quota 'poppular'; did you mean 'popular'?",
        ),
        (Scenario(quotas=(("popular", -1),)), "quota: popular: -1 is below 0"),
    ],
)
def test_a_wrong_value_is_refused_by_name(
    bundle: Bundle, histories: dict[str, History], scenario: Scenario, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        resolve(bundle, histories["u1"], 1_800_000_000, "i1", scenario)
    assert message in str(caught.value)


def test_an_unknown_item_is_refused_with_the_nearest_id(
    bundle: Bundle, histories: dict[str, History]
) -> None:
    with pytest.raises(InputError, match="item: no item 'i1x' in the catalogue; did you mean 'i1"):
        resolve(bundle, histories["u1"], 1_800_000_000, "i1x", Scenario())


def test_events_are_added_last_and_taken_out_whole(bundle: Bundle, histories: dict[str, History]) -> None:
    history = histories["u1"]
    gone = int(history.items[0])
    scenario = Scenario(events=(("click", "i3"),), without=(bundle.catalogue.ids[gone],), at=1_900_000_000)
    made = resolve(bundle, history, 5, "i1", scenario).question.request.history
    kept = history.items != gone
    assert made.items.tolist() == [*history.items[kept].tolist(), 3]
    assert made.kinds.tolist() == [*history.kinds[kept].tolist(), 1]
    assert made.times.tolist() == [*history.times[kept].tolist(), 1_900_000_000]


def test_only_what_is_set_is_a_setting() -> None:
    assert settings_of(Scenario()) == {}
    assert settings_of(Scenario(k=3, filter="x")) == {"k": 3, "filter": "x"}


def test_an_item_with_quotes_in_its_id_is_still_one_filter() -> None:
    assert only('a"b\\c') == 'item_id = "a\\"b\\\\c"'
