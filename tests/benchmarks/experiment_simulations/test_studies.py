from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from benchmarks.experiment_simulations import command
from benchmarks.experiment_simulations.shoppers import Design, simulate
from benchmarks.experiment_simulations.studies import FIXED, effects, looks, percent, truth
from lifecycle.experiments.units import ARM, DAY_US, FIRST, UNIT


def test_a_seed_is_an_experiment() -> None:
    one, same, other = (simulate(Design(shoppers=300), seed) for seed in (1, 1, 2))
    assert_frame_equal(one.units, same.units)
    assert_frame_equal(one.days, same.days)
    assert not one.days.equals(other.days)


def test_many_shoppers_have_the_lift_of_the_design() -> None:
    units = simulate(Design(shoppers=200_000, lift=0.2), 0)
    for name, row in effects(FIXED, units).items():
        if name != "conversion":
            assert row["lift"] == pytest.approx(0.2, abs=3 * row["lift_error"])
    known = truth(Design(lift=0.2), 1)
    assert (known["ctr"], known["value_per_unit"]) == (0.2, 0.2)
    assert 0.05 < known["conversion"] < 0.2  # who buys twice converts once
    assert truth(Design(lift=0.0), 1)["conversion"] == 0.0


def test_a_unit_begins_with_its_first_visit_and_activity_is_heavy_tailed() -> None:
    units = simulate(Design(shoppers=5000), 0)
    first = units.days.group_by(UNIT).agg(pl.col("day").min())
    joined = units.units.join(first, on=UNIT)
    assert len(joined) == len(units.units) == len(first)
    assert (joined[FIRST] == joined["day"] * DAY_US).all()
    seen = units.days.group_by(UNIT).agg(pl.col("impressions").sum())["impressions"].sort(descending=True)
    assert float(seen[: len(seen) // 10].sum()) > 0.3 * float(seen.sum())


@pytest.mark.parametrize("by_activity", [False, True])
def test_lost_shoppers_are_of_one_arm(by_activity: bool) -> None:
    whole = simulate(Design(shoppers=20_000, lift=0.0), 0).units[ARM].value_counts().sort(ARM)["count"]
    part = simulate(Design(shoppers=20_000, lift=0.0, lost=0.2, lost_by_activity=by_activity), 0)
    left = part.units[ARM].value_counts().sort(ARM)["count"]
    assert left[0] == whole[0]
    assert left[1] / whole[1] == pytest.approx(0.8, abs=0.02)


def test_bands_by_hand() -> None:
    # Clopper and Pearson for 0 of 10: 1 - 0.025^(1/10)
    assert percent(0, 10)["band"] == pytest.approx([0.0, 100 * (1 - 0.025**0.1)])
    assert percent(5, 10)["percent"] == 50.0


def test_a_look_every_day_finds_more_than_one_at_the_end() -> None:
    rows = {(row["lift"], row["rule"]): row for row in looks(12, 0)}
    peeking = rows[0.1, "fixed, stopped at the first p < .05"]
    assert peeking["found_percent"] >= rows[0.1, "fixed, one look at the end"]["found_percent"]
    assert rows[0.1, "fixed, one look at the end"]["median_day"] == 14
    assert (
        rows[0.0, "sequential"]["found_percent"]
        <= rows[0.0, "fixed, stopped at the first p < .05"]["found_percent"]
    )


def test_the_command_writes_figures_and_refuses_unknown_studies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["x", "studies=[novelty]", "runs=2", f"output={output}"])
    command.main()
    assert '"trend_found_percent"' in output.read_text()
    monkeypatch.setattr(sys, "argv", ["x", "studies=[noise]"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert "no study 'noise'; studies are coverage" in capsys.readouterr().out
