"""Beside other projects: ratios and bars, workers in turns, failures as lines, finished rows kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

from benchmarks.bench import command, machine, peers
from benchmarks.bench.command import measured_row, read_options
from benchmarks.bench.result import Line, RowResult, to_markdown, verdict
from benchmarks.bench.rows import size
from benchmarks.bench.rows.context import Context
from benchmarks.bench.rows.datasets import cut
from benchmarks.bench.rows.encode import kept_neighbours
from benchmarks.bench.rows.finetune import curve_gap, pairs_of
from benchmarks.bench.rows.int8_recall import line_of
from benchmarks.bench.rows.prepare import generate
from benchmarks.bench.rows.start import shares
from benchmarks.bench.rows.towers import ended_early, median_seconds, seconds_to
from benchmarks.bench.timing import Worker, alternate, run_worker
from benchmarks.bench.workers import own_prepare
from benchmarks.bench.workers.measured import timed, top_functions, top_operations
from benchmarks.bench.workers.own_search import rates
from benchmarks.bench.workers.polars_prepare import prepare
from benchmarks.serving.start import Start
from conf.errors import InputError

LIMITS: dict[str, Any] = {
    "processor": "Test", "cores": 2, "threads": 2, "memory_gib": 8.0, "copy_gb_s": 10.0, "gflops_fp32": 100.0,
    "gflops_bf16": 200.0, "gops_int8": 400.0, "versions": "torch 0",
}  # fmt: skip


def context_in(folder: Path) -> Context:
    console = Console(quiet=True)
    return Context(folder, folder / "environments", LIMITS, console, 1, 2, None, 1.0)


def test_ratios_and_bars_by_hand() -> None:
    faster = Line("rate", "texts/s", 600.0, "other", 250.0, bar=2.0)
    assert faster.ratio == 2.4
    assert faster.met is True
    slower = Line("time", "s", 4.0, "other", 10.0, bar=3.0, more_is_better=False)
    assert slower.ratio == 2.5
    assert slower.met is False
    alone = Line("start", "s", 3.5, bar=4.0, more_is_better=False)
    assert alone.ratio is None
    assert alone.met is True
    assert Line("rate", "texts/s", 1.0, "other", 2.0).met is None
    loss = Line("change", "recall", -0.001, bar=0.0)
    assert loss.met is False
    assert Line("change", "recall", 0.0, bar=0.0).met is True
    # A figure of 0 beside another one is no measurement, and no reason to call a bar reached.
    assert Line("time", "s", 0.0, "other", 5.0, bar=3.0, more_is_better=False).met is False
    never = Line("to a recall", "s", 10.0, "other", 100.0, bar=8.0, more_is_better=False, reached=False)
    assert never.ratio is None
    assert never.met is False
    row = RowResult("work", [faster, slower, alone, loss, never]).plain()
    expected = ["2 x: met", "3 x: missed", "4 s: met", "at least 0 recall: missed", "8 x: missed"]
    assert [verdict(line) for line in row["lines"]] == expected
    table = to_markdown([row], LIMITS, "make bench")
    assert "| work: to a recall | not reached in 10 s | other: 100 |  | 8 x: missed |" in table


def test_the_table_has_every_row_and_failures_as_lines() -> None:
    done = RowResult("encode", [Line("titles", "texts/s", 1200.0, "other", 300.0, 2.0)], "half", ["`f` 50%"])
    text = to_markdown([done.plain(), {"work": "search", "failed": "no package"}], LIMITS, "make bench")
    assert "| encode: titles | 1,200 texts/s | other: 300 | 4.00 | 2 x: met |" in text
    assert "| search | not measured: no package |  |  |  |" in text
    assert "| encode | half | `f` 50% |" in text
    assert "with 2 threads: 10 GB/s of memory (copy)" in text
    assert "trial" not in text
    assert "A trial at 0.01 of the full size" in to_markdown([], LIMITS, "make bench", 0.01)


def test_a_processor_without_bf16_leaves_that_precision_out(tmp_path: Path) -> None:
    assert list(context_in(tmp_path).precisions) == ["fp32", "bf16"]
    without = {**LIMITS, "gflops_bf16": 0.0}
    assert list(replace(context_in(tmp_path), machine=without).precisions) == ["fp32"]
    assert "bf16 none (the processor has no instructions for it: left out)" in to_markdown([], without, "c")


def test_what_would_break_a_cell_is_escaped() -> None:
    text = to_markdown([{"work": "search", "failed": "ended | with\ntwo lines"}], LIMITS, "make bench")
    assert "| search | not measured: ended \\| with two lines |  |  |  |" in text


def test_times_of_rows_and_rows_of_earlier_calls_are_written() -> None:
    rows = [
        {"work": "encode", "row_seconds": 90.0},
        {"work": "search", "row_seconds": 60.0, "kept": True, "measured": "2026-01-02 03:04"},
    ]
    text = to_markdown(rows, LIMITS, "make bench")
    assert "Minutes: encode 1.5, search 1.0; 2.5 in all." in text
    assert "Measured by an earlier call: search (2026-01-02 03:04)." in text


def writes(name: str, body: str) -> Worker:
    return Worker(name, [sys.executable, "-c", f"import json, sys\n{body}"])


def test_workers_run_in_turns_and_medians_are_of_their_runs(tmp_path: Path) -> None:
    body = (
        f"from pathlib import Path; log = Path({str(tmp_path / 'turns')!r})\n"
        "turns = log.read_text() if log.exists() else ''\n"
        "log.write_text(turns + NAME)\n"
        "json.dump({'seconds': len(turns) + 1, 'cpu_seconds': 0.5}, open(sys.argv[1], 'w'))"
    )
    workers = [writes(name, body.replace("NAME", repr(name))) for name in "ab"]
    runs = alternate(workers, 3, tmp_path, 60.0)
    assert (tmp_path / "turns").read_text() == "ababab"
    assert runs["a"].median("seconds") == 3.0
    assert runs["a"].cpu_beside(runs["b"]) == "CPU s 0.50 beside 0.50"
    assert runs["b"].median("seconds") == 4.0


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("sys.exit('no such data')", r"w: exit code 1; see .*w\.log: no such data"),
        ("pass", "w: ended without a result"),
        ("import time; time.sleep(60)", "w: not finished after 1 s"),
    ],
)
def test_a_worker_that_fails_is_named_with_its_last_lines(tmp_path: Path, body: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        run_worker(writes("w", body), tmp_path, 1.0 if "sleep" in body else 60.0)


def test_another_project_that_fails_is_left_out_and_named(tmp_path: Path) -> None:
    good = "json.dump({'seconds': 1}, open(sys.argv[1], 'w'))"
    fails = writes("peer", "open('tries', 'a').write('x'); sys.exit('broken')")
    fails = replace(fails, peer=True)
    failures: list[str] = []
    runs = alternate([writes("own", good), fails], 3, tmp_path, 60.0, failures)
    assert list(runs) == ["own"]
    assert len(runs["own"].found) == 3
    assert len(failures) == 1
    assert failures[0].endswith("broken")
    assert (tmp_path / "tries").read_text() == "x", "not tried again"
    with pytest.raises(InputError, match="own: exit code 1"):
        alternate([writes("own", "sys.exit(1)")], 1, tmp_path, 60.0, failures)
    with pytest.raises(InputError, match="peer: exit code 1"):
        alternate([fails], 1, tmp_path, 60.0)


def test_another_project_imports_nothing_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    body = (
        "import os; json.dump({'path': os.environ.get('PYTHONPATH'), 'cwd': os.getcwd()}, "
        "open(sys.argv[1], 'w'))"
    )
    own = writes("own", body)
    assert run_worker(own, tmp_path, 60.0) == {"path": str(Path.cwd()), "cwd": str(Path.cwd())}
    assert run_worker(replace(own, peer=True), tmp_path, 60.0) == {"path": None, "cwd": str(tmp_path)}


def test_a_failed_row_leaves_the_others_and_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def fails(_: Context) -> RowResult:
        calls.append("fails")
        raise InputError("no package index")

    def breaks(_: Context) -> RowResult:
        raise ValueError("a fault")

    def works(_: Context) -> RowResult:
        calls.append("works")
        return RowResult("search", [Line("rate", "queries/s", 2.0, "other", 1.0, 0.9)])

    rows = {"encode": fails, "start": breaks, "search": works}
    monkeypatch.setattr(command, "ROWS", rows)
    monkeypatch.setattr(machine, "describe", lambda threads: LIMITS)
    arguments = ["--rows", "encode,start,search", "--folder", str(tmp_path)]
    assert command.main(arguments) == 1
    table = (tmp_path / "bench.md").read_text()
    assert "| encode | not measured: no package index |  |  |  |" in table
    assert "| start | not measured: ValueError: a fault |  |  |  |" in table
    assert "2.00 | 0.9 x: met |" in table
    assert json.loads((tmp_path / "machine.json").read_text()) == LIMITS
    command.main(arguments)
    assert calls == ["fails", "works", "fails"]
    command.main([*arguments, "--again"])
    assert calls[3:] == ["fails", "works"]
    # Other settings, another data set and another program are other measurements.
    context = context_in(tmp_path)
    measured_row("search", context, again=False)
    assert calls[5:] == ["works"]
    assert measured_row("search", context, again=False)["kept"] is True
    assert calls[6:] == []
    measured_row("search", replace(context, beauty=tmp_path), again=False)
    assert calls[6:] == ["works"]
    monkeypatch.setattr(command, "git_sha", lambda: "another")
    measured_row("search", replace(context, beauty=tmp_path), again=False)
    assert calls[7:] == ["works"]


def test_a_trial_leaves_the_full_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def works(context: Context) -> RowResult:
        return RowResult("search", [Line("rate", "queries/s", context.scale)])

    monkeypatch.setattr(command, "ROWS", {"search": works})
    monkeypatch.setattr(machine, "describe", lambda threads: LIMITS)
    arguments = ["--rows", "search", "--folder", str(tmp_path)]
    assert command.main(arguments) == 0
    full = (tmp_path / "search.json").read_text()
    assert command.main([*arguments, "--scale", "0.01"]) == 0
    assert (tmp_path / "search.json").read_text() == full
    assert "A trial at 0.01" in (tmp_path / "trial" / "bench.md").read_text()
    assert "A trial" not in (tmp_path / "bench.md").read_text()


def test_all_rows_at_full_size_take_less_than_an_hour() -> None:
    assert set(command.MINUTES) == set(command.ROWS)
    assert sum(command.MINUTES.values()) <= 55


def test_options_that_are_wrong_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="--rows encod: not one of encode, int8_recall"):
        read_options(["--rows", "encod"])
    assert command.main(["--scale", "2"]) == 2
    assert "--scale 2: must be above 0 and at most 1" in capsys.readouterr().out


def test_an_environment_that_cannot_be_made_is_a_line_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "requirements.txt"
    wrong.write_text("./absent-package\n")
    monkeypatch.setitem(peers.REQUIREMENTS, "pandas", wrong)
    with pytest.raises(InputError, match=r"pandas could not be installed .*pip install --no-deps -r"):
        peers.interpreter("pandas", tmp_path, Console(quiet=True))
    wrong.write_text("# nothing\n")
    python = peers.interpreter("pandas", tmp_path, Console(quiet=True))
    assert Path(python).is_file()
    before = Path(python).stat().st_ctime_ns
    assert peers.interpreter("pandas", tmp_path, Console(quiet=True)) == python
    assert Path(python).stat().st_ctime_ns == before, "made once"


def test_every_requirement_is_pinned() -> None:
    for path in peers.REQUIREMENTS.values():
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert lines, path
        assert all("==" in line for line in lines), path


def test_rows_that_need_a_data_set_say_which(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs items\.parquet of Amazon Beauty: make bench BEAUTY=folder"):
        context_in(tmp_path).beauty_file("items.parquet")


def test_pairs_are_neighbours_with_each_title_once() -> None:
    events = pl.DataFrame({
        "user_id": ["a", "a", "a", "a", "b", "b", "c"],
        "item_id": ["1", "2", "3", "4", "1", "5", "6"],
        "timestamp": [0, 1, 2, 3, 0, 1, 0],
    })  # fmt: skip
    titles = {"1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six"}
    assert pairs_of(events, titles, 9) == [("one", "two"), ("three", "four")]
    assert pairs_of(events, titles, 1) == [("one", "two")]
    assert pairs_of(events, {**titles, "2": "one"}, 9) == [("one", "three")]


def test_curves_neighbours_and_times_by_hand() -> None:
    assert curve_gap([2.0, 1.0], [2.25, 0.5]) == 0.5
    assert seconds_to(0.5, [(1.0, 0.4), (2.0, 0.5), (3.0, 0.6)]) == 2.0
    assert seconds_to(0.7, [(1.0, 0.4)]) is None
    curves = [[(1.0, 0.4), (2.0, 0.5)], [(3.0, 0.5)], [(1.0, 0.4)]]
    assert median_seconds(0.5, curves) == 3.0
    assert median_seconds(0.5, [curves[0], curves[2]]) is None
    assert median_seconds(0.4, curves) == 1.0
    assert ended_early({"epoch": 2, "epoch_seconds": [40.0, 40.0]}, 100.0) is True
    assert ended_early({"epoch": 1, "epoch_seconds": [40.0, 40.0]}, 100.0) is False
    exact = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    assert kept_neighbours(exact, exact) == 1.0
    assert kept_neighbours(-exact[::-1], exact) < 0.5


def test_generated_faults_are_what_plain_polars_and_this_project_reject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(tmp_path, 5_000, 50, 40)
    (tmp_path / "work").mkdir()
    good, bad = prepare(tmp_path / "raw", tmp_path / "work")
    assert good + bad == 5_000
    raw = pl.read_parquet(tmp_path / "raw" / "events")
    faulty = raw.filter(
        pl.col("user_id").is_null() | (pl.col("item_id") == "unknown") | (pl.col("timestamp") < 0)
    )
    assert bad == len(faulty) > 0
    kept = pl.read_parquet(tmp_path / "work" / "events.parquet")
    assert kept.equals(kept.sort("user_id", "timestamp", maintain_order=True))
    found = tmp_path / "own.json"
    monkeypatch.setattr(
        sys, "argv", ["own_prepare", str(tmp_path / "raw"), str(tmp_path / "own"), "0", str(found)]
    )
    own_prepare.main()
    counts = json.loads(found.read_text())
    assert (counts["events"], counts["rejected"]) == (good, bad)


def test_times_and_profile_are_of_the_work() -> None:
    result, figures = timed(lambda: sum(range(200_000)))
    assert result == sum(range(200_000))
    assert figures["cpu_seconds"] > 0
    assert figures["peak_mib"] > 1
    top = top_functions(lambda: sorted(range(200_000), key=lambda n: -n))
    assert 1 <= len(top) <= 5
    assert all(one.startswith("`") and one.endswith("%") for one in top)


def test_a_profile_of_tensors_names_operations() -> None:
    a = torch.ones(400, 400, requires_grad=True)
    top = top_operations(lambda: (a @ a).sum().backward())  # type: ignore[no-untyped-call]
    assert len(top) == 5
    assert top[0].startswith("`aten::mm` ")
    assert all(0 <= int(one.rpartition(" ")[2].rstrip("%")) <= 100 for one in top)


def test_turns_of_a_search_alternate_and_the_first_is_not_counted() -> None:
    calls: list[tuple[str, int, int]] = []

    def way(name: str) -> Callable[[int, int], None]:
        return lambda start, stop: calls.append((name, start, stop))

    found = rates({"own": way("own"), "faiss": way("faiss")}, 5, 4, 1)
    assert found.keys() == {"own", "faiss"}
    turn = [("own", 0, 4), ("own", 4, 5), ("faiss", 0, 4), ("faiss", 4, 5)]
    assert calls == turn * 4


def test_a_trial_reads_a_share_of_the_users_and_their_items(tmp_path: Path) -> None:
    items, events = tmp_path / "all_items.parquet", tmp_path / "all_events.parquet"
    pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["A", "B", "C"]}).write_parquet(items)
    users = [f"u{n}" for n in range(1000)]
    pl.DataFrame({"user_id": users, "item_id": ["a"] * 150 + ["b"] * 100 + ["c"] * 750}).write_parquet(events)
    made = cut([items, events], tmp_path, 0.2)
    assert pl.read_parquet(made[0])["item_id"].to_list() == ["a", "b"]
    assert pl.read_parquet(made[1])["user_id"].to_list() == users[:200]
    assert len(pl.read_parquet(cut([items, events], tmp_path, 0.001)[1])) == 100


@pytest.mark.parametrize(("high", "met"), [(0.0002, True), (-0.0001, False)])
def test_recall_is_lost_where_the_whole_interval_is_below_zero(high: float, met: bool) -> None:
    found = {
        "window": "test", "queries": 1000, "metric": "recall@10", "precision": "int8", "exact": 0.03,
        "here": 0.0295, "low": -0.001, "high": high,
    }  # fmt: skip
    line = line_of(found)
    assert line.met is met
    assert line.note == f"0.0295 less 0.0300 is -0.0005, -0.0010 to {high:+.4f}"


def test_cpu_seconds_of_a_start_by_process() -> None:
    starts = [
        Start(1.0, 2.0, (1.0, 2.0, 3.0)),
        Start(1.0, 2.0, (1.5, 2.0, 1.0)),
        Start(1.0, 2.0, (2.0, 5.0, 4.0)),
    ]
    assert shares(starts) == ["model 3.00 CPU s", "fork server 2.00 CPU s", "server 1.50 CPU s"]


@pytest.mark.parametrize(("mib", "met"), [(1024.0, True), (1228.8, True), (1229.0, False)])
def test_the_size_of_a_server_is_compared_in_gib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mib: float, met: bool
) -> None:
    packages = {"torch": mib / 2, **dict.fromkeys("abcde", mib / 10)}
    monkeypatch.setattr(
        size, "result", lambda _: {"server": mib, "whole": 2048.0, "torch": "2", "packages": packages}
    )
    found = size.measure(context_in(tmp_path))
    (line,) = found.lines
    assert line.own == mib / 1024
    assert line.bar == pytest.approx(1.2)
    assert line.met is met
    assert line.note == "torch 2; all that an installation has: 2.00 GiB"
    assert len(found.profile) == 5
    assert found.profile[0].endswith("50%")
