"""What texts contributed: choices that no source proposed but those that read texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from ranking.evaluation.metrics import HEADLINE
from ranking.evaluation.query_table import RANKS

TEXT_SOURCES: Final = frozenset({"text_neighbours", "new_items"})
"""Sources whose candidates come from texts alone. The user vector reads texts, too, beside the items' ids."""


@dataclass(frozen=True)
class TextShare:
    """Counts of choices (targets)."""

    targets: int
    proposed: int
    """Choices that any source proposed."""
    by_text: int
    """Choices that a text source proposed."""
    only_text: int
    """Choices that text sources alone proposed: without them they could not be listed."""
    only_text_found: int
    """Of these, those in the first ten."""
    found: int
    """Choices in the first ten, of any source."""


def text_share(queries: pl.DataFrame, system: str) -> TextShare | None:
    """Return what text sources proposed; None where the stored queries have no sources.

    Args:
        queries: `queries.parquet`.
        system: the measured system.
    """
    if "proposed_by" not in queries.columns:
        return None
    each = queries.select(
        sources=pl.col("proposed_by").explode(empty_as_null=False).fill_null("").str.split("+"),
        rank=pl.col(f"{system}/{RANKS}").explode(empty_as_null=False),
    ).with_columns(
        sources=pl.col("sources").list.filter(pl.element() != ""),
        found=(pl.col("rank") > 0) & (pl.col("rank") <= HEADLINE),
    )
    reading = pl.col("sources").list.set_intersection(sorted(TEXT_SOURCES)).list.len()
    every = pl.col("sources").list.len()
    only = (reading > 0) & (reading == every)
    counts = each.select(
        targets=pl.len(),
        proposed=(every > 0).sum(),
        by_text=(reading > 0).sum(),
        only_text=only.sum(),
        only_text_found=(only & pl.col("found")).sum(),
        found=pl.col("found").sum(),
    ).row(0, named=True)
    return TextShare(**{name: int(value) for name, value in counts.items()})
