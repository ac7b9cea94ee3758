from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conf.schema import PipelineConfig
from explorer.storefront.shop_server import ShopServer


@pytest.fixture(scope="session")
def artifacts(trained: PipelineConfig) -> Path:
    """The artifact store of the synthetic shop."""
    return Path(trained.work_dir) / "artifacts"


@pytest.fixture(scope="session")
def server(artifacts: Path) -> Iterator[ShopServer]:
    """A storefront's own server, not started yet; a test that ends it starts it again."""
    server = ShopServer(artifacts)
    yield server
    server.close()
