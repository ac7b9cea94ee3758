"""What the int8 export of the row `encode` costs in recall, on Amazon Beauty's leave-one-out split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from benchmarks.bench.result import Line, RowResult
from benchmarks.bench.rows.context import Context
from benchmarks.bench.rows.datasets import beauty_overrides, prepare_dataset
from encoders.text.int8_text_encoder import INT8

WORK: Final = "int8_recall"
MINUTES: Final = 2.0
METRIC: Final = "recall@10"
WINDOWS: Final = {"valid": "validation", "test": "test"}


def line_of(found: Mapping[str, Any]) -> Line:
    """Return the most that a window leaves possible: below zero, the export certainly costs recall."""
    change = found["here"] - found["exact"]
    return Line(
        f"{METRIC} by texts alone, {WINDOWS[found['window']]}, {found['queries']:,} users: int8 less fp32, "
        "upper end of the 95 % interval",
        METRIC, found["high"], bar=0.0,
        note=f"{found['here']:.4f} less {found['exact']:.4f} is {change:+.4f}, "
        f"{found['low']:+.4f} to {found['high']:+.4f}",
    )  # fmt: skip


def measure(context: Context) -> RowResult:
    """Rank the catalogue by the vectors of both precisions, once: lists do not vary.

    Raises:
        InputError: the data set is not at hand, or the worker failed.

    """
    folder = context.part(WORK)
    work = [f"work_dir={folder / 'work'}"]
    prepare_dataset([*beauty_overrides(context, folder), *work])
    overrides = ["split=leave_one_out", "evaluation.exclude_seen=true", *work]
    worker = context.own(WORK, "own_int8_recall", context.threads, *overrides)
    found: list[dict[str, Any]] = context.once(worker, folder)["differences"]
    lines = [line_of(one) for one in found if one["metric"] == METRIC and one["precision"] == INT8]
    return RowResult(WORK, lines, details={"differences": found})
