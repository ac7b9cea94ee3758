from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ranking.milvus.lite import Lite, lite


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lite]:
    with lite(Path(tmp_path_factory.mktemp("milvus"))) as found:
        yield found
