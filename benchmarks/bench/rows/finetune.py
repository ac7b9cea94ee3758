"""Fine-tuning the text encoder on the same pairs in the same batches with the same loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from benchmarks.bench.result import Line, RowResult
from benchmarks.bench.rows.context import Context
from encoders.text.text_encoder import bundled_model_path

WORK: Final = "finetune"
MINUTES: Final = 5.0
STEPS, BATCH = 24, 64
BAR: Final = 1.5
PEER: Final = "sentence-transformers"


def pairs_of(events: pl.DataFrame, titles: dict[str, str], count: int) -> list[tuple[str, str]]:
    """Return titles of items that a user chose one after the other, every title in at most one pair.

    A batch without repeated texts has the same negatives in both libraries, whatever either does about them.
    """
    ordered = events.sort("user_id", "timestamp", maintain_order=True)
    users, items = ordered["user_id"].to_list(), ordered["item_id"].to_list()
    used: set[str] = set()
    found: list[tuple[str, str]] = []
    for place in range(1, len(users)):
        a, b = titles.get(items[place - 1], ""), titles.get(items[place], "")
        if users[place] != users[place - 1] or not a or not b or a == b or a in used or b in used:
            continue
        used |= {a, b}
        found.append((a, b))
        if len(found) == count:
            break
    return found


def curve_gap(ours: list[float], theirs: list[float]) -> float:
    """Return the largest difference of two loss curves, step by step."""
    return float(np.abs(np.array(ours) - np.array(theirs)).max())


def measure(context: Context) -> RowResult:
    """Measure both libraries in fp32 and, by autocast, bf16.

    Raises:
        InputError: the data set is not at hand, or a worker failed.

    """
    folder = context.part(WORK)
    columns = pl.read_parquet(context.beauty_file("items.parquet")).select("item_id", "title").drop_nulls()
    titles = dict(zip(columns["item_id"].to_list(), columns["title"].to_list(), strict=True))
    steps = max(int(STEPS * context.scale), 3)
    pairs = pairs_of(pl.read_parquet(context.beauty_file("events.parquet")), titles, steps * BATCH)
    steps = min(steps, len(pairs) // BATCH)
    source = folder / "pairs.json"
    source.write_text(json.dumps(pairs[: steps * BATCH]))
    workers = []
    for precision in context.precisions:
        workers += [
            context.other(
                f"{PEER} {precision}", "sentence_transformers", "sentence_transformers_finetune",
                source, bundled_model_path(), precision, BATCH, context.threads,
            ),
            context.own(precision, "own_finetune", source, precision, BATCH, context.threads, 0),
        ]  # fmt: skip
    runs = context.alternate(workers, folder)
    rate = {name: steps * BATCH / one.median("seconds") for name, one in runs.items()}
    lines = []
    for precision in context.precisions:
        beside = f"{PEER} {precision}"
        ours, theirs = _loss(runs[precision].found[0]), _loss(runs[beside].found[0])
        note = (
            f"{runs[precision].cpu_beside(runs[beside])}; loss {ours[0]:.2f} to {ours[-1]:.2f}, there "
            f"{theirs[0]:.2f} to {theirs[-1]:.2f}; curves differ by at most "
            f"{curve_gap(ours, theirs):.2f}"
        )
        lines.append(
            Line(
                f"{steps} steps of {BATCH} pairs, {precision}",
                "pairs/s",
                rate[precision],
                beside,
                rate[beside],
                BAR,
                note=note,
            )
        )
    return RowResult(
        WORK,
        lines,
        _limit(context, runs),
        _profile(context, source, folder),
        {n: list(r.found) for n, r in runs.items()},
    )


def _loss(found: Any) -> list[float]:  # noqa: ANN401 - JSON
    values: list[float] = found["loss"]
    return values


def _limit(context: Context, runs: dict[str, Any]) -> str:
    parts = []
    for precision, key in context.precisions.items():
        reached = 3.0 * float(runs[precision].found[0]["flop"]) / runs[precision].median("seconds") / 1e9
        most = float(context.machine[key])
        parts.append(f"{precision} {reached:,.0f} of {most:,.0f} GFLOP/s ({reached / most:.0%})")
    return (
        "three times the products of encoding (forward, and gradients of inputs and weights): "
        + ", ".join(parts)
    )


def _profile(context: Context, source: Path, folder: Path) -> list[str]:
    precision = [*context.precisions][-1]
    worker = context.own("profile", "own_finetune", source, precision, BATCH, context.threads, 1)
    found: list[str] = context.once(worker, folder)["profile"]
    return found
