from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conf.schema import PipelineConfig
from tests.faults.server_process import ServerProcess, command
from tests.serving.conftest import remains_are_left_alone, server, servers

__all__ = ["remains_are_left_alone", "server", "servers"]


class Processes:
    """Starts server processes, and ends those still running."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        self.store.mkdir()
        self.logs = folder / "logs"
        self._started: list[ServerProcess] = []

    def command(self, **settings: Any) -> list[str]:
        """Return the command of a server on the store; see `server_process.command`."""
        return command(**{"store": self.store, **settings})

    def start(self, **settings: Any) -> ServerProcess:
        """Start a server and wait until it answers."""
        return self.begin(self.command(**settings)).ready()

    def begin(self, words: list[str]) -> ServerProcess:
        """Run the command of a server that may end by itself."""
        process = ServerProcess(words, self.logs)
        self._started.append(process)
        return process

    def close(self) -> None:
        for process in self._started:
            if process.process.poll() is None:
                process.kill()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    yield started
    started.close()


@pytest.fixture
def trained_store(tmp_path: Path, trained: PipelineConfig) -> Path:
    """A store with one complete version with all optional files, for tests to damage."""
    return Path(shutil.copytree(Path(trained.work_dir) / "artifacts", tmp_path / "trained"))
