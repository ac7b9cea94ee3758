"""Encoding titles, beside `SentenceTransformer.encode` in the same precision, and with an int8 export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from benchmarks.bench.result import Line, RowResult
from benchmarks.bench.rows.context import Context
from benchmarks.bench.timing import Runs
from benchmarks.embedding import generated
from encoders.text.text_encoder import bundled_model_path

WORK: Final = "encode"
MINUTES: Final = 8.0
TITLES: Final = 12_101
PEER: Final = "SentenceTransformer.encode"
BAR, INT8_BAR = 2.0, 4.0
NEAREST: Final = 10


def texts_of(context: Context) -> tuple[list[str], str]:
    """Return the titles of Amazon Beauty, or generated ones where the data set is not at hand."""
    count = context.sized(TITLES)
    if context.beauty is None:
        return generated(count), "generated titles (BEAUTY=folder gives real ones)"
    titles = pl.read_parquet(context.beauty_file("items.parquet"))["title"].fill_null("").to_list()
    return titles[:count], "titles of Amazon Beauty"


def kept_neighbours(vectors: np.ndarray, exact: np.ndarray, sample: int = 1000) -> float:
    """Return the share of the ten nearest items that stay the ten nearest, over sampled items."""
    rows = np.random.default_rng(0).permutation(len(exact))[:sample]

    def nearest(every: np.ndarray) -> np.ndarray:
        scores = every[rows] @ every.T
        scores[np.arange(len(rows)), rows] = -np.inf
        return np.argpartition(-scores, NEAREST, axis=1)[:, :NEAREST]

    pairs = zip(nearest(vectors), nearest(exact), strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / NEAREST for a, b in pairs]))


def measure(context: Context) -> RowResult:
    """Measure all ways in turns.

    Raises:
        InputError: a worker failed, or sentence-transformers cannot be installed.

    """
    folder = context.part(WORK)
    texts, what = texts_of(context)
    source = folder / "texts.json"
    source.write_text(json.dumps(texts))
    model = str(bundled_model_path())
    others = {
        precision: context.other(
            f"{PEER} {precision}", "sentence_transformers", "sentence_transformers_encode",
            source, model, dtype, context.threads,
        )
        for precision, dtype in (("fp32", "float32"), ("bf16", "bfloat16"))
        if precision in context.precisions
    }  # fmt: skip
    own = {
        precision: context.own(precision, "own_encode", source, precision, context.threads, 0)
        for precision in (*context.precisions, "int8")
    }
    runs = context.alternate(
        [w for p in own for w in (*([others[p]] if p in others else ()), own[p])], folder
    )
    rate = {name: len(texts) / one.median("seconds") for name, one in runs.items()}
    reference = _vectors(folder, others["fp32"].name)
    lines, details = [], {name: list(one.found) for name, one in runs.items()}
    for precision in own:
        bar = INT8_BAR if precision == "int8" else BAR
        beside = others.get(precision, others["fp32"]).name
        vectors = _vectors(folder, precision)
        cpu = runs[precision].cpu_beside(runs[beside])
        sizes = "/".join(str(one["batch"]) for one in runs[beside].found)
        note = f"{cpu}; batches there {sizes}; least cosine {float((vectors * reference).sum(1).min()):.4f}"
        if precision == "int8":
            note += f", {kept_neighbours(vectors, reference):.0%} of the ten nearest kept"
        named = f"{len(texts):,} {what}, {precision}"
        lines.append(Line(named, "texts/s", rate[precision], beside, rate[beside], bar, note=note))
    profile = _profile(context, source, folder)
    return RowResult(WORK, lines, _limit(context, runs), profile, details)


def _vectors(folder: Path, name: str) -> np.ndarray:
    vectors: np.ndarray = np.load(folder / f"{name.replace(' ', '_')}.npy")
    return vectors


def _limit(context: Context, runs: dict[str, Runs]) -> str:
    """Return the rate of each precision beside that of plain products of matrices."""
    parts = []
    for precision, key in {**context.precisions, "int8": "gops_int8"}.items():
        reached = float(runs[precision].found[0]["flop"]) / runs[precision].median("seconds") / 1e9
        most = float(context.machine[key])
        parts.append(
            f"{precision} {reached:,.0f} of {most:,.0f} GFLOP/s"
            + (f" ({reached / most:.0%})" if most else "")
        )
    flop = float(runs["fp32"].found[0]["flop"]) / 1e9
    return f"{flop:,.0f} GFLOP (products with weights, and attention): " + ", ".join(parts)


def _profile(context: Context, source: Path, folder: Path) -> list[str]:
    worker = context.own("profile", "own_encode", source, [*context.precisions][-1], context.threads, 1)
    found: list[str] = context.once(worker, folder)["profile"]
    return found
