"""The items of a published version, for who needs no more of it."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from features.data.dataset import Catalogue
from ranking.bundle.store import VERSIONS

CATALOG = "catalog.parquet"


def read_catalogue(store: Path, version: str) -> Catalogue:
    """Read the items of a version that has been verified."""
    return Catalogue(pl.read_parquet(store / VERSIONS / version / CATALOG))
