"""Too little memory for a model: at a start, and beside the model that serves."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from conf.composition.compose import compose_command
from conf.errors import InputError
from ranking.bundle.host_memory import Room
from ranking.bundle.store import current_version
from serving import server

MB = 2**20


def test_a_start_without_memory_for_the_model_is_one_line(
    trained_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(request: object) -> None:
        raise AssertionError("loaded in spite of too little memory")

    monkeypatch.setattr(server, "RemoteModel", load)
    monkeypatch.setattr(server, "room", lambda: Room(600 * MB, "of the container's limit of 1,024 MB"))
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


def test_a_later_version_without_memory_beside_the_first_is_not_loaded(
    trained_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = current_version(trained_store)
    monkeypatch.setattr(server, "room", lambda: Room(50 * MB, "of this machine's memory"))
    with pytest.raises(InputError) as caught:
        server._check_memory(trained_store, version, beside=True, libraries=False)
    assert f"model {version} beside the one that serves" in str(caught.value)
    assert "the former model goes on; a restart changes over with one model at a time" in str(caught.value)
    # Without the libraries, which are loaded by then, a small model needs little.
    monkeypatch.setattr(server, "room", lambda: Room(300 * MB, "of this machine's memory"))
    server._check_memory(trained_store, version, beside=True, libraries=False)
    # So does a model whose process has ended and which is loaded anew.
    server._check_memory(trained_store, version, beside=False, libraries=False)
    with pytest.raises(InputError):
        server._check_memory(trained_store, version, beside=False, libraries=True)
