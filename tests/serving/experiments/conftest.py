"""The shop of the tests of arms."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.serving.conftest import Servers
from tests.serving.experiments.arm_shop import Shop
from tests.serving.model.test_reload import FAST


@pytest.fixture
def shop(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Shop]:
    for name in ("followed.POLL_SECONDS", "router._MODEL_SECONDS"):
        monkeypatch.setattr(f"serving.experiments.{name}", FAST)
    return lambda text, **settings: Shop(servers, text, **settings)
