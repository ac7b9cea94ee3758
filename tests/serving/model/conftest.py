from __future__ import annotations

from collections.abc import Iterator

import pytest

from serving.model.process.client import ModelProcess
from serving.model.process.worker import LoadRequest


@pytest.fixture(autouse=True)
def processes_end_with_the_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close every model's process that a test has started, and wait for its end."""
    started: list[ModelProcess] = []
    begin = ModelProcess.__init__

    def noted(process: ModelProcess, request: LoadRequest) -> None:
        started.append(process)
        begin(process, request)

    monkeypatch.setattr(ModelProcess, "__init__", noted)
    yield
    for process in started:
        process.close()
        assert process.ended.wait(30)
