from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from conf.errors import InputError
from conf.experiment_report import ExperimentReportConfig
from conf.serving import RedisConfig
from lifecycle.experiments.command import experiment_report
from serving.state.contracts.user_state import Exposure, NewEvent
from serving.stores import open_stores
from tests.lifecycle.experiments.conftest import START, Row, Written, crowd

HALVES = {"control": 0.5, "new": 0.5}
ARMS = ("control", "new")


def report(path: Path, **settings: Any) -> tuple[dict[str, Any], str, str]:
    """Return the figures, the page, and what the terminal shows."""
    given: dict[str, Any] = {"shares": HALVES, "artifacts": str(path.parent / "none"), "minimum_units": 20}
    output = path.parent / "report"
    config = ExperimentReportConfig(events=str(path), output=str(output), **(given | settings))
    console = Console(file=io.StringIO(), width=120)
    experiment_report(config, console)
    assert isinstance(console.file, io.StringIO)
    figures = json.loads((output / "report.json").read_text())
    return figures, (output / "report.html").read_text(), console.file.getvalue()


def test_a_better_arm_is_shipped_and_the_figures_are_those_of_the_events(events_file: Written) -> None:
    figures, page, shown = report(events_file(crowd(200, ARMS, [1, 2, 3])))
    assert figures["verdict"]["verdict"] == "ship"
    assert figures["verdict"]["arm"] == "new"
    # control: 1, 2, 3 clicks in turn, 200 users: 67 + 134 + 198 = 399 of 2,000; new: one more each
    assert figures["totals"]["control"]["clicks"] == 399
    assert figures["totals"]["new"]["clicks"] == 599
    row = figures["effects"]["new"]["ctr"]
    assert row["control"] == pytest.approx(0.1995)
    assert row["value"] == pytest.approx(0.2995)
    assert row["lift"] == pytest.approx(599 / 399 - 1)
    assert figures["effects"]["new"]["clicks_per_unit"]["difference"] == pytest.approx(1.0)
    assert figures["split"]["p_value"] == 1.0
    assert [row["units"][0] for row in figures["by_date"]["new"]][-1] == 200
    assert figures["by_date"]["new"][-1]["lift"] == pytest.approx(row["lift"])
    assert figures["missing"] == []  # nothing was bought, so no price is missing
    assert "home: ship" in shown
    assert "+50.1%" in shown
    assert "<title>Experiment home: ship</title>" in page
    assert page.count("<svg") >= 3
    assert "http" not in page.replace("http://www.w3.org", "")  # nothing is fetched


def test_equal_arms_go_on_and_a_worse_one_stops(events_file: Written) -> None:
    same = crowd(150, ("control",), [1, 2, 3]) + crowd(150, ("new",), [1, 2, 3])
    figures, _, _ = report(events_file(same))
    assert figures["verdict"]["verdict"] == "go on"
    assert "undecided" in figures["verdict"]["reasons"][0]
    assert figures["horizon"]["new"]["units"] == 300
    assert figures["horizon"]["new"]["units_needed"] > 300
    figures, _, _ = report(events_file(same), minimum_effect=0.5)
    assert figures["verdict"]["verdict"] == "stop"
    assert "an effect of 50% (minimum_effect) is ruled out" in figures["verdict"]["reasons"][0]
    figures, _, shown = report(events_file(crowd(150, ("new", "control"), [1, 2, 3])))
    assert figures["verdict"]["verdict"] == "stop"
    assert "worse" in figures["verdict"]["reasons"][0]
    assert "home: stop" in shown


def test_a_guard_that_falls_stops_a_better_arm(events_file: Written) -> None:
    rows = crowd(200, ARMS, [1, 2, 3])
    rows += [(f"control-{n}", n % 240 + 1.0, "purchase", "i1", None) for n in range(0, 200, 2)]
    figures, _, _ = report(events_file(rows), guards=["conversion"])
    assert figures["verdict"]["verdict"] == "stop"
    assert figures["verdict"]["reasons"][0].startswith("new: conversion fell; ctr +")


def test_a_broken_split_is_not_read(events_file: Written) -> None:
    rows = crowd(200, ARMS, [1, 2, 3])
    kept = [row for row in rows if not (row[0].startswith("new-") and int(row[0][4:]) >= 130)]
    figures, page, shown = report(events_file(kept))
    assert figures["verdict"]["verdict"] == "do not trust"
    assert "sample-ratio mismatch (p = 0.00012)" in figures["verdict"]["reasons"][0]  # 70² / 330 = 14.85
    assert "do not read the rest" in shown
    assert "lift" not in shown
    assert "Do not read the rest" in page
    assert report(events_file(kept), shares={})[0]["verdict"]["verdict"] == "ship"  # cannot be checked
    assert "split: not checked: no shares are known" in report(events_file(kept), shares={})[2]


def test_an_arm_without_units_and_one_that_nobody_declared(events_file: Written) -> None:
    figures, _, _ = report(events_file(crowd(100, ("control",), [1, 2])))
    assert figures["verdict"]["verdict"] == "do not trust"
    assert "arm 'new' has no unit" in figures["verdict"]["reasons"][0]
    renamed = crowd(100, ARMS, [1, 2]) + [
        (user, hour + 300, kind, item, "home=newer" if user.startswith("new") else "home=control")
        for user, hour, kind, item, _ in crowd(100, ARMS, [1, 2])
    ]
    figures, _, _ = report(events_file(renamed))
    reasons = " ".join(figures["verdict"]["reasons"])
    assert "100 of 200 units saw two arms" in reasons
    assert figures["totals"]["new"]["units"] == 0


def test_clicks_without_impressions_cannot_be_trusted(events_file: Written) -> None:
    rows = [row for row in crowd(100, ARMS, [1, 2]) if row[2] != "impression"]
    figures, _, _ = report(events_file(rows))
    assert figures["verdict"]["verdict"] == "do not trust"
    assert "record an `impression` for each item shown" in " ".join(figures["verdict"]["reasons"])


def test_nothing_is_shipped_before_the_fewest_days_and_units(events_file: Written) -> None:
    path = events_file(crowd(200, ARMS, [1, 2, 3]))
    assert "on fewer than 30 days" in report(path, minimum_days=30)[0]["verdict"]["reasons"][0]
    few = report(path, minimum_units=500)[0]["verdict"]
    assert (few["verdict"], few["arms"]["new"]["reason"]) == (
        "go on", "an arm has 200 units; no statement below 500 (minimum_units)"
    )  # fmt: skip


def test_a_fixed_horizon_says_nothing_before_it(events_file: Written) -> None:
    path = events_file(crowd(200, ARMS, [1, 2, 3]))
    early = report(path, decision="fixed", end="2999-01-01")[0]["verdict"]
    assert early["verdict"] == "go on"
    assert "not yet: the horizon is 2999-01-01" in early["reasons"][0]
    assert "not yet: the horizon is about" in report(path, decision="fixed")[0]["verdict"]["reasons"][0]
    done = report(path, decision="fixed", minimum_effect=0.4)[0]
    assert done["horizon"]["new"]["units_needed"] <= 400
    assert done["verdict"]["verdict"] == "ship"
    assert report(path, decision="fixed", end="2024-06-30")[0]["verdict"]["verdict"] == "ship"


def test_two_arms_share_the_error(events_file: Written) -> None:
    rows = crowd(200, ("control",), [1, 2, 3]) + crowd(200, ("b",), [1, 2, 4]) + crowd(200, ("c",), [4, 5])
    figures, _, shown = report(events_file(rows), shares={"control": 1, "b": 1, "c": 1})
    assert figures["verdict"]["arm"] == "c"
    assert figures["verdict"]["arms"]["b"]["verdict"] == "go on"
    row = figures["effects"]["c"]["ctr"]
    assert row["p_corrected"] == pytest.approx(2 * row["p_value"])
    assert "b against control" in shown


def test_one_unit_with_all_the_value_is_named_and_limited(events_file: Written) -> None:
    rows = crowd(200, ARMS, [1, 2, 3])
    spending: list[Row] = [(f"control-{n}", n % 240 + 1.0, "purchase", "i1", None) for n in range(99)]
    spending += [("new-0", 1.0, "purchase", "i1", None)]
    values = [None] * len(rows) + [1.0] * 99 + [10_000.0]
    path = events_file(rows + spending, value=values)
    figures, _, shown = report(path)
    assert figures["effects"]["new"]["value_per_unit"]["value"] == pytest.approx(50.0)
    assert figures["effects"]["new"]["value_per_unit"]["p_corrected"] > 0.5
    assert "one unit has 100% of the value of arm 'new'" in shown
    limited = report(path, winsorise=0.9)[0]["effects"]["new"]["value_per_unit"]
    assert limited["value"] == pytest.approx(1.0 / 200)


def test_robots_are_reported_and_left_out_on_demand(events_file: Written) -> None:
    robot: list[Row] = [("control-0", 1.0 + k / 3600, "click", f"i{k}", "home=control") for k in range(300)]
    path = events_file(crowd(200, ARMS, [1, 2, 3]) + robot)
    figures, _, shown = report(path, most_events_a_day=200)
    assert figures["outliers"]["units"] == {"control": 1, "new": 0}
    assert figures["outliers"]["busiest_day"] == 311
    assert "1 units have more than 200 events on one day (kept" in shown
    without = report(path, most_events_a_day=200, exclude_outliers=True)[0]
    assert without["totals"]["control"]["units"] == 199
    assert without["totals"]["control"]["clicks"] == 398


def test_without_prices_value_is_missing_and_cannot_decide(events_file: Written) -> None:
    rows = crowd(200, ARMS, [1, 2, 3])
    rows += [(f"{arm}-{n}", n % 240 + 1.0, "purchase", "i1", None) for n in range(50) for arm in ARMS]
    figures, page, shown = report(events_file(rows))
    assert figures["missing"] == ["value_per_unit", "list_value_per_unit"]
    assert "value_per_unit, list_value_per_unit: missing, as no purchase has a value" in shown
    assert "missing: value_per_unit, list_value_per_unit" in page
    decided = report(events_file(rows), primary="value_per_unit")[0]["verdict"]
    assert decided["verdict"] == "do not trust"
    assert "give a catalogue with prices" in decided["reasons"][0]


def test_what_units_did_before_reduces_the_variance(events_file: Written) -> None:
    rows = crowd(200, ARMS, [1, 2, 3])
    before = [(f"{arm}-{n}", n % 240 - 300.0, "view", f"i{k}", None)
              for n in range(200) for arm in ARMS for k in range([1, 2, 3][n % 3])]  # fmt: skip
    plain = report(events_file(rows))[0]["effects"]["new"]["ctr"]
    reduced = report(events_file(rows + before))[0]["effects"]["new"]["ctr"]
    assert plain["reduction"] is None
    assert reduced["reduction"] > 0.99  # clicks are the views of before, exactly
    assert reduced["error"] < 0.1 * plain["error"]
    assert reduced["lift"] == pytest.approx(plain["lift"], abs=0.01)


def test_the_exit_code_is_the_verdict_on_demand(events_file: Written) -> None:
    path = events_file(crowd(200, ARMS, [1, 2, 3]))
    report(path, exit_code=True)  # ship: 0
    with pytest.raises(SystemExit) as raised:
        report(path, exit_code=True, minimum_units=500)
    assert raised.value.code == 20
    with pytest.raises(SystemExit) as raised:
        report(path, exit_code=True, shares={"control": 0.2, "new": 0.8})
    assert raised.value.code == 22
    with pytest.raises(SystemExit) as raised:
        report(events_file(crowd(150, ("new", "control"), [1, 2, 3])), exit_code=True)
    assert raised.value.code == 21


def test_the_servers_file_says_shares_start_and_end(events_file: Written, tmp_path: Path) -> None:
    path = events_file(crowd(200, ARMS, [1, 2, 3]))
    file = tmp_path / "experiments.yaml"
    file.write_text(
        "home:\n  start: 2024-05-01\n  end: 2024-05-09\n"
        "  arms: {control: {share: 0.1}, new: {share: 0.1}, spare: {share: 0}}\n"
    )
    figures, _, _ = report(path, shares={}, experiments=str(file))
    assert figures["shares"] == {"control": 0.1, "new": 0.1}
    assert (figures["control"], figures["arms"]) == ("control", ["new"])
    assert figures["period"]["planned_end"] == "2024-05-09T00:00:00+00:00"
    assert figures["totals"]["new"]["units"] == 180  # those of the first 180 hours
    assert figures["verdict"]["verdict"] == "ship"
    file.write_text("home: {arms: {control: {share: 0.5}, new: {share: 0.1}}}")
    assert report(path, shares={}, experiments=str(file))[0]["verdict"]["verdict"] == "do not trust"


def test_after_arms_were_renamed_the_time_since_then_can_be_read(events_file: Written) -> None:
    old = [
        (f"{user}-old", hour - 400, kind, item, (arms or "").replace("=new", "=candidate"))
        for user, hour, kind, item, arms in crowd(200, ARMS, [1, 2, 3])
    ]
    path = events_file(old + crowd(200, ARMS, [1, 2, 3]))
    reasons = report(path)[0]["verdict"]["reasons"]
    assert "the events have arms that the experiment does not: candidate; " in reasons[0]
    assert "start=TIME" in reasons[0]
    since = report(path, start="2024-05-01")[0]
    assert since["verdict"]["verdict"] == "ship"
    assert since["arms"] == ["new"]


def test_what_arms_changed_before_the_start_reduces_no_variance(events_file: Written) -> None:
    """Clicks after the exposure are an effect: adjusted for them, later days would show none."""
    rows = crowd(200, ARMS, [1, 2, 3])
    again = [(user, hour + 240, kind, item, arms) for user, hour, kind, item, arms in rows]
    path = events_file(rows + again)
    row = report(path, start="2024-05-11T12:00:00")[0]["effects"]["new"]["ctr"]
    assert row["lift"] == pytest.approx(599 / 399 - 1)
    assert row["reduction"] is None


def test_a_single_arm_is_nothing_to_judge(events_file: Written) -> None:
    path = events_file(crowd(100, ("control",), [1, 2]))
    with pytest.raises(InputError, match="all events are of lists of 'control', so there is nothing to"):
        report(path, shares={})


def test_a_time_without_events_is_an_error(events_file: Written) -> None:
    with pytest.raises(InputError, match="no event of a list of this experiment between start and end"):
        report(events_file(crowd(5, ARMS, [1])), start="2030-01-01")


def test_without_statsmodels_the_error_says_what_to_install(
    events_file: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(InputError, match=r"need statsmodels: pip install .* 'shelfwise\[experiments\]'"):
        report(events_file(crowd(5, ARMS, [1])))


def test_the_state_of_servers_is_read_with_what_was_imported(tmp_path: Path, events_file: Written) -> None:
    rows = crowd(60, ARMS, [1, 2, 3])
    history = [(f"{arm}-{n}", n % 240 - 48.0, "view", f"i{k}", None)
               for n in range(60) for arm in ARMS for k in range([1, 2, 3][n % 3])]  # fmt: skip
    columns = ["user_id", "item_id", "event", "timestamp"]
    imported = pl.read_parquet(events_file(history)).select(columns)
    histories = tmp_path / "histories.parquet"
    imported.with_columns(
        pl.col("timestamp").dt.epoch("s"), pl.int_range(pl.len()).alias("order")
    ).write_parquet(histories)

    async def fill() -> None:
        stores = await open_stores(None, tmp_path, RedisConfig())
        await stores.users.import_histories(histories)
        start = round(START.timestamp() * 1e6)
        recorded = [
            NewEvent(
                user, item, kind, start + round(hour * 3.6e9), f"client:{number}",
                Exposure(f"{user}/{int(hour)}", surface="home", experiments=arms),
            )
            for number, (user, hour, kind, item, arms) in enumerate(rows)
        ]  # fmt: skip
        await stores.users.record(recorded)
        await stores.close()

    asyncio.run(fill())
    path = events_file(rows)
    from_file, _, _ = report(path, cuped_days=0)
    assert from_file["totals"]["new"]["returning"] == 0
    output = tmp_path / "from-state"
    config = ExperimentReportConfig(
        artifacts=str(tmp_path), shares=HALVES, minimum_units=20, output=str(output)
    )
    experiment_report(config, Console(quiet=True))
    from_state = json.loads((output / "report.json").read_text())
    assert from_state["totals"]["new"] == from_file["totals"]["new"] | {"returning": 60}
    reduced = from_state["effects"]["new"]["ctr"]
    assert reduced["reduction"] > 0.99  # clicks are the imported views, exactly
    assert reduced["lift"] == pytest.approx(from_file["effects"]["new"]["ctr"]["lift"])


def test_no_state_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file, so nothing was recorded here"):
        experiment_report(ExperimentReportConfig(artifacts=str(tmp_path)), Console(quiet=True))
