"""The command that loads a collection, as messages print it."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console

from conf.engines.milvus import Consistency, RetrievalConfig
from conf.operating import RollbackConfig
from ranking.bundle.rollback import rollback
from ranking.bundle.store import current_version, publish_version
from ranking.milvus.naming import collection_name, load_command, version_of
from tests.ranking.milvus.lite import VERSION, settings


def test_a_collection_names_its_version() -> None:
    config = RetrievalConfig(prefix="shop_7")
    assert version_of(config, collection_name(config, VERSION)) == VERSION


def test_the_command_has_what_is_not_a_default() -> None:
    plain = "shelfwise load-candidates artifacts=STORE retrieval.uri=http://localhost:19530"
    assert load_command(RetrievalConfig(), None) == plain
    config = RetrievalConfig(
        database="shop", prefix="own", token_file="/etc/my token", index_params={"M": 8},
        consistency=Consistency.strong, timeout_seconds=9.0, write_seconds=60.0, load_seconds=7200.0,
    )  # fmt: skip
    assert shlex.split(load_command(config, VERSION, Path("/srv/a"))) == [
        "shelfwise", "load-candidates", "artifacts=/srv/a", f"version={VERSION}",
        "retrieval.uri=http://localhost:19530", 'retrieval.token_file=/etc/my token',
        "retrieval.database=shop", "retrieval.prefix=own", "retrieval.index_params={M: 8}",
        "retrieval.consistency=strong", "retrieval.write_seconds=60.0", "retrieval.load_seconds=7200.0",
    ]  # fmt: skip


def test_a_rollback_happens_though_the_token_cannot_be_read(tmp_path: Path) -> None:
    versions = [
        publish_version(tmp_path, lambda folder, n=n: (folder / "note").write_text(n), {})  # type: ignore[misc]
        for n in ("first", "second")
    ]
    config = settings("http://localhost:1", token_file=str(tmp_path / "none"), prefix="own")
    console = Console(record=True, width=300)
    rollback(RollbackConfig(str(tmp_path), retrieval=config), console)
    assert current_version(tmp_path) == versions[0]
    printed = console.export_text()
    assert "/none cannot be read (No such file or directory); servers need the collection of " in printed
    assert f"version={versions[0]} retrieval.uri=http://localhost:1 retrieval.token_file=" in printed
    assert "warning: the alias own is not changed" in printed
