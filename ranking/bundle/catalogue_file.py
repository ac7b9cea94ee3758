"""The catalogue of a published version alone."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from features.data.dataset import Catalogue
from ranking.bundle.store import VERSIONS

CATALOG = "catalog.parquet"


def read_catalogue(store: Path, version: str) -> Catalogue:
    """Return the items of a verified version."""
    return Catalogue(pl.read_parquet(store / VERSIONS / version / CATALOG))
