"""The watch after a publication: servers that follow, fail, are late or silent, and the rollback."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from conf.lifecycle import LoopConfig, RetrainConfig, WatchConfig
from lifecycle.retrain import watching
from lifecycle.retrain.journal import Journal
from lifecycle.retrain.night import Night, Places
from lifecycle.retrain.outcomes import EndOfRunError, Outcome
from lifecycle.retrain.watch.metrics import Scrape
from lifecycle.retrain.watch.servers import Seen
from lifecycle.retrain.watching import observe_step, watch_step
from ranking.bundle.store import MANIFEST, VERSIONS, current_version, publish_version

Looks = Callable[[str], Sequence[Seen]]
"""Returns what is seen of the servers, given the version that CURRENT names."""


def published_night(folder: Path, **watch: Any) -> Night:
    """Return a run that has just published a second version; nothing in it is a model."""
    settings = {"seconds": 0.3, "interval_seconds": 0.05, "take_seconds": 0.2, "min_calls": 100, **watch}
    config = RetrainConfig(
        work_dir=str(folder),
        retrain=LoopConfig(watch=WatchConfig(**{"servers": ["shop1:1"], **settings})),
    )
    store = folder / "artifacts"
    before = publish_version(store, lambda made: None, {"number": 1})
    manifest = {"number": 2, "kinds": ["purchase", "click"], "click_kinds": [False, True]}
    after = publish_version(store, lambda made: None, manifest)
    night = Night(config, Console(quiet=True), Journal.begin(Places.of(config.work_dir).audit, config))
    night.journal.steps["observe"] = {
        "watched": True, "servers": [asdict(Seen("shop1:1", before))], "metrics": {},
    }  # fmt: skip
    night.journal.steps["publish"] = {"version": after, "before": before}
    return night


def versions_of(night: Night) -> tuple[str, str]:
    published = night.record("publish")
    return published["before"], published["version"]


def seen_as(monkeypatch: pytest.MonkeyPatch, night: Night, looks: Looks) -> None:
    monkeypatch.setattr(watching, "look_at", lambda config: list(looks(current_version(night.store))))


def ended(night: Night) -> EndOfRunError:
    with pytest.raises(EndOfRunError) as error:
        watch_step(night)
    return error.value


def test_servers_that_follow_are_watched_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night = published_night(tmp_path)
    seen_as(monkeypatch, night, lambda current: [Seen("shop1:1", current)])
    record = watch_step(night)
    _, version = versions_of(night)
    assert record["watched_seconds"] >= 0.3
    assert [(one["address"], one["version"]) for one in record["servers"]] == [("shop1:1", version)]
    (guard,) = record["guards"]
    assert guard["line"].startswith("not_judged: clicks: ")
    assert current_version(night.store) == version


def test_a_version_that_a_server_cannot_load_is_rolled_back_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = published_night(tmp_path, seconds=600, take_seconds=600)
    before, version = versions_of(night)
    failed = Seen("shop1:1", before, "it is damaged", version)
    seen_as(monkeypatch, night, lambda current: [failed if current == version else Seen("shop1:1", before)])
    end = ended(night)
    assert end.outcome is Outcome.rolled_back
    assert end.reason == (
        f"shop1:1 cannot load {version}: it is damaged; {before} is current again; 1 of 1 servers serve it"
    )
    assert current_version(night.store) == before
    assert end.record["rolled_back_to"] == before
    (line,) = (night.store / "audit.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert (told["action"], told["version"], told["former"]) == ("rollback", before, version)


def test_a_server_that_does_not_take_the_version_in_time_is_a_reason_to_roll_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = published_night(tmp_path)
    before, _ = versions_of(night)
    seen_as(monkeypatch, night, lambda current: [Seen("shop1:1", before)])
    end = ended(night)
    assert end.outcome is Outcome.rolled_back
    assert end.reason.startswith(f"shop1:1 still serves {before} after ")
    assert current_version(night.store) == before


def test_a_server_that_is_loading_the_version_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The histories of a large shop take longer than `take_seconds`, and than the watch itself."""
    night = published_night(tmp_path)
    before, version = versions_of(night)
    looks: list[str] = []

    def look(current: str) -> list[Seen]:
        looks.append(current)
        return [Seen("shop1:1", version) if len(looks) > 8 else Seen("shop1:1", before, loading=version)]

    seen_as(monkeypatch, night, look)
    record = watch_step(night)
    assert [one["version"] for one in record["servers"]] == [version]
    assert len(looks) == 9
    assert record["watched_seconds"] > night.config.retrain.watch.seconds
    assert current_version(night.store) == version


def test_a_server_that_stops_to_answer_is_a_reason_to_roll_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = published_night(tmp_path, seconds=30)
    before, version = versions_of(night)
    gone = Seen("shop1:1", None, "no server answers at shop1:1")
    seen_as(monkeypatch, night, lambda current: [gone if current == version else Seen("shop1:1", before)])
    end = ended(night)
    assert end.outcome is Outcome.rolled_back
    assert end.reason.startswith("shop1:1 has stopped to answer: no server answers at shop1:1; ")


def test_a_server_that_answered_neither_before_nor_after_is_a_fault_and_no_reason_to_roll_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = published_night(tmp_path)
    gone = Seen("shop1:1", None, "no server answers at shop1:1")
    night.journal.steps["observe"]["servers"] = [asdict(gone)]
    seen_as(monkeypatch, night, lambda current: [gone])
    end = ended(night)
    _, version = versions_of(night)
    assert end.outcome is Outcome.fault
    assert f"{version} is current and no guard is broken" in end.reason
    assert current_version(night.store) == version


class Clock:
    """Stands in for the module `time`: only sleeping takes time."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("down", "end"), [(45, None), (500, Outcome.rolled_back)])
def test_a_server_that_is_down_at_the_last_look_has_its_time_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, down: float, end: Outcome | None
) -> None:
    night = published_night(tmp_path, seconds=600, interval_seconds=10, take_seconds=180)
    clock = Clock()
    stops = clock.now + 595
    monkeypatch.setattr(watching, "time", clock)

    def look(current: str) -> list[Seen]:
        if stops <= clock.now < stops + down:
            return [Seen("shop1:1", None, "no server answers at shop1:1")]
        return [Seen("shop1:1", current)]

    seen_as(monkeypatch, night, look)
    if end is None:
        assert watch_step(night)["watched_seconds"] == pytest.approx(640, abs=1)
    else:
        assert ended(night).outcome is end


def test_metrics_that_cannot_be_read_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "http://shop1:9464/metrics"
    night = published_night(tmp_path, servers=[], metrics=[address])
    console = Console(record=True, width=200)
    monkeypatch.setattr(watching, "scrape", lambda _: f"{address}: Connection refused")
    assert observe_step(replace(night, console=console))["metrics"] == {}
    assert f"retrain: before the publication: {address}: Connection refused" in console.export_text()
    watch_step(replace(night, console=console))
    assert console.export_text().count(f"retrain: at the last look: {address}: Connection refused") == 1


def test_a_version_before_that_is_damaged_is_a_fault_that_says_what_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = published_night(tmp_path)
    before, version = versions_of(night)
    (night.store / VERSIONS / before / MANIFEST).write_text("{}")
    seen_as(monkeypatch, night, lambda current: [Seen("shop1:1", before, "it is damaged", version)])
    end = ended(night)
    assert (end.outcome, current_version(night.store)) == (Outcome.fault, version)
    assert end.reason.startswith(f"shop1:1 cannot load {version}: it is damaged; {version} is served all the")
    assert "unreadable manifest" in end.reason
    assert end.record["servers"][0]["version"] == before


def test_errors_after_the_publication_roll_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "http://shop1:9464/metrics"
    night = published_night(tmp_path, servers=[], metrics=[address])
    before, version = versions_of(night)
    calm = Scrape({"OK": 1000}, {}, {"none": 1000})
    monkeypatch.setattr(watching, "scrape", lambda _: calm)
    night.journal.steps["observe"] = observe_step(night)
    assert night.journal.steps["observe"]["metrics"][address]["codes"] == {"OK": 1000}
    # Until the version has become current, the one before answers: 10,000 calls that say nothing of it.
    busy = Scrape({"OK": 11_000}, {}, {"none": 11_000})
    broken = Scrape({"OK": 11_100, "INTERNAL": 60}, {}, {"none": 11_100})
    looks = chain([busy], repeat(broken))
    monkeypatch.setattr(watching, "scrape", lambda _: next(looks))
    end = ended(night)
    assert end.outcome is Outcome.rolled_back
    assert end.reason == (
        f"broken: 60 of 160 calls failed by a server's fault (37.50%; limit 1.00%); {before} is current again"
    )
    assert current_version(night.store) == before


def test_a_rollback_that_a_kill_has_interrupted_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = published_night(tmp_path, servers=[])
    before, _ = versions_of(night)
    night.journal.note(watching.ROLLING_BACK, "broken: errors")
    end = ended(night)
    assert (end.outcome, current_version(night.store)) == (Outcome.rolled_back, before)
    assert end.reason == f"broken: errors; {before} is current again"


def test_a_bad_first_version_stays_because_there_is_none_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = published_night(tmp_path)
    _, version = versions_of(night)
    night.journal.steps["publish"]["before"] = None
    seen_as(monkeypatch, night, lambda current: [Seen("shop1:1", "other", "damaged", version)])
    end = ended(night)
    assert end.outcome is Outcome.fault
    assert f"there is no version before {version} to go back to" in end.reason
    assert current_version(night.store) == version


def test_a_watch_ends_when_somebody_makes_another_version_current(tmp_path: Path) -> None:
    night = published_night(tmp_path, servers=[], seconds=600)
    other = publish_version(night.store, lambda made: None, {"number": 3})
    assert watch_step(night) == {"watched": True, "superseded_by": other}
    assert current_version(night.store) == other


def test_nothing_is_looked_at_without_a_time_to_watch(tmp_path: Path) -> None:
    night = published_night(tmp_path)
    config = replace(night.config, retrain=LoopConfig())
    assert observe_step(replace(night, config=config)) == {"watched": False}
    assert watch_step(replace(night, config=config)) == {"watched": False}
