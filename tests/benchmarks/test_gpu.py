"""What the GPU benchmark concludes from figures, without any GPU."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.command import bars, cpu_share, flat, measure
from benchmarks.gpu.parts import Settings, Sizes
from benchmarks.gpu.usage import GpuUsage, parse_sample

MEASURED: dict[str, dict[str, Any]] = {
    "embed": {"cuda": {"per_second": 21_000.0}, "cpu": {"per_second": 1_000.0}},
    "stage_one": {"cuda": {"seconds_of_300": 10.5}},
    "towers": {"cuda": {"seconds": 2.0}, "cpu": {"seconds": 30.0}},
    "search": {"cuda": {"100000": {"mixed_32_ms": 0.8}, "1000000": {"mixed_32_ms": 3.2}}},
    "whole": {"cuda": {"seconds": 150.0, "recall@10": 0.127}},
}


def test_every_bar_is_held_against_its_figure() -> None:
    found = [(bar.part, bar.reached, bar.holds) for bar in bars(MEASURED, "cuda", cpu_recall=0.129)]
    assert found == [
        ("embed", 21_000.0, True),
        ("stage_one", 10.5, False),
        ("towers", 15.0, True),
        ("whole", 150.0, True),
        ("whole", pytest.approx(0.002), True),
        ("search", 0.8, True),
        ("search", 3.2, False),
    ]


def test_what_was_not_measured_meets_no_bar() -> None:
    for results in ({}, {"embed": {"cuda": {"failed": "left out, the time was up"}}}):
        assert {bar.holds for bar in bars(results, "cuda", cpu_recall=None)} == {None}


def test_the_cpu_does_a_part_of_the_work() -> None:
    assert cpu_share(Sizes()) == Sizes(texts=2_000, steps=15, items=(100_000,))
    assert cpu_share(Sizes(texts=500, steps=8)) == Sizes(texts=500, steps=4, items=(100_000,))


def test_nested_figures_get_their_path() -> None:
    assert flat("", {"a": 1, "b": {"c": 2.5, "ok": True, "d": "text"}}) == {"a": 1, "b.c": 2.5}


def test_samples_of_a_gpu_are_summarised() -> None:
    lines = ["0, 100", "50, 300", "100, 200", "[N/A], 5", ""]
    samples = [sample for line in lines if (sample := parse_sample(line)) is not None]
    usage = GpuUsage([busy for busy, _ in samples], [memory for _, memory in samples])
    assert usage.summary() == {"busy_mean": 0.5, "busy_p90": 0.5, "memory_mib": 300.0}
    assert GpuUsage().summary() == {}


def test_a_part_that_fails_says_why(tmp_path: Path) -> None:
    settings = Settings(["data=files"], str(tmp_path), Sizes())
    assert Settings.read(_written(settings, tmp_path / "settings.json")) == settings
    result = measure("no_such_part", "cpu", settings, tmp_path, timeout=120)
    assert result == {"failed": "exit code 1: KeyError: 'no_such_part'"}


def _written(settings: Settings, path: Path) -> Path:
    settings.write(path)
    return path
