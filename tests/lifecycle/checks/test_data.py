"""Every check by values computed by hand, on a shop whose days are alike."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from benchmarks.bad_days.planted import Feed
from conf.drift import CHECKS, ChecksConfig, limit_names
from conf.errors import InputError
from lifecycle.checks.check import Check, Outcome
from lifecycle.checks.data import check_run, check_tables
from lifecycle.checks.profile import Profile, load_profile, profile_of, save_profile
from tests.lifecycle.checks.shop import DAYS, FIRST, NIGHT, PER_DAY, TODAY, feed, tables

LIMITS = ChecksConfig()
NOW = pl.col("timestamp")


@pytest.fixture(scope="module", name="before")
def _before() -> Profile:
    """Return the profile of the night before."""
    return profile_of(tables(feed(TODAY - timedelta(days=1))))


@pytest.fixture(scope="module", name="tonight")
def _tonight() -> Feed:
    return feed()


def checks(
    previous: Profile | None, night: Feed, limits: ChecksConfig = LIMITS, **info: Any
) -> dict[str, Check]:
    return {check.name: check for check in check_tables(previous, tables(night, **info), limits, NIGHT)}


def refused(found: dict[str, Check]) -> set[str]:
    return {name for name, check in found.items() if check.outcome is Outcome.refused}


def test_a_day_like_the_others_passes_every_check(before: Profile, tonight: Feed) -> None:
    found = checks(before, tonight)
    assert {c.outcome for c in found.values()} == {Outcome.passed}
    values = {name: check.value for name, check in found.items()}
    zero = {"rejects", "repeats", "earlier_days", "events_lost", "future", "kinds", "hours", "items_lost"}
    assert {name: values[name] for name in zero} == dict.fromkeys(zero, 0.0)
    assert (values["volume_low"], values["volume_high"], values["unit_value"]) == (1.0, 1.0, 1.0)
    assert values["gap"] == pytest.approx(12.1 / 24)  # 19:54 to 8:00
    assert values["top_user"] == 2 / PER_DAY
    assert values["new_users"] == 0.0


def test_the_first_run_has_nothing_to_be_refused_for(tonight: Feed) -> None:
    night = replace(tonight, today=tonight.today.with_columns(pl.lit("bot").alias("user_id")))
    found = checks(None, night)
    assert refused(found) == set()
    assert found["top_user"].outcome is Outcome.warned
    assert "lets this run pass" not in found["top_user"].line
    assert found["items_lost"].outcome is Outcome.not_judged


def test_names_of_checks_are_names_of_limits(before: Profile, tonight: Feed) -> None:
    """`checks.warn_only` and the reference name checks by their limit."""
    other = {"gap": "gap_days", "kinds_missing": "volume_low", "value": "numbers", "quantity": "numbers"}
    other |= {"unit_value": "numbers"}
    found = {name.partition(".")[0] for name in checks(before, tonight)}
    assert {other.get(name, name) for name in found} == set(limit_names())
    assert found == set(CHECKS) - {"features_dead", "features", "scores"}  # these are of models
    with pytest.raises(InputError, match=r"no check 'psi\.price'; .*checks are rejects, repeats"):
        ChecksConfig(warn_only=["psi.price"])
    with pytest.raises(InputError, match="no check 'text_changed'; did you mean 'texts_changed'"):
        ChecksConfig(warn_only=["text_changed"])


def test_an_event_in_the_future_does_not_end_the_checks_of_later_nights(tonight: Feed) -> None:
    yesterday = feed(TODAY - timedelta(days=1))
    late = yesterday.today.head(1).with_columns(NOW + timedelta(days=365))
    log = pl.concat([yesterday.before, late])
    previous = profile_of(tables(replace(yesterday, before=log)), now=NIGHT - 86_400)
    twice = replace(tonight, before=pl.concat([tonight.before, late]), today=pl.concat([tonight.today] * 5))
    found = checks(previous, twice)
    assert (found["earlier_days"].value, found["new_users"].outcome) == (0.0, Outcome.passed)
    assert (found["volume_high"].value, found["volume_high"].outcome) == (5.0, Outcome.warned)
    assert found["future"].value == 1 / 601
    first = checks(None, replace(tonight, before=pl.concat([tonight.before, late])))
    assert first["top_user"].value == 3 / 121  # two of today, and the late one


def test_repeated_rows_are_a_share_of_the_new_ones(before: Profile, tonight: Feed) -> None:
    night = replace(tonight, today=pl.concat([tonight.today, tonight.today.head(30)]))
    check = checks(before, night)["repeats"]
    assert (check.value, check.outcome) == (30 / 150, Outcome.warned)  # the limit, 0.2, is not above itself
    assert "30 of 150 new events repeat another one" in check.line
    assert "item 'i" in check.line


def test_repeats_of_a_log_that_forgets_are_a_share_of_what_came(before: Profile, tonight: Feed) -> None:
    log = tonight.before.slice(PER_DAY)
    twice = replace(tonight, before=log, today=pl.concat([tonight.today, tonight.today]))
    check = checks(before, twice)["repeats"]
    assert (check.value, check.outcome) == (0.5, Outcome.refused)
    # 30 of 120 rows are repeated, as 30 were on the day that is forgotten: a fifth, not nothing
    first = tonight.before.head(PER_DAY)
    noisy = profile_of(
        tables(replace(feed(TODAY - timedelta(days=1)), before=pl.concat([first.head(30), tonight.before])))
    )
    again = replace(tonight, before=log, today=pl.concat([tonight.today, tonight.today.head(30)]))
    assert checks(noisy, again)["repeats"].value == 30 / 150


def test_a_limit_that_is_named_warns_only(before: Profile, tonight: Feed) -> None:
    night = replace(tonight, today=pl.concat([tonight.today, tonight.today]))
    assert refused(checks(before, night)) == {"repeats"}
    line = checks(before, night)["repeats"].line
    assert line.endswith("If it is right as it is, 'checks.warn_only=[repeats]' lets this run pass")
    assert refused(checks(before, night, ChecksConfig(warn_only=["repeats"]))) == set()


def test_a_day_that_was_seen_must_not_grow(before: Profile, tonight: Feed) -> None:
    late = tonight.before.tail(PER_DAY).head(60).with_columns(NOW + timedelta(seconds=1))
    check = checks(before, replace(tonight, before=pl.concat([tonight.before, late])))["earlier_days"]
    assert (check.value, check.outcome) == (0.5, Outcome.warned)
    more = tonight.before.tail(PER_DAY).head(61).with_columns(NOW + timedelta(seconds=1))
    check = checks(before, replace(tonight, before=pl.concat([tonight.before, more])))["earlier_days"]
    assert check.outcome is Outcome.refused
    assert check.line.startswith(
        f"{TODAY - timedelta(days=1)} had 120 events in the last run and has 181 now"
    )


def test_events_before_the_log_began_are_seen(before: Profile, tonight: Feed) -> None:
    old = tonight.today.with_columns(NOW - timedelta(days=365))
    found = checks(before, replace(tonight, today=old))
    assert refused(found) == {"earlier_days"}
    assert found["earlier_days"].value == 120 / 50  # 50 is the least a day counts for


def test_a_log_that_forgets_its_oldest_day_has_lost_nothing(before: Profile, tonight: Feed) -> None:
    found = checks(before, replace(tonight, before=tonight.before.slice(PER_DAY + 7)))
    assert (found["events_lost"].value, found["events_lost"].outcome) == (0.0, Outcome.passed)
    half = checks(before, replace(tonight, before=tonight.before.gather_every(2)))["events_lost"]
    assert (half.value, half.outcome) == (0.5, Outcome.refused)


def test_a_quiet_holiday_warns_and_a_collapse_of_the_last_day_is_refused(
    before: Profile, tonight: Feed
) -> None:
    quiet = checks(before, replace(tonight, today=tonight.today.gather_every(4)))["volume_low"]
    assert (quiet.value, quiet.outcome) == (4.0, Outcome.warned)
    assert quiet.normal == "120 on that weekday"
    collapse = checks(before, replace(tonight, today=tonight.today.head(8)))["volume_low"]
    assert (collapse.value, collapse.outcome) == (15.0, Outcome.refused)


def test_a_sale_is_no_fault(before: Profile, tonight: Feed) -> None:
    parts = [tonight.today.with_columns(NOW + timedelta(seconds=n)) for n in range(6)]
    found = checks(before, replace(tonight, today=pl.concat(parts)))
    assert refused(found) == set()
    assert (found["volume_high"].value, found["volume_high"].outcome) == (6.0, Outcome.warned)


def test_hours_that_always_have_events(before: Profile, tonight: Feed) -> None:
    check = checks(before, replace(tonight, today=tonight.today.head(40)))["hours"]  # 8 to 12 o'clock
    assert check.value == pytest.approx(8 / 12)
    assert "hours (UTC) 12 to 19, which usually have 67%" in check.line
    assert check.outcome is Outcome.refused


def test_a_hole_in_an_earlier_day_is_refused_once_and_not_for_ever(before: Profile) -> None:
    """The night after, what was missing yesterday does not come any more."""
    tomorrow = feed(TODAY + timedelta(days=1))
    rows = tomorrow.before.slice(0, (DAYS - 1) * PER_DAY + 40)
    night = tables(replace(tomorrow, before=rows))
    found = {c.name: c for c in check_tables(before, night, LIMITS, NIGHT + 86_400)}
    assert found["hours"].outcome is Outcome.warned
    assert found["hours"].value == pytest.approx(8 / 12)
    assert refused(found) == set()


def test_a_day_that_is_not_over_is_not_judged(before: Profile, tonight: Feed) -> None:
    night = tables(replace(tonight, today=tonight.today.head(60)))
    noon = {c.name: c for c in check_tables(before, night, LIMITS, NIGHT - 14 * 3600)}
    assert noon["hours"].outcome is Outcome.not_judged
    assert noon["volume_low"].outcome is Outcome.not_judged
    assert refused(noon) == set()


def test_a_rare_kind_that_vanishes_is_seen(before: Profile, tonight: Feed) -> None:
    views = tonight.today.with_columns(pl.lit("view").alias("event"))
    found = checks(before, replace(tonight, today=views))
    assert found["kinds"].value == pytest.approx(1 / 3)
    assert "0 of the new events are 'purchase', 40 are expected" in found["kinds_missing"].line
    assert refused(found) == {"kinds", "kinds_missing"}


def test_amounts_are_compared_with_the_nearest_day(before: Profile, tonight: Feed) -> None:
    night = replace(tonight, today=tonight.today.with_columns(pl.col("value") * 1.5))
    check = checks(before, night)["unit_value"]
    assert check.value == pytest.approx(1.5)
    assert check.outcome is Outcome.warned  # above the root of the factor 2
    pence = replace(tonight, today=tonight.today.with_columns(pl.col("value") / 100))
    assert refused(checks(before, pence)) == {"value", "unit_value"}


def test_no_raw_user_is_in_a_line(before: Profile, tonight: Feed) -> None:
    night = replace(tonight, today=tonight.today.with_columns(pl.lit("anna@shop.example").alias("user_id")))
    found = checks(before, night)
    assert refused(found) == {"top_user", "new_users"}
    assert all("anna" not in json.dumps(check.record()) for check in found.values())


def test_rejected_rows_are_a_share_of_the_new_ones(before: Profile, tonight: Feed) -> None:
    rows = {"items": 100, "events": DAYS * PER_DAY}
    found = checks(
        before,
        replace(tonight, today=tonight.today.head(90)),
        rows_read=rows,
        rejects={"items": {}, "events": {"unknown item": 30}},
    )
    check = found["rejects"]
    assert (check.value, check.outcome) == (0.25, Outcome.refused)
    assert check.line.startswith("30 of 120 new rows of events are rejected (25.0%): unknown item (30)")


def test_old_events_of_an_item_that_is_gone_are_no_new_rejects(before: Profile, tonight: Feed) -> None:
    item = pl.col("item_id") == "i0"
    log, today = tonight.before, tonight.today
    gone, rejected = log.filter(item).height, log.filter(item).height + today.filter(item).height
    assert (gone, rejected) == (83, 84)  # 1.2 a day
    found = checks(
        before,
        Feed(tonight.items.filter(~item), log.filter(~item), today.filter(~item)),
        rows_read={"items": 99, "events": DAYS * PER_DAY},
        rejects={"items": {}, "events": {"unknown item": rejected}},
    )
    # 1 of today, and 2 of the oldest day, which a log may forget
    assert "3 of 122 new rows of events are rejected (2.5%): unknown item (3)" in found["rejects"].line
    assert found["events_lost"].value == 81 / ((DAYS - 2) * PER_DAY)
    assert refused(found) == set()


def test_rejected_rows_of_a_log_that_forgets(before: Profile, tonight: Feed) -> None:
    found = checks(
        before,
        replace(tonight, before=tonight.before.slice(PER_DAY - 60), today=tonight.today.head(110)),
        rows_read={"items": 100, "events": DAYS * PER_DAY - 60},  # 120 are new, 60 gone
        rejects={"items": {}, "events": {"bad timestamp": 10}},
    )
    assert found["rejects"].value == 10 / 120


def test_items_that_are_gone_and_new(before: Profile, tonight: Feed) -> None:
    fewer = checks(before, replace(tonight, items=tonight.items.head(75)))
    assert (fewer["items_lost"].value, fewer["items_lost"].outcome) == (0.25, Outcome.refused)
    assert (
        "25 items are gone, 25.0% of the 100 of the last run (e.g. 'i75', 'i76', 'i77')"
        in fewer["items_lost"].line
    )
    smaller = profile_of(tables(replace(feed(TODAY - timedelta(days=1)), items=tonight.items.head(40))))
    more = checks(smaller, tonight)["items_new"]
    assert (more.value, more.outcome) == (1.5, Outcome.refused)


def test_texts(before: Profile, tonight: Feed) -> None:
    title = pl.col("title")
    some = pl.int_range(pl.len()) < 20
    empty = tonight.items.with_columns(pl.when(some).then(pl.lit("")).otherwise(title).alias("title"))
    found = checks(before, replace(tonight, items=empty))
    assert (found["texts_empty"].value, found["texts_changed"].value) == (0.2, 0.2)
    assert refused(found) == {"texts_empty"}
    bytes_read = title.map_elements(lambda t: t.encode().decode("cp1252", "replace"), return_dtype=pl.String)
    broken = checks(before, replace(tonight, items=tonight.items.with_columns(bytes_read)))
    assert broken["texts_encoding"].value == 1.0
    assert refused(broken) == {"texts_encoding", "texts_changed"}
    other = checks(before, replace(tonight, items=empty), text_fields=["title", "brand"])
    assert other["texts_changed"].outcome is Outcome.not_judged


def test_prices_and_categories(before: Profile, tonight: Feed) -> None:
    pence = checks(before, replace(tonight, items=tonight.items.with_columns(pl.col("price") * 100)))
    assert pence["price_unit"].value == 100.0
    assert refused(pence) == {"price_unit", "psi.price"}
    assert "'i0': 4 before, 400 now" in pence["price_unit"].line
    one = tonight.items.with_columns(
        pl.when(pl.col("brand") == "brand 0").then(pl.lit("brand 1")).otherwise("brand").alias("brand")
    )
    found = checks(before, replace(tonight, items=one))
    assert refused(found) == {"psi.brand"}
    assert (
        "'brand 0' has 0.0% of the items" in found["psi.brand"].line
        or "'brand 1' has 50.0%" in found["psi.brand"].line
    )


@pytest.mark.parametrize(
    ("brand", "line"),
    [
        (pl.lit("brand 0"), "'brand 0' has 100.0% of the items; normal is 25.0%"),
        (pl.col("item_id"), "has 0.0% of the items; normal is 25.0%"),
    ],
)
def test_a_category_that_all_items_or_no_two_have(
    before: Profile, tonight: Feed, brand: pl.Expr, line: str
) -> None:
    found = checks(before, replace(tonight, items=tonight.items.with_columns(brand.alias("brand"))))
    assert refused(found) == {"psi.brand"}
    assert line in found["psi.brand"].line


def test_an_attribute_that_is_gone(before: Profile, tonight: Feed) -> None:
    found = checks(before, replace(tonight, items=tonight.items.drop("brand")))
    assert refused(found) == {"attributes"}
    assert "100.0% of the items have no brand: the column is gone" in found["attributes"].line


def test_a_profile_is_kept_and_holds_no_user(before: Profile, tonight: Feed, tmp_path: Path) -> None:
    found = check_tables(before, tables(tonight), LIMITS, NIGHT)
    profile = profile_of(tables(tonight), before, found)
    save_profile(profile, tmp_path)
    loaded = load_profile(tmp_path)
    assert loaded is not None
    assert loaded.items.equals(profile.items)
    assert replace(loaded, items=profile.items) == profile
    assert loaded.values["top_user"] == [round(2 / PER_DAY, 6)]
    assert loaded.days[f"{FIRST}"] == PER_DAY
    assert not any(f'"u{n}"' in (tmp_path / "profile.json").read_text() for n in range(60))
    assert load_profile(tmp_path / "other") is None


def test_a_damaged_profile_is_named(before: Profile, tmp_path: Path) -> None:
    save_profile(before, tmp_path)
    (tmp_path / "profile.json").write_text('{"format": 2}')
    with pytest.raises(InputError, match=r"profile\.json: not a profile .* remove the file"):
        load_profile(tmp_path)


def test_no_dataset_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run `shelfwise prepare` first"):
        check_run(None, tmp_path, LIMITS, time.time())
