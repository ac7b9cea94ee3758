from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from benchmarks.embedding import OTHER, compare, flops, generated, least_cosine, measure, parse
from encoders.text.text_encoder import TextEncoder
from encoders.text.tokens import TokenArray


def test_operations_by_hand(encoder: TextEncoder) -> None:
    # Two layers of width 32 and 64: 4 x 32 x 32 + 2 x 32 x 64 = 8,192 weights each, two operations a token.
    # Attention: scores and weighted sum, 2 x 2 x 32 operations a pair of tokens and layer.
    tokens = TokenArray.of([[1, 2, 3], [4]])
    assert flops(encoder, tokens) == 2 * 2 * 8192 * 4 + 2 * 128 * (9 + 1)


def test_runs_alternate_and_the_first_way_is_what_others_are_compared_with() -> None:
    order: list[str] = []

    def way(name: str, vector: list[float]) -> np.ndarray:
        order.append(name)
        return np.array([vector, [1.0, 0.0]], dtype=np.float32)

    rates = compare({"a": lambda: way("a", [1.0, 0.0]), "b": lambda: way("b", [0.6, 0.8])}, 3)
    assert order == ["a", "b"] * 3
    assert [rate.name for rate in rates] == ["a", "b"]
    assert rates[0].least_cosine == 1.0
    assert rates[1].least_cosine == pytest.approx(0.6)
    assert all(rate.seconds > 0 for rate in rates)


def test_least_cosine_by_hand() -> None:
    left = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    assert least_cosine(left, left[:, ::-1]) == 0.0


def test_generated_texts_are_short_and_distinct() -> None:
    texts = generated(500)
    assert len(set(texts)) == 500
    assert {len(text.split()) for text in texts} == {6, 7, 8}


def test_a_table_is_measured(bert: Path, tmp_path: Path) -> None:
    pl.DataFrame({"name": ["trail boots", "pan", None, "rose soil", "pan"]}).write_parquet(tmp_path / "items")
    asked = parse(
        ["--items", str(tmp_path / "items"), "--column", "name", "--model", str(bert), "--rounds", "1",
         "--max-tokens", "24", "--device", "cpu"]
    )  # fmt: skip
    result = measure(asked, Console(quiet=True))
    assert result["texts"] == 3
    assert result["device"] == "cpu"
    ways = json.loads(json.dumps(result["ways"]))
    assert [way["way"] for way in ways][:2] == [OTHER, "fp32"]
    assert all(way["least_cosine"] > 0.99 and way["texts_per_second"] > 0 for way in ways)
    assert ways[1]["least_cosine"] > 0.9999
