from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.growth import shop as shops
from benchmarks.growth.limit import Limit, limited
from benchmarks.growth.runner import measured
from benchmarks.growth.shop import Shop, generate
from benchmarks.growth.steps import command_line, pipeline_steps
from benchmarks.growth.table import exponent, markdown, plot
from conf.composition.compose import compose_command

MIB = 1 << 20
ALLOCATE = "import sys; block = bytearray(int(sys.argv[1])); block[::4096] = bytes(len(block[::4096]))"


def _cost(cpu: float, memory: float, code: int = 0) -> dict[str, object]:
    return {
        "exit_code": code, "out_of_memory": code == -9, "cpu_s": cpu, "peak_anonymous_mib": memory,
        "peak_pss_mib": memory + 1,
    }  # fmt: skip


def test_the_limit_ends_a_process_that_takes_more_and_leaves_one_that_takes_less(tmp_path: Path) -> None:
    for megabytes, fails in ((100, False), (700, True)):
        command = [sys.executable, "-c", ALLOCATE, str(megabytes * MIB)]
        cost, kind = measured(command, tmp_path / "log", 400 * MIB)
        assert (cost.exit_code != 0) is fails
        if kind.startswith("memory cgroup"):
            assert (cost.exit_code, cost.out_of_memory) == ((-9, True) if fails else (0, False))


def test_without_a_cgroup_a_limit_of_data_ends_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.growth.limit._make", lambda name, most: None)
    command = [sys.executable, "-c", ALLOCATE, str(700 * MIB)]
    cost, kind = measured(command, tmp_path / "log", 400 * MIB)
    assert cost.exit_code == 1
    assert "MemoryError" in (tmp_path / "log").read_text()
    assert kind.startswith("RLIMIT_DATA")


def test_a_limit_leaves_no_cgroup_behind() -> None:
    with limited(64 * MIB) as limit:
        assert isinstance(limit, Limit)
        folder = limit.folder
        assert folder is None or folder.is_dir()
    assert folder is None or not folder.exists()


def test_memory_of_children_counts(tmp_path: Path) -> None:
    hold = ALLOCATE + "; import time; time.sleep(3)"
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}, '{150 * MIB}'])"
    cost, _ = measured([sys.executable, "-c", inner], tmp_path / "log", 800 * MIB)
    assert cost.exit_code == 0
    assert 150 <= cost.peak_anonymous_mib < 300
    assert cost.peak_pss_mib >= 150


def test_a_server_is_measured_until_it_is_ready_and_ended_then(tmp_path: Path) -> None:
    server = "import time; time.sleep(0.5); print('listening on x', flush=True); time.sleep(600)"
    cost, _ = measured([sys.executable, "-c", server], tmp_path / "log", 400 * MIB, serves=True)
    assert 0.5 <= cost.wall_s < 100
    failed, _ = measured([sys.executable, "-c", "pass"], tmp_path / "log", 400 * MIB, serves=True)
    assert failed.exit_code == 1


def test_the_shop_is_the_same_each_time_and_block_by_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shops, "BLOCK", 1000)
    shop = Shop(items=500, events=2500)
    folder = generate(shop, tmp_path / "a")
    files = sorted((folder / "events").iterdir())
    assert [pl.read_parquet(file).height for file in files] == [1000, 1000, 500]
    other = generate(shop, tmp_path / "b")
    for name in ("items.parquet", "events/00000.parquet", "events/00002.parquet"):
        assert pl.read_parquet(folder / name).equals(pl.read_parquet(other / name))
    events = pl.scan_parquet(folder / "events" / "*.parquet").collect()
    assert events["timestamp"].is_sorted()
    assert events["item_id"].is_in(pl.read_parquet(folder / "items.parquet")["item_id"].implode()).all()
    assert events["user_id"].n_unique() <= shop.users == 125


def test_the_shop_is_skewed_and_its_users_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shops, "BLOCK", 40_000)
    shop = Shop(items=4000, events=40_000)
    events = shops.events_block(shop, shops.Popularity.of(shop), 0)
    counts = events["item_id"].value_counts(sort=True)["count"]
    assert counts.head(40).sum() > 0.1 * 40_000  # 1 % of the items
    users = events["user_id"].value_counts(sort=True)["count"]
    assert users.head(20).sum() == pytest.approx(0.1 * 40_000, rel=0.2)  # 1 % of the users make a tenth
    pairs = events.select(pl.struct("user_id", "item_id").n_unique()).item()
    shuffled = events.select("user_id", pl.col("item_id").shuffle(seed=0))
    assert 40_000 - pairs > 1.5 * (40_000 - shuffled.select(pl.struct(pl.all()).n_unique()).item())


def test_exponents_are_slopes_per_decade() -> None:
    assert exponent([1e6, 1e7, 1e8], [3.0, 30.0, 300.0]) == pytest.approx(1.0)
    assert exponent([1e6, 1e8], [5.0, 5.0]) == pytest.approx(0.0)
    assert exponent([1e6, 1e7], [2.0, 200.0]) == pytest.approx(2.0)
    assert np.isnan(exponent([1e6], [2.0]))


def test_the_table_says_what_failed_and_fits_what_succeeded(tmp_path: Path) -> None:
    results = {
        1_000_000: {"prepare": _cost(10, 100), "serve": _cost(4, 50)},
        10_000_000: {"prepare": _cost(100, 200), "serve": _cost(1, 1, -9)},
        100_000_000: {"prepare": _cost(1000, 400)},
    }
    rows = [line.strip("| ").split(" | ") for line in markdown(results).splitlines()]
    assert rows[2][1:] == ["10 s, 100 (101)", "100 s, 200 (201)", "1,000 s, 400 (401)", "1.00", "0.30"]
    assert rows[3][1:4] == ["4 s, 50 (51)", "out of memory", "not run"]
    plot(results, tmp_path / "growth.svg")
    drawn = (tmp_path / "growth.svg").read_text()
    assert "prepare" in drawn
    assert "CPU seconds" in drawn


def test_steps_are_commands_with_the_settings_of_a_large_shop(tmp_path: Path) -> None:
    steps = pipeline_steps(tmp_path / "shop", tmp_path / "work", 50_000)
    assert [step.name for step in steps] == [
        "prepare", "train-encoder", "train-ranker", "refit", "publish", "evaluate", "serve",
    ]  # fmt: skip
    assert steps[1].outputs == ("text", "encoder", "checkpoints")
    assert all(step.outputs for step in steps)
    for step in steps:
        compose_command(step.name, list(step.arguments))  # refuses a setting that there is not
    line = command_line(steps[0])
    assert line[1].endswith("shelfwise.py")
    assert f"data.events={tmp_path}/shop/events/*.parquet" in line
    assert json.dumps(line)
    own = pipeline_steps(tmp_path / "shop", tmp_path / "work", 50_000, ["user_encoder.epochs=1"])
    assert [step.arguments[-1] for step in own[:-1]] == ["user_encoder.epochs=1"] * 6  # the last one counts
    assert "user_encoder.epochs=1" not in own[-1].arguments
