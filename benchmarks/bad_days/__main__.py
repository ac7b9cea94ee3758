"""Whether the checks of `retrain` refuse bad days and accept good ones: Online Retail, night by night.

Every night of the data set is checked against the last accepted one, as `retrain` does, without training.
Then every bad day of `BAD_DAYS` is planted into some nights, prepared from files by `prepare`, and checked;
so is the good day after it.

    python -m benchmarks.bad_days [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl
from rich.console import Console

from benchmarks.bad_days.planted import BAD_DAYS, BadDay, Feed
from benchmarks.bad_days.shop import LOG, Shop
from conf.drift import ChecksConfig
from conf.errors import InputError
from conf.schema import DataConfig, PipelineConfig
from features.data import schema
from features.ingest.rejects import COLUMNS
from features.prepare import prepare
from lifecycle.checks.check import Check, Outcome
from lifecycle.checks.data import check_tables
from lifecycle.checks.profile import Profile, profile_of
from lifecycle.checks.tables import Tables, read_tables, with_days

_FIRST_NIGHT: Final = 14
"""Days with events before the first checked night."""
_PLANTED: Final = (date(2011, 3, 16), date(2011, 8, 19), date(2011, 11, 17))
"""Nights into which the bad days are planted: a Wednesday, a Friday, and a Thursday before Christmas."""


def tables_of(feed: Feed) -> Tables:
    """Return what `prepare` makes of a good feed: it rejects nothing of this data set."""
    seconds = pl.col(schema.TIMESTAMP).dt.epoch("s")
    events = with_days(feed.events.with_columns(seconds))
    items = feed.items.with_columns(pl.col("title").alias(schema.TEXT))
    info = {
        "content_hash": "",
        "users": events[schema.USER_ID].n_unique(),
        "rows_read": {"items": items.height, "events": events.height},
        "rejects": {"items": {}, "events": {}},
        "items_without_text": 0,
        "text_fields": ["title"],
        "text_fallback_fields": [],
        "max_text_chars": 1000,
        "attributes": {"title": "string", schema.PRICE: "number"},
    }
    return Tables(items, events, pl.DataFrame(schema=COLUMNS), info)


def prepared(feed: Feed, folder: Path) -> Tables:
    """Write a feed as files and prepare it, as `retrain` does."""
    feed.items.write_parquet(folder / "items.parquet")
    feed.events.write_parquet(folder / "events.parquet")
    data = DataConfig(
        items=str(folder / "items.parquet"),
        events=str(folder / "events.parquet"),
        text_fields=["title"],
        max_reject_fraction=1.0,
    )
    config = PipelineConfig(work_dir=str(folder / "work"), data=data)
    return read_tables(prepare(config, Console(quiet=True)))


def _now(day: date) -> float:
    """Return the time of the night after a day: 2 o'clock, Unix seconds."""
    return (datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=26)).timestamp()


def good_nights(shop: Shop, limits: ChecksConfig) -> Iterator[tuple[date, Profile, list[Check]]]:
    """Yield every night with the profile it was compared with, and its checks."""
    days = shop.days(date.min, date.max)
    previous = profile_of(tables_of(shop.feed(days[_FIRST_NIGHT - 1])))
    for day in days[_FIRST_NIGHT:]:
        tables = tables_of(shop.feed(day))
        checks = check_tables(previous, tables, limits, _now(day))
        yield day, previous, checks
        if not _refused(checks):
            previous = profile_of(tables, previous, checks)


def planted(shop: Shop, bad: BadDay, day: date, previous: Profile, limits: ChecksConfig) -> dict[str, Any]:
    """Plant a bad day and return its refusals, and those of the next good day."""
    after = shop.days(day + timedelta(days=1), date.max)[0]
    with tempfile.TemporaryDirectory() as folder:
        try:
            tables = prepared(bad.change(shop.feed(day)), Path(folder))
            found = check_tables(previous, tables, limits, _now(day))
        except InputError as error:
            return {"day": f"{day}", "refused_by": ["prepare"], "line": str(error), "next": []}
        good = check_tables(previous, tables_of(shop.feed(after)), limits, _now(after))
    lines = [check.line for check in _refused(found) if check.name in bad.checks]
    return {
        "day": f"{day}",
        "refused_by": [check.name for check in _refused(found)],
        "line": lines[0] if lines else "",
        "next": [check.name for check in _refused(good)],
    }


def _refused(checks: list[Check], outcome: Outcome = Outcome.refused) -> list[Check]:
    return [check for check in checks if check.outcome is outcome]


def measure(path: str, limits: ChecksConfig) -> dict[str, Any]:
    """Return refusals and warnings of the good nights, and what was made of the bad ones."""
    begin = time.process_time()
    shop = Shop.read(path, 0)
    refusals: list[dict[str, str]] = []
    warnings: Counter[str] = Counter()
    judged: Counter[str] = Counter()
    largest: dict[str, float] = {}
    before: dict[date, Profile] = {}
    nights = 0
    for day, previous, checks in good_nights(shop, limits):
        nights += 1
        before[day] = previous
        refusals += [{"day": f"{day}", "check": c.name, "line": c.line} for c in _refused(checks)]
        warnings.update(check.name for check in _refused(checks, Outcome.warned))
        for check in checks:
            if check.value is not None:
                judged[check.name] += 1
                largest[check.name] = max(largest.get(check.name, check.value), check.value)
    good = time.process_time()
    bad = {
        name: [planted(shop, bad, day, before[day], limits) for day in _PLANTED]
        for name, bad in BAD_DAYS.items()
    }
    return {
        "nights": nights,
        "refused": refusals,
        "warnings": dict(warnings.most_common()),
        "judged": dict(judged),
        "largest": {name: round(value, 4) for name, value in largest.items()},
        "bad_days": bad,
        "cpu_seconds": {"good": round(good - begin, 1), "bad": round(time.process_time() - good, 1)},
    }


def _show(result: dict[str, Any], console: Console) -> None:
    for name, planted_days in result["bad_days"].items():
        wanted = BAD_DAYS[name].checks
        caught = sum(bool({*wanted, "prepare"} & {*d["refused_by"]}) for d in planted_days)
        accepted = sum(not d["next"] for d in planted_days)
        console.print(
            f"{name:24} refused {caught} of {len(planted_days)}, next day accepted {accepted}: "
            f"{planted_days[-1]['line'][:160]}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"{result['nights']} untouched nights: {len(result['refused'])} refused", highlight=False)
    for refusal in result["refused"]:
        console.print(
            f"  {refusal['day']} {refusal['check']}: {refusal['line']}", markup=False, soft_wrap=True
        )
    console.print(f"warnings by check: {result['warnings'] or 'none'}", highlight=False)
    console.print(f"CPU seconds: {result['cpu_seconds']}", highlight=False)


def main() -> None:
    """Measure, print, and write JSON where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--log", default=LOG, help="Online Retail as Parquet or CSV")
    parser.add_argument("--json", help="file to write the results to")
    arguments = parser.parse_args()
    result = measure(arguments.log, ChecksConfig())
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _show(result, Console())


if __name__ == "__main__":
    main()
