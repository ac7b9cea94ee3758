"""What a command advises where a collection is not loaded: something that its caller can do."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from rich.console import Console

from conf.engines.milvus import LoadCandidatesConfig, RetrievalConfig
from conf.errors import InputError
from conf.operating import RollbackConfig
from ranking.bundle import collections
from ranking.bundle.collections import load_candidates, load_staged
from ranking.bundle.rollback import rollback
from ranking.bundle.store import current_version, publish_version
from ranking.milvus.loading import IncompleteError
from tests.ranking.milvus.lite import VERSION, settings

QUIET = Console(quiet=True)
CONFIG = settings("http://localhost:1", load_seconds=9.0)
FAILURE = "Milvus at http://localhost:1: the index item of x is not built after 9 seconds (2 rows are left)"


@pytest.fixture(autouse=True)
def incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    """No collection can be loaded."""

    def fails(*_: object) -> None:
        raise IncompleteError(FAILURE)

    def loader(config: RetrievalConfig) -> nullcontext[None]:
        return nullcontext()

    monkeypatch.setattr(collections, "CollectionLoader", loader)
    monkeypatch.setattr(collections, "load_collection", fails)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for name in ("first", "second"):
        publish_version(tmp_path, lambda folder, n=name: (folder / "note").write_text(n), {})  # type: ignore[misc]
    return tmp_path


def test_a_version_that_is_not_published_is_published_again(tmp_path: Path) -> None:
    """Its files are removed, so that no version of its name can be loaded."""
    with pytest.raises(InputError) as caught:
        load_staged(CONFIG, tmp_path, {"version": VERSION}, QUIET)
    assert str(caught.value) == f"{FAILURE}; publish again"


def test_load_candidates_is_repeated(store: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_candidates(LoadCandidatesConfig(str(store), retrieval=CONFIG), QUIET)
    assert str(caught.value).startswith(f"{FAILURE}; load again: shelfwise load-candidates artifacts={store}")
    assert "version=" not in str(caught.value)


def test_a_rollback_names_its_version(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ranking.bundle.rollback.follow_current", lambda *_: None)
    console = Console(record=True, width=500)
    rollback(RollbackConfig(str(store), retrieval=CONFIG), console)
    version, printed = current_version(store), console.export_text()
    assert f"{FAILURE}; servers need the collection of {version} to load it: shelfwise" in printed
    assert f" version={version} " in printed
