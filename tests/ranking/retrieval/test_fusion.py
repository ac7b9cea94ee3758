"""Merging what the sources propose, against the naive way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.candidates.features import Candidates
from features.data.dataset import IntArray
from ranking.retrieval.fusion import merge
from ranking.sources import SOURCES


def naive_merge(proposals: dict[str, IntArray], query: int) -> list[tuple[int, int, float]]:
    """Row, source mask and fused score, best first, one proposal at a time."""
    fused: dict[int, float] = {}
    masks: dict[int, int] = {}
    for name, rows in proposals.items():
        for rank, row in enumerate(rows[query].tolist()):
            if row >= 0:
                fused[row] = fused.get(row, 0.0) + 1.0 / (61.0 + rank)
                masks[row] = masks.get(row, 0) | 1 << SOURCES.names.index(name)
    return [(row, masks[row], fused[row]) for row in sorted(fused, key=lambda r: (-round(fused[r], 12), r))]


def united(proposals: dict[str, IntArray], queries: int) -> Candidates:
    return merge([(SOURCES.names.index(name), rows) for name, rows in proposals.items()], queries)


@st.composite
def proposal_blocks(draw: st.DrawFn) -> tuple[dict[str, IntArray], int]:
    queries = draw(st.integers(1, 3))
    blocks = {}
    for name in draw(st.lists(st.sampled_from(SOURCES.names), unique=True, max_size=6)):
        quota = draw(st.integers(0, 5))
        rows = np.full((queries, quota), -1, np.int32)
        for query in range(queries):
            own = draw(st.lists(st.integers(0, 8), unique=True, max_size=quota))
            rows[query, : len(own)] = own
        blocks[name] = rows
    return blocks, queries


@settings(max_examples=200, deadline=None)
@given(proposal_blocks())
def test_merging_is_the_naive_fusion(case: tuple[dict[str, IntArray], int]) -> None:
    proposals, queries = case
    merged = united(proposals, queries)
    naive = [naive_merge(proposals, q) for q in range(queries)]
    assert merged.rows.shape == (queries, max(len(rows) for rows in naive))
    for query, expected in enumerate(naive):
        count = len(expected)
        assert (merged.rows[query, count:] == -1).all()
        assert (merged.sources[query, count:] == 0).all()
        assert (merged.fused[query, count:] == 0).all()
        found: dict[int, Any] = {
            int(row): (int(mask), float(score))
            for row, mask, score in zip(
                merged.rows[query, :count],
                merged.sources[query, :count],
                merged.fused[query, :count],
                strict=True,
            )
        }
        assert found == {row: (mask, pytest.approx(score, rel=1e-5)) for row, mask, score in expected}
        assert (np.diff(merged.fused[query, :count]) <= 0).all()
        ranks = [score for _, _, score in expected]
        clear = [a - b > 1e-9 for a, b in zip(ranks, ranks[1:], strict=False)]
        if all(clear):
            assert merged.rows[query, :count].tolist() == [row for row, _, _ in expected]


def test_equal_fused_ranks_go_by_row() -> None:
    merged = united({"popular": np.array([[7, 2]], np.int32), "repeat": np.array([[2, 7]], np.int32)}, 1)
    assert merged.rows.tolist() == [[2, 7]]
    both = 1 << SOURCES.names.index("popular") | 1 << SOURCES.names.index("repeat")
    assert merged.sources.tolist() == [[both, both]]
    assert SOURCES.proposed_by(both) == ("repeat", "popular")
