"""Whole nights on a synthetic shop: the first model, the next ones, refusals, and what is left of each."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from conf.drift import ChecksConfig
from conf.errors import InputError
from conf.lifecycle import Learns
from conf.schema import SplitConfig, SplitKind
from features.data import schema
from lifecycle.retrain.lock import run_lock
from lifecycle.retrain.window import iso
from ranking.bundle.store import current_version, publish_version, versions
from tests.lifecycle.retrain.conftest import FIRST, NEW_ITEMS_ONLY, Shop
from tests.synthetic import DAY


def newest(shop: Shop, day: float) -> int:
    return int(shop.log(day)[schema.TIMESTAMP].max())  # type: ignore[arg-type]


def test_the_first_night_publishes_a_model_that_beats_the_most_popular_items(new_shop: Shop) -> None:
    code, lines = new_shop.night()
    night = new_shop.last
    assert code == 0
    assert lines[-1] == f"retrain: published: {new_shop.current} is current, before it none; {night.path}"
    assert (night.content["outcome"], night.content["exit_code"]) == ("published", 0)
    assert list(night.steps) == [
        "collect", "prepare", "check", "plan", "train", "observe", "publish", "watch", "retain",
    ]  # fmt: skip
    published = night.steps["publish"]
    assert (published["version"], published["before"], published["comparison"]) == (
        new_shop.current, None, None
    )  # fmt: skip
    (floor,) = published["floor"]
    assert floor["metric"] == "ndcg@10"
    assert floor["outcome"] == "held"
    assert floor["b"] > floor["a"] > 0
    begins = iso(newest(new_shop, FIRST) - 7 * DAY)
    assert night.steps["plan"]["window_start"] == begins
    assert iso(new_shop.manifest(new_shop.current)["data_end"]) == begins, "what it has learnt"


def test_the_next_night_is_measured_on_what_neither_model_has_learnt(shop: Shop) -> None:
    before = shop.current
    code, lines = shop.night()
    night = shop.last
    assert code == 0, lines[-1]
    assert versions(shop.store) == [before, shop.current]
    plan, published = night.steps["plan"], night.steps["publish"]
    assert plan["served_learnt_before"] == iso(shop.manifest(before)["data_end"])
    assert plan["window_start"] == iso(newest(shop, FIRST + 2) - 7 * DAY)
    later = shop.log(FIRST + 2).filter(pl.col(schema.TIMESTAMP) > newest(shop, FIRST))
    assert night.steps["prepare"]["new_events"] == len(later) > 5
    compared = published["comparison"]
    assert (compared["a"]["version"], compared["b"]["version"]) == (before, shop.current)
    assert compared["window"]["queries"] == plan["queries"]
    assert {guard["metric"] for guard in published["guards"]} == {"ndcg@10", "recall@10"}
    drifts = {check["name"]: check for check in published["checks"]}
    assert {"scores", "features_dead", "features.user_score"} <= set(drifts)
    assert {check["outcome"] for check in drifts.values()} <= {"passed", "warned"}
    assert 0 <= compared["metrics"]["ndcg@10"]["p_value"] <= 1


def test_too_few_new_events_end_the_night_with_11(shop: Shop) -> None:
    before = shop.current
    shop.until(FIRST)
    code, lines = shop.night()
    assert code == 11
    assert lines[-1].startswith(f"retrain: too little: 0 events since {iso(newest(shop, FIRST))}, the newest")
    assert "retrain.min_new_events is 5" in lines[-1]
    assert shop.current == before
    assert shop.last.content["exit_code"] == 11
    assert shop.night(min_new_events=10_000)[0] == 11


def test_a_night_of_unknown_items_is_refused_and_the_next_one_goes_live(shop: Shop) -> None:
    before, good = shop.current, shop.log(FIRST + 2)
    lost = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("gone-") + schema.ITEM_ID)
    shop.write(good.with_columns(lost.otherwise(schema.ITEM_ID).alias(schema.ITEM_ID)))
    code, lines = shop.night()
    assert code == 10
    assert "302 of 603 rows of events are rejected (50.1%: 302 unknown item)" in lines[-1]
    assert "the last published run had 0.0%: more than data.max_reject_fraction=0.01 above that" in lines[-1]
    assert shop.current == before
    assert f"see {shop.places.runs / shop.last.run}/dataset/rejects.parquet" in lines[-1]
    assert "/dataset/rejects.parquet" not in shop.night(dry_run=True)[1][-1], "a dry run leaves no folder"
    refused = {check["name"]: check["outcome"] for check in shop.last.steps["check"]["checks"]}
    assert (refused["rejected_items"], refused["rejected_events"]) == ("passed", "refused")
    assert "train" not in shop.last.steps
    shop.write(good)
    assert shop.night()[0] == 0
    assert shop.current > before


def test_a_day_that_is_delivered_twice_is_refused_and_the_next_good_one_goes_live(shop: Shop) -> None:
    assert shop.night()[0] == 0
    before, good = shop.current, shop.log(FIRST + 16)
    new = good.filter(pl.col(schema.TIMESTAMP) > newest(shop, FIRST + 2))
    shop.write(pl.concat([good, new]))
    code, lines = shop.night()
    assert code == 10
    assert f"{len(new):,} of {2 * len(new):,} new events repeat another one" in lines[-1]
    assert "checks.warn_only=[repeats]" in lines[-1]
    assert shop.current == before
    shop.write(good)
    assert shop.night()[0] == 0
    checks = {check["name"]: check for check in shop.last.steps["check"]["checks"]}
    assert (checks["repeats"]["outcome"], checks["repeats"]["value"]) == ("passed", 0.0)


def test_a_worse_model_is_refused_with_its_guards_and_the_served_one_stays(shop: Shop) -> None:
    before = shop.current
    code, lines = shop.night(**NEW_ITEMS_ONLY)
    assert code == 10
    assert lines[-1].startswith("retrain: refused: broken: ndcg@10 loses at most 5%: ")
    assert (shop.current, versions(shop.store)) == (before, [before])
    found = shop.last.steps["publish"]
    assert {guard["outcome"] for guard in found["guards"]} == {"broken"}
    assert found["candidate"] > before
    assert "version" not in found


def test_a_bad_model_is_refused_where_nothing_is_served_to_compare_it_with(new_shop: Shop) -> None:
    code, lines = new_shop.night(**NEW_ITEMS_ONLY)
    assert code == 10
    assert "broken: ndcg@10 loses at most 0: " in lines[-1]
    assert "(from the most popular items)" in lines[-1]
    assert versions(new_shop.store) == []
    assert new_shop.night(**NEW_ITEMS_ONLY, floor=None)[0] == 0


def test_a_model_trained_once_more_with_the_window_leaves_the_next_night_what_comes_after(shop: Shop) -> None:
    before = shop.current
    assert shop.night(refit=Learns.everything)[0] == 0
    made = shop.manifest(shop.current)
    assert (made["refit"], made["data_end"]) == ("everything", newest(shop, FIRST + 2))
    assert versions(shop.store) == [before, shop.current], "the measured model is not published itself"
    assert shop.last.steps["publish"]["candidate"] != shop.current
    shop.until(FIRST + 4)
    assert shop.night(refit=Learns.everything)[0] == 0
    assert shop.last.steps["plan"]["window_start"] == iso(newest(shop, FIRST + 2) + 1)


def test_a_second_run_ends_at_once_with_13(shop: Shop) -> None:
    with run_lock(shop.places.lock):
        code, lines = shop.night()
    assert code == 13
    assert f"another run holds {shop.places.lock}: process " in lines[-1]
    assert len(list(shop.places.audit.glob("*.json"))) == 1


def test_a_missing_table_is_bad_input_with_an_audit_file(shop: Shop) -> None:
    before = shop.current
    with pytest.raises(InputError, match=r"data.items: no such file: /nowhere.csv"):
        shop.night(data=replace(shop.config.data, items="/nowhere.csv"))
    assert (shop.last.content["outcome"], shop.last.content["exit_code"]) == ("bad_input", 2)
    assert shop.current == before


def test_a_fault_is_in_the_audit_file_and_the_next_night_does_not_suffer(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lifecycle.retrain.training.train_ranker", full)
        code, lines = shop.night()
    assert code == 1
    assert "retrain: fault: OSError: [Errno 28] No space left on device" in lines[-1]
    assert "Traceback" in shop.last.content["traceback"]
    assert shop.night()[0] == 0


def test_a_dry_run_says_what_a_run_would_do_and_leaves_nothing(shop: Shop) -> None:
    audit, runs = list(shop.places.audit.iterdir()), list(shop.places.runs.iterdir())
    code, lines = shop.night(dry_run=True)
    assert (code, lines[-1]) == (0, "retrain: dry run; a run would train now")
    assert any(line.startswith("retrain: window from ") for line in lines)
    shop.until(FIRST)
    code, lines = shop.night(dry_run=True)
    assert code == 11
    assert lines[-1].startswith("retrain: dry run; a run would end with: too little: 0 events since ")
    assert (list(shop.places.audit.iterdir()), list(shop.places.runs.iterdir())) == (audit, runs)


def test_old_versions_and_runs_go_and_what_is_needed_stays(shop: Shop) -> None:
    first = shop.current
    for number in range(2):
        publish_version(shop.store, lambda folder: None, {"number": number, "data_end": 0})
    from ranking.bundle.store import roll_back

    roll_back(shop.store, first)  # older than the others, and current
    assert shop.night(keep_versions=2, keep_runs=1)[0] == 0
    kept = versions(shop.store)
    assert current_version(shop.store) == kept[-1]
    assert first in kept, "the one that was served before"
    assert len(kept) == 3
    assert [path.name for path in shop.places.runs.iterdir()] == [shop.last.run]
    assert len(list(shop.places.audit.glob("*.json"))) == 2, "audit files stay"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": SplitConfig(kind=SplitKind.leave_one_out)}, "split=leave_one_out does not hold back"),
        ({"split": SplitConfig(test_start="2024-01-01")}, "retrain sets them each night"),
    ],
)
def test_settings_that_a_night_decides_itself_are_refused(
    shop: Shop, settings: dict[str, SplitConfig], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        shop.settings(**settings)


def test_rows_that_every_run_rejects_do_not_refuse_the_next_one(shop: Shop) -> None:
    def with_given_up(day: float) -> pl.DataFrame:
        log = shop.log(day)
        given_up = log.head(len(log) // 10).with_columns(pl.lit("given-up").alias(schema.ITEM_ID))
        return pl.concat([log, given_up])

    shop.write(with_given_up(FIRST + 2))
    told = ChecksConfig(warn_only=["rejects"])
    code, lines = shop.night(checks=told)
    assert (code, "more than data.max_reject_fraction=0.01 above that" in lines[-1]) == (10, True)
    data = replace(shop.config.data, max_reject_fraction=0.2)
    assert shop.night(checks=told, data=data)[0] == 0
    shop.write(with_given_up(FIRST + 4))
    assert shop.night(dry_run=True)[0] == 0
