from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from conf.composition.compose import compose_command
from conf.errors import InputError
from conf.schema import FailOn, LintConfig
from features.data import schema
from ranking.pipeline.lint_data import FOUND, lint_data, warn_of_leaks
from ranking.pipeline.prepared import prepared
from tests.ranking.lint.shop import TEST_START, Row, Shop, before, clean_shop

QUIET = Console(quiet=True)


def config_of(shop: Shop, folder: Path, *overrides: str) -> LintConfig:
    """Write the raw tables and return the settings that read them."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = [schema.USER_ID, schema.ITEM_ID, schema.EVENT, schema.TIMESTAMP]
    shop.items.select(schema.ITEM_ID, "title").write_csv(folder / "items.csv")
    pl.DataFrame(shop.rows, schema=columns, orient="row").write_csv(folder / "events.csv")
    config: LintConfig = compose_command(
        "lint-data",
        [
            f"data.items={folder / 'items.csv'}",
            f"data.events={folder / 'events.csv'}",
            f"work_dir={folder / 'work'}",
            "evaluation.bootstrap=100",
            *overrides,
        ],
    )
    return config


def leaky() -> Shop:
    """Copy every event of the last month to an early time of the same user."""
    shop = clean_shop()
    copies: list[Row] = [
        (user, item, kind, before(shop, user, 2**40)[0][3] + 60)
        for user, item, kind, time in shop.rows
        if time >= TEST_START
    ]
    return shop.adding(copies)


def test_a_leaky_split_ends_with_exit_code_3_and_the_inflated_recall_beside_the_honest_one(
    tmp_path: Path,
) -> None:
    console = Console(record=True, file=StringIO(), width=160)
    with pytest.raises(SystemExit) as end:
        lint_data(config_of(leaky(), tmp_path), console)
    assert end.value.code == FOUND
    result = json.loads((tmp_path / "work/evaluation/lint.json").read_text())
    [finding] = [f for f in result["findings"] if f["check"] == "copied_targets"]
    assert finding["severity"] == "serious"
    assert finding["worth"]["as_is"] > 2 * finding["worth"]["without"]
    printed = console.export_text()
    assert finding["title"] in printed
    for value in (finding["worth"]["as_is"], finding["worth"]["without"]):
        assert f"{value:.4f}".removeprefix("0") in printed
    page = (tmp_path / "work/evaluation/lint.html").read_text()
    assert all(finding["fix"].split("'")[0] in page for finding in result["findings"])
    assert "<script" not in page
    assert "http" not in page


def test_a_clean_shop_ends_without_an_error(tmp_path: Path) -> None:
    lint_data(config_of(clean_shop(), tmp_path, "fail_on=warning"), QUIET)
    result = json.loads((tmp_path / "work/evaluation/lint.json").read_text())
    assert (result["counts"]["serious"], result["counts"]["warning"]) == (0, 0)
    assert (result["events"], result["items"]) == (len(clean_shop().rows), 200)


def test_what_ends_the_command_is_a_setting(tmp_path: Path) -> None:
    never = config_of(leaky(), tmp_path, "fail_on=never", "measure=false")
    lint_data(never, QUIET)
    result = json.loads((tmp_path / "work/evaluation/lint.json").read_text())
    assert not result["measured"]
    assert {f["worth"] for f in result["findings"]} == {None}
    with pytest.raises(SystemExit):
        lint_data(replace(never, fail_on=FailOn.serious), QUIET)


def test_a_prepared_dataset_is_checked_without_its_files(tmp_path: Path) -> None:
    config = config_of(leaky(), tmp_path, "measure=false")
    prepared(config, QUIET)
    (tmp_path / "events.csv").unlink()
    alone: LintConfig = compose_command("lint-data", [f"work_dir={tmp_path / 'work'}", "measure=false"])
    with pytest.raises(SystemExit):
        lint_data(alone, QUIET)
    with pytest.raises(InputError, match=r"events\.csv"):
        lint_data(config, QUIET)


def test_no_data_and_too_few_events_are_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.items"):
        lint_data(compose_command("lint-data", [f"work_dir={tmp_path / 'none'}"]), QUIET)
    shop = clean_shop()
    with pytest.raises(InputError, match="too few to divide"):
        lint_data(config_of(shop.with_rows(shop.rows[:3]), tmp_path), QUIET)


def test_a_run_prints_serious_leaks_in_a_line_each_and_nothing_of_a_clean_shop(tmp_path: Path) -> None:
    for shop, lines in ((leaky(), 2), (clean_shop(), 0)):
        config = config_of(shop, tmp_path / str(lines))
        console = Console(record=True, file=StringIO(), width=400)
        warn_of_leaks(config, prepared(config, QUIET), console)
        printed = console.export_text().splitlines()
        assert len(printed) == lines
        if lines:
            assert printed[0].startswith("leak? 93% of the test targets are in the user's own history")
            assert "`shelfwise lint-data`" in printed[1]


def test_the_sample_of_queries_is_drawn_with_the_seed(tmp_path: Path) -> None:
    config = config_of(leaky(), tmp_path, "lint_queries=50", "fail_on=never")
    results = []
    for seed in (0, 0, 1):
        lint_data(replace(config, seed=seed), QUIET)
        result = json.loads((tmp_path / "work/evaluation/lint.json").read_text())
        assert result["measured_queries"] == 50
        results.append([f["worth"] for f in result["findings"]])
    assert results[0] == results[1] != results[2]
