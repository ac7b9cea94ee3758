"""Index types and search parameters of Milvus by the settings."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from conf.engines.milvus import RetrievalConfig

METRIC: Final = "IP"
"""Inner product, as every index of the project."""
_HNSW: Final = {"M": 30, "efConstruction": 360}
"""Milvus's own defaults of its managed index: recall above .95 for the widths of text encoders."""


def lists_of(items: int) -> int:
    """Return the default number of lists of an inverted file: 4 times the root of the items."""
    return int(min(max(4 * np.sqrt(items), 1), 65536))


def index_parameters(config: RetrievalConfig, items: int) -> dict[str, Any]:
    """Return the parameters of an index over a number of items."""
    if config.index_params:
        return dict(config.index_params)
    if config.index_type.startswith("HNSW"):
        return dict(_HNSW)
    return {"nlist": lists_of(items)} if config.index_type.startswith("IVF") else {}


def search_parameters(config: RetrievalConfig, items: int, k: int) -> dict[str, Any]:
    """Return the parameters of a search for k rows; an HNSW search looks at 1.5 times as many at least."""
    given: dict[str, Any] = dict(config.search_params)
    if config.index_type.startswith("HNSW"):
        given["ef"] = max(int(given.get("ef", 64)), k + k // 2)
    elif config.index_type.startswith("IVF") and "nprobe" not in given:
        nlist = int(config.index_params.get("nlist", lists_of(items)))
        given["nprobe"] = max(nlist // 16, 1)
    return {"metric_type": METRIC, "params": given}
