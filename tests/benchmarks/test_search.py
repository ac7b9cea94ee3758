from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import search
from benchmarks.search import SHARES, filters, found_of, generated, groups_of, search_figures
from encoders.device import CPU
from tests.second_device import second_device


def test_queries_take_turns_with_the_filters() -> None:
    masks = filters(1000)
    groups = groups_of(11, 7, masks)
    assert [group.members.tolist() for group in groups[:4]] == [[0, 8], [1, 9], [2, 10], [3]]
    assert sorted(np.concatenate([group.members for group in groups]).tolist()) == list(range(11))
    assert groups[0].allowed is None
    assert all(group.k == 7 for group in groups)
    shares = [mask.mean() for mask in masks if mask is not None]
    np.testing.assert_allclose(shares, [share for share in SHARES if share is not None], atol=0.05)
    assert len(groups_of(1, 7, masks)) == 1


def test_what_is_found_is_counted_by_hand() -> None:
    vectors = np.array([[3.0], [2.0], [2.0], [1.0]], dtype=np.float32)
    query, best = np.ones((1, 1), dtype=np.float32), np.array([[0, 1]])

    def counted(*rows: int, mask: list[bool] | None = None) -> tuple[float, float]:
        allowed = None if mask is None else np.array(mask)
        return found_of(query, vectors, np.array([rows], dtype=np.int32), best, allowed)

    assert counted(0, 1) == (1.0, 1.0)
    assert counted(0, 2) == (0.5, 1.0), "as good as the other"
    assert counted(0, 3) == (0.5, 0.0)
    assert counted(0, 0) == (0.5, 0.0)
    assert counted(0, -1) == (0.5, 0.0)
    assert counted(0, 1, mask=[True, False, True, True]) == (1.0, 0.0), "forbidden"


@pytest.mark.parametrize("where", ["cpu", "device"])
def test_small_catalogues_are_searched_exactly_on_either_device(where: str) -> None:
    def measured(device: torch.device) -> dict[str, float]:
        return search_figures(3000, device, width=24, k=20, seconds=0.0)

    if where == "cpu":
        figures = measured(CPU)
    else:
        with second_device() as device:
            figures = measured(device)
    for name in ("recall", "exact", "mixed_recall", "mixed_exact"):
        assert figures[name] == 1.0, name
    assert all(value > 0.0 for value in figures.values())
    assert {"plain_256_ms", "mixed_32_ms", "build_seconds"} <= figures.keys()


def test_the_figures_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(search, "BATCHES", (1, 2))
    output = tmp_path / "search.json"
    arguments = ["--items", "500", "--device", "cpu", "--seconds", "0", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["search", *arguments])
    search.main()
    assert "500 items" in capsys.readouterr().out
    assert json.loads(output.read_text())["500"]["exact"] == 1.0


def test_users_lie_near_items() -> None:
    vectors, queries = generated(2000, 16, 9)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    assert ((queries @ vectors.T).max(axis=1) > 0.5).all()
