"""The ledger: new events once, erased users never, a kill at any point harmless."""

from __future__ import annotations

import json
import os
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from conf.errors import InputError
from conf.serving import RedisConfig
from lifecycle.ledger import months
from lifecycle.ledger.collection import Collected, collect
from serving.state.contracts.user_state import Exposure, NewEvent
from tests.serving.backends import Backend

SECOND = 1_000_000
NOVEMBER = int(datetime(2025, 11, 30, 23, 59, 59, tzinfo=UTC).timestamp()) * SECOND
DECEMBER = NOVEMBER + SECOND


@pytest.fixture(name="backend")
def _backend(tmp_path: Path) -> Backend:
    return Backend(str(tmp_path / "state.sqlite"), tmp_path)


def event(user: str, name: str, time_us: int, item: str = "1", kind: str = "click") -> NewEvent:
    return NewEvent(user, item, kind, time_us, f"client:{name}")


def record(backend: Backend, *events: NewEvent) -> None:
    backend.users(lambda state: state.record(events))


def erase(backend: Backend, user: str) -> None:
    backend.users(lambda state: state.delete_user(user))


def night(backend: Backend, folder: Path) -> Collected:
    return collect(folder, backend.folder, backend.state, RedisConfig())


def rows(collected: Collected) -> list[tuple[str, str]]:
    """Return user and event id of every event, in the order of the files."""
    tables = [pl.read_parquet(path).select("user_id", "event_id") for path in collected.files]
    return [row for table in tables for row in table.iter_rows()]


def test_every_event_lies_once_in_the_file_of_its_month(backend: Backend, tmp_path: Path) -> None:
    record(
        backend,
        event("ben", "b1", DECEMBER),
        event("anna", "a1", NOVEMBER),
        event("anna", "a2", DECEMBER + 1),
    )
    first = night(backend, tmp_path / "ledger")
    assert [path.name for path in first.files] == ["2025-11.parquet", "2025-12.parquet"]
    assert rows(first) == [("anna", "a1"), ("ben", "b1"), ("anna", "a2")]
    assert (first.events, first.users, first.new_events, first.known_events) == (3, 2, 3, 0)
    assert first.newest == datetime(2025, 12, 1, 0, 0, 0, 1, tzinfo=UTC)

    record(backend, event("ben", "b0", DECEMBER - 2 * SECOND), event("ben", "b1", DECEMBER))
    unchanged = first.files[1].stat()
    second = night(backend, tmp_path / "ledger")
    assert (second.events, second.new_events, second.known_events, second.months_rewritten) == (4, 1, 3, 1)
    assert rows(second)[:2] == [("ben", "b0"), ("anna", "a1")]  # sorted by time
    assert second.files[1].stat().st_mtime_ns == unchanged.st_mtime_ns
    assert night(backend, tmp_path / "ledger") == Collected(
        second.files, 4, 2, second.newest, new_events=0, known_events=4, months_rewritten=0
    )


def test_equal_event_ids_of_two_users_are_two_events(backend: Backend, tmp_path: Path) -> None:
    record(backend, event("anna", "1", DECEMBER), event("ben", "1", DECEMBER))
    night(backend, tmp_path / "ledger")
    assert rows(night(backend, tmp_path / "ledger")) == [("anna", "1"), ("ben", "1")]


def test_the_ledger_keeps_what_the_state_has_dropped(backend: Backend, tmp_path: Path) -> None:
    record(backend, event("anna", "a1", DECEMBER))
    night(backend, tmp_path / "ledger")
    Path(backend.state).unlink()
    record(backend, event("anna", "a2", DECEMBER + SECOND))
    assert rows(night(backend, tmp_path / "ledger")) == [("anna", "a1"), ("anna", "a2")]


def test_nothing_of_an_erased_user_stays(backend: Backend, tmp_path: Path) -> None:
    record(
        backend, event("anna", "a1", NOVEMBER), event("anna", "a2", DECEMBER), event("ben", "b1", DECEMBER)
    )
    night(backend, tmp_path / "ledger")
    erase(backend, "anna")
    after = night(backend, tmp_path / "ledger")
    assert [path.name for path in after.files] == ["2025-12.parquet"]  # November was hers alone
    assert (rows(after), after.erased_users, after.erased_events) == ([("ben", "b1")], 1, 2)
    assert all(b"anna" not in path.read_bytes() for path in (tmp_path / "ledger").iterdir())
    again = night(backend, tmp_path / "ledger")
    assert (again.erased_users, again.erased_events, again.months_rewritten) == (0, 0, 0)


def test_a_user_who_came_back_has_what_happened_since(backend: Backend, tmp_path: Path) -> None:
    record(backend, event("anna", "old", DECEMBER))
    night(backend, tmp_path / "ledger")
    erase(backend, "anna")
    now = int(datetime.now(UTC).timestamp() + 60) * SECOND
    record(backend, event("anna", "new", now))
    back = night(backend, tmp_path / "ledger")
    assert (rows(back), back.new_events, back.erased_events) == ([("anna", "new")], 1, 1)
    later = night(backend, tmp_path / "ledger")
    assert (rows(later), later.new_events, later.months_rewritten) == ([("anna", "new")], 0, 0)


def test_only_users_of_whom_something_was_taken_out_are_counted_as_erased(
    backend: Backend, tmp_path: Path
) -> None:
    record(backend, event("anna", "old", DECEMBER), event("ben", "b1", DECEMBER))
    night(backend, tmp_path / "ledger")
    erase(backend, "anna")
    now = int(datetime.now(UTC).timestamp() + 60) * SECOND
    record(backend, event("anna", "new", now))
    assert night(backend, tmp_path / "ledger").erased_users == 1
    erase(backend, "ben")
    after = night(backend, tmp_path / "ledger")
    assert (rows(after), after.erased_users, after.erased_events) == ([("anna", "new")], 1, 1)


def test_a_user_erased_during_the_export_is_in_no_file(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(backend, event("anna", "a1", DECEMBER), event("ben", "b1", DECEMBER))
    written = months.users_of

    def erased_meanwhile(files: list[Path]) -> list[str]:
        found = written(files)
        if found == ["anna", "ben"]:
            thread = threading.Thread(target=erase, args=(backend, "anna"))
            thread.start()
            thread.join()
        return found

    monkeypatch.setattr("lifecycle.ledger.collection.users_of", erased_meanwhile)
    assert rows(night(backend, tmp_path / "ledger")) == [("ben", "b1")]


def test_a_kill_at_any_rename_loses_and_doubles_nothing(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [event("anna", str(n), DECEMBER - n * 32 * 86_400 * SECOND) for n in range(4)]
    record(backend, *events)
    folder = tmp_path / "ledger"
    replace = months.replace_month
    for allowed in range(4):
        done = 0

        def killed(path: Path, table: pl.LazyFrame, allowed: int = allowed) -> None:
            nonlocal done
            if done == allowed:
                months.temporary(path).write_bytes(b"half a file")
                raise KeyboardInterrupt
            done += 1
            replace(path, table)

        monkeypatch.setattr(months, "replace_month", killed)
        with pytest.raises(KeyboardInterrupt):
            night(backend, folder)
        found = [pl.read_parquet(path) for path in months.month_files(folder)]
        assert sum(table.height for table in found) == allowed
        monkeypatch.setattr(months, "replace_month", replace)
        whole = night(backend, folder)
        assert sorted(rows(whole)) == [("anna", str(n)) for n in range(4)]
        assert not [path for path in folder.iterdir() if path.suffix != ".parquet"]
        for path in whole.files:
            path.unlink()


def test_columns_that_a_later_release_adds_are_null_before(backend: Backend, tmp_path: Path) -> None:
    record(backend, NewEvent("anna", "1", "click", DECEMBER, "client:a1", Exposure("r-1", 3)))
    folder = tmp_path / "ledger"
    path = night(backend, folder).files[0]
    pl.read_parquet(path).drop("surface").write_parquet(path)
    record(backend, NewEvent("anna", "1", "click", DECEMBER + 1, "client:a2", Exposure("r-2", 1, "home")))
    table = pl.read_parquet(night(backend, folder).files[0])
    assert table["surface"].to_list() == [None, "home"]
    assert table["request_id"].to_list() == ["r-1", "r-2"]


def test_files_are_private_and_hold_pseudonyms_marked(backend: Backend, tmp_path: Path) -> None:
    record(backend, event("0" * 31 + "1", "a1", DECEMBER))
    version = tmp_path / "versions" / "20250101T000000Z-000000000000"
    version.mkdir(parents=True)
    (version / "manifest.json").write_text(json.dumps({"hash_users": True}))
    (tmp_path / "CURRENT").write_text(version.name + "\n")
    found = night(backend, tmp_path / "ledger")
    assert rows(found) == [("pseudonym:" + "0" * 31 + "1", "a1")]
    assert stat.S_IMODE(os.stat(found.files[0]).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(tmp_path / "ledger").st_mode) == 0o700
    erase(backend, "0" * 31 + "1")
    assert night(backend, tmp_path / "ledger").files == []


def test_a_shop_without_a_server_yet_has_an_empty_ledger(tmp_path: Path) -> None:
    assert collect(tmp_path / "ledger", tmp_path, None, RedisConfig()) == Collected([])


def test_a_state_that_is_named_and_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="so nothing was recorded here"):
        collect(tmp_path / "ledger", tmp_path, str(tmp_path / "other.sqlite"), RedisConfig())


def test_a_damaged_month_is_named(backend: Backend, tmp_path: Path) -> None:
    record(backend, event("anna", "a1", DECEMBER))
    night(backend, tmp_path / "ledger").files[0].write_bytes(b"no table")
    with pytest.raises(
        InputError, match=r"ledger: a file of the ledger cannot be read or written .* restore a damaged file"
    ):
        night(backend, tmp_path / "ledger")
