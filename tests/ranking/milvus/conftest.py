from __future__ import annotations

from tests.ranking.milvus.lite import server

__all__ = ["server"]
