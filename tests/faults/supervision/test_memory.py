"""Too little memory for a model: at a start, and beside the model that serves."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from rich.console import Console

from conf.composition.compose import compose_command
from conf.errors import InputError
from conf.serving import ServeConfig
from ranking.bundle.host_memory import NoRoomError, Room
from ranking.bundle.store import VERSIONS, current_version
from serving import server
from serving.model.interfaces import LiveModel
from serving.model.process.loader import Loader
from serving.model.process.worker import LoadRequest
from tests.faults.conftest import Processes
from tests.faults.server_process import ServerProcess
from tests.processes import children, descendants
from tests.serving.conftest import until
from tests.serving.fake_bundle import FakeBundle

MB = 2**20


def test_a_start_without_memory_for_the_model_is_one_line(
    trained_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unused(Loader):
        def __init__(self, config: ServeConfig) -> None:
            super().__init__(config, refuse, lambda: Room(600 * MB, "of the container's limit of 1,024 MB"))

    def refuse(request: object) -> LiveModel:
        raise AssertionError("loaded in spite of too little memory")

    monkeypatch.setattr(server, "Loader", Unused)
    config = compose_command("serve", [f"artifacts={trained_store}", "port=0"])
    with pytest.raises(InputError) as caught:
        server.serve(config, Console(quiet=True))
    line = str(caught.value)
    assert line.startswith(f"too little memory for model {current_version(trained_store)}: it takes about ")
    assert "600 MB are free (of the container's limit of 1,024 MB)" in line
    assert "give more memory, or serve fewer workers" in line
    config = compose_command("serve", [f"artifacts={trained_store}", "port=0", "memory_check=false"])
    with pytest.raises(AssertionError, match="loaded in spite"):
        server.serve(config, Console(quiet=True))


def test_a_later_version_without_memory_beside_the_first_is_not_loaded(trained_store: Path) -> None:
    version, free, loaded = current_version(trained_store), [50 * MB], []

    def start(request: LoadRequest) -> LiveModel:
        loaded.append(request.background)
        return FakeBundle(request.version)

    load = Loader(
        ServeConfig(artifacts=str(trained_store)), start, lambda: Room(free[0], "of this machine's memory")
    )
    with pytest.raises(NoRoomError) as caught:
        load(version, True)
    assert f"model {version} beside the one that serves" in str(caught.value)
    assert "the former model goes on; reload_without_room=stop_first" in str(caught.value)
    assert loaded == []
    # Without the libraries, which are loaded by then, a small model needs little.
    free[0] = 300 * MB
    load(version, True)
    # So does a model whose process has ended and which is loaded anew.
    load(version, False)
    assert loaded == [True, False]
    with pytest.raises(NoRoomError):
        load.first(version)


def models(server: ServerProcess) -> int:
    """Return how many processes run models; each worker has a fork server, too. 0 if one has just ended."""
    try:
        return len(descendants(server.process.pid)) - 2 * len(children(server.process.pid))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def test_workers_load_a_version_one_after_the_other(
    processes: Processes, trained_store: Path, tmp_path: Path
) -> None:
    store = tmp_path / "shop"
    shutil.copytree(trained_store, store)
    first = current_version(store)
    server = processes.start(store=store, real=True, workers=3, reload_seconds=0.1)
    until(lambda: models(server) == 3, 120)
    second = f"20990101T000000Z-{first.split('-')[1]}"
    shutil.copytree(store / VERSIONS / first, store / VERSIONS / second)
    (store / "CURRENT").write_text(second + "\n")
    most, deadline = 3, time.monotonic() + 120
    while server.out.read_text().count(f"serving model {second}") < 3:
        most = max(most, models(server))
        assert time.monotonic() < deadline, server.err.read_text()
        time.sleep(0.005)
    assert most == 4  # memory for one model more is enough
    assert server.stop() == 0
