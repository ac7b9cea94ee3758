"""Who may read what is written: nobody but the owner personal data, whoever the umask lets a bundle."""

from __future__ import annotations

import io
import logging
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from conf.operating import ExportEventsConfig
from conf.schema import PipelineConfig
from features.files.modes import create_private, make_private, make_public, mend, private_opener, umask
from ranking.bundle.store import VERSIONS, publish_version
from serving.cli.export_events import export_events
from serving.state.contracts.user_state import NewEvent
from serving.state.histories import remove_users
from tests.serving.backends import Backend


@pytest.fixture
def open_umask() -> Iterator[None]:
    """The most careless umask there is."""
    former = os.umask(0)
    yield
    os.umask(former)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_umask_is_read_and_not_changed(open_umask: None) -> None:
    assert umask() == 0
    os.umask(0o027)
    assert umask() == 0o027
    assert os.umask(0) == 0o027


def test_a_private_file_is_private_from_its_creation_and_when_it_was_there(
    tmp_path: Path, open_umask: None
) -> None:
    create_private(tmp_path / "new")
    assert mode(tmp_path / "new") == 0o600
    (tmp_path / "old").write_text("someone")
    assert mode(tmp_path / "old") == 0o666
    create_private(tmp_path / "old")
    assert (mode(tmp_path / "old"), (tmp_path / "old").read_text()) == (0o600, "")
    with open(tmp_path / "opened", "w", opener=private_opener):
        assert mode(tmp_path / "opened") == 0o600


def test_others_lose_what_the_owner_keeps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "file"
    assert not make_private(path)
    path.touch()
    path.chmod(0o474)
    with caplog.at_level(logging.WARNING):
        mend(path)
        mend(path)
    assert mode(path) == 0o400
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: other users of this machine could read it; only its owner can now"
    ]


@pytest.mark.parametrize(
    ("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750), (0, 0o666, 0o777)]
)
def test_a_bundle_can_be_read_by_those_whom_the_umask_lets(
    tmp_path: Path, open_umask: None, mask: int, file: int, folder: int
) -> None:
    def write(staging: Path) -> None:
        (staging / "text_encoder").mkdir(mode=0o700)
        for name in ("ranker.safetensors", "text_encoder/model.safetensors"):
            create_private(staging / name)

    os.umask(mask)
    version = publish_version(tmp_path, write, {})
    published = tmp_path / VERSIONS / version
    assert {mode(path) for path in published.rglob("*") if path.is_file()} == {file}
    assert (mode(published), mode(published / "text_encoder")) == (folder, folder)


def test_make_public_leaves_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    make_public(tmp_path)
    assert (tmp_path / "a").read_text() == "1"


def test_the_state_is_private_with_everything_beside_it(tmp_path: Path, open_umask: None) -> None:
    state = tmp_path / "state.sqlite"
    seen: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for path in tmp_path.glob("state.sqlite*"):
                try:
                    seen.add(mode(path))
                except FileNotFoundError:  # SQLite has just removed it
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    backend = Backend(str(state), tmp_path)
    for number in range(20):
        backend.users(lambda users, n=number: users.record([NewEvent(f"u{n}", "i", "view", n + 1, f"e{n}")]))  # type: ignore[misc]
    done.set()
    watcher.join()
    assert seen == {0o600}


def test_a_state_of_an_earlier_release_is_mended_with_its_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Backend(str(tmp_path / "state.sqlite"), tmp_path)
    backend.users(lambda users: users.record([NewEvent("u", "i", "view", 1, "e")]))
    reader = sqlite3.connect(tmp_path / "state.sqlite")  # keeps the log from being removed
    reader.execute("SELECT count(*) FROM events").fetchall()
    backend.users(lambda users: users.record([NewEvent("u", "i", "view", 2, "f")]))
    files = sorted(tmp_path.glob("state.sqlite*"))
    assert [path.name for path in files] == ["state.sqlite", "state.sqlite-shm", "state.sqlite-wal"]
    for path in files:
        path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert backend.users(lambda users: users.users("", 9)) == ["u"]
    reader.close()
    assert {mode(path) for path in tmp_path.glob("state.sqlite*")} == {0o600}
    assert sum("could read it" in record.getMessage() for record in caplog.records) == 3


def test_exports_and_rewritten_histories_are_private(tmp_path: Path, open_umask: None) -> None:
    backend = Backend(str(tmp_path / "state.sqlite"), tmp_path)
    backend.users(lambda users: users.record([NewEvent("u", "i", "view", 1, "e")]))
    output = tmp_path / "events.parquet"
    output.touch()
    export_events(
        ExportEventsConfig(str(tmp_path), backend.state, output=str(output)), Console(file=io.StringIO())
    )
    assert mode(output) == 0o600
    histories = tmp_path / "histories.parquet"
    pl.DataFrame({"user_id": ["u", "v"]}).write_parquet(histories)
    remove_users(histories, ["u"])
    assert mode(histories) == 0o600


def test_a_run_keeps_personal_data_to_its_owner_and_the_rest_readable(trained: PipelineConfig) -> None:
    work = Path(trained.work_dir)
    private = (
        "dataset/events.parquet",
        "dataset/arrays/user.npy",
        "dataset/arrays/user_ids.arrow",
        "dataset/rejects.parquet",
        "artifacts/histories.parquet",
    )
    assert {mode(work / name) for name in private} == {0o600}
    mask = umask()
    readable = [
        work / "dataset/items.parquet",
        work / "artifacts/CURRENT",
        *(work / "artifacts/versions").rglob("*"),
    ]
    assert {mode(path) for path in readable if path.is_file()} == {0o666 & ~mask}
    assert {mode(path) for path in readable if path.is_dir()} == {0o777 & ~mask}
