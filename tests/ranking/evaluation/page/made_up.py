"""A result and queries by hand, for the parts of the page."""

from __future__ import annotations

from typing import Any

import polars as pl


def stored_queries() -> pl.DataFrame:
    """Return `queries.parquet` of four users of the systems `own` and `knn`; ranks are places of choices."""
    return pl.DataFrame(
        {
            "user_id": ["u0", "u1", "u2", "u3"],
            "history": [2, 3, 1, 4],
            "targets": [["i0", "i1"], ["i2"], ["i3", "i4"], ["i5"]],
            "lost_at": [[None, "ranked_away"], [None], ["never_proposed", "never_proposed"], ["ranked_away"]],
            "proposed_by": [
                ["text_neighbours", "user_vector+text_neighbours"],
                ["text_neighbours+new_items"],
                ["", ""],
                ["popular"],
            ],
            "slice/few": [False, True, True, False],
            "slice/hits": [True, True, False, False],
            "targets_in/hits": [[True, False], [True], [False, False], [False]],
            "own/ranks": [[3, 12], [1], [0, 0], [50]],
            "own/recall@10": [0.5, 1.0, 0.0, 0.0],
            "own/mrr": [1 / 3, 1.0, 0.0, 0.02],
            "knn/ranks": [[1, 0], [0], [2, 4], [10]],
            "knn/recall@10": [0.5, 0.0, 1.0, 1.0],
            "knn/mrr": [1.0, 0.0, 0.5, 0.1],
        },
        schema_overrides={"own/ranks": pl.List(pl.UInt8), "knn/ranks": pl.List(pl.UInt8)},
    )


def stored_lists() -> pl.DataFrame:
    """Return `lists.parquet` with two places of each list of `own`."""
    rows = [(f"u{user}", "own", rank, f"i{2 * user + rank - 1}") for user in range(3) for rank in (1, 2)]
    return pl.DataFrame(rows, schema=["user_id", "system", "rank", "item_id"], orient="row")


def a_result(**changes: Any) -> dict[str, Any]:
    """Return a result of `own` and `knn` with every part that the words of the page read."""
    result: dict[str, Any] = {
        "protocol": {
            "system": "own", "parts": [], "measured": "test", "items": 1000, "exclude_seen": True,
            "queries": {"valid": 800, "test": 900}, "targets": {"valid": 800, "test": 1200}, "seed": 0,
            "confidence_level": 0.95,
        },
        "test": {"own": {"recall@10": 0.2}, "knn": {"recall@10": 0.15}},
        "confidence": {"test": {"own": {"recall@10": [0.18, 0.22]}}},
        "significance": {
            "test": {
                "knn": {
                    "recall@10": {
                        "difference": 0.05, "low": 0.03, "high": 0.07, "p_value": 0.0001, "p_holm": 0.0003
                    }
                }
            }
        },
        "slices": {
            name: {"queries": queries, "targets": 120, "about": name, "systems": {}}
            for name, queries in (
                ("cold_items", 100),
                ("head_items", 700),
                ("history_0", 20),
                ("tail_items", 50),
            )
        },
    }  # fmt: skip
    return result | changes
