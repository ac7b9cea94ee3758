from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from conf.encoders import TextEncoderConfig
from conf.schema import DataConfig, PipelineConfig
from features.data.dataset import load_dataset
from ranking.bundle.bundle import load_bundle
from ranking.evaluation.query_table import read_queries
from ranking.pipeline.run import evaluate, run
from ranking.types import History, Request
from shelfwise_client import Client, Event, RecommendQuery, SessionEvent, SimilarQuery
from tests.synthetic import read_json

QUIET = Console(quiet=True)


@contextmanager
def served(artifacts: Path) -> Iterator[Client]:
    """Run `shelfwise serve` as its own process and give a client; SIGTERM must end it with exit code 0."""
    command = [sys.executable, "-m", "shelfwise", "serve", f"artifacts={artifacts}", "port=0", "threads=1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    watchdog = threading.Timer(90.0, process.kill)
    watchdog.start()
    try:
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            found = re.search(r"listening on (\S+:\d+)", line)
            if found:
                break
        else:
            raise AssertionError("".join(lines))
        with Client(found.group(1), timeout=30.0) as client:
            yield client
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        watchdog.cancel()
        process.kill()
        process.stdout.close()
        process.wait()


def test_the_server_returns_the_offline_recommenders_lists(trained: PipelineConfig) -> None:
    work = Path(trained.work_dir)
    dataset = load_dataset(work / "dataset")
    bundle = load_bundle(work / "artifacts")
    now = int(dataset.events.time.max()) + 3600
    events = dataset.events
    with served(work / "artifacts") as client:
        assert client.status().model_version == bundle.version
        for user in range(0, events.users, 7):
            mine = slice(int(events.offsets[user]), int(events.offsets[user + 1]))
            history = History(events.item[mine], events.kind[mine], events.time[mine])
            offline = bundle.recommender.recommend(
                [Request(history=history, now=now, k=10, exclude_seen=bundle.exclude_seen)]
            )[0]
            query = RecommendQuery(
                user_id=dataset.user_ids[user], page_size=10, request_time=datetime.fromtimestamp(now, UTC)
            )
            online = client.recommend(query)
            assert [i.item_id for i in online.items] == [dataset.catalogue.ids[i.row] for i in offline.items]
            assert [i.score for i in online.items] == pytest.approx(
                [i.score for i in offline.items], abs=1e-4
            )
            assert online.degradation == "none"


def test_a_run_leaves_what_other_programs_read(trained: PipelineConfig) -> None:
    assert evaluate(trained, QUIET) is not None
    folder = Path(trained.work_dir) / "evaluation"
    metrics: Any = read_json(folder / "metrics.json")
    assert {"protocol", "test", "valid", "slices", "stages", "timing"} <= metrics.keys()
    losses, queries = metrics["losses"], read_queries(folder)
    for window in ("valid", "test"):
        whole = losses[window]["all"]
        assert sum(whole["stages"].values()) == whole["lost"] == whole["targets"] - whole["found"] > 0
    found = queries["lost_at"].explode().is_null().sum()
    assert found == losses["test"]["all"]["found"]
    assert metrics["calibration"]["test"]["click"]["pairs"] > 0
    assert 0 < metrics["stability"]["test"]["overlap@10"]["mean"] <= 1
    assert metrics["shortcuts"]["test"]["text"]["queries"] > 0
    test = metrics["test"]
    assert isinstance(test, dict)
    assert {
        "shelfwise",
        "popularity",
        "recent_popularity",
        "own_repeats",
        "item_knn",
        "frozen_text",
    } <= test.keys()
    assert 0.0 < test["shelfwise"]["recall@10"] <= 1.0
    predictions = pl.read_parquet(folder / "predictions.parquet")
    assert predictions.columns == ["user_id", "rank", "item_id", "score"]
    for ranks, scores in predictions.group_by("user_id", maintain_order=True).agg("rank", "score").select(
        "rank", "score"
    ).iter_rows():  # fmt: skip
        assert ranks == list(range(1, len(ranks) + 1))
        assert len(ranks) <= 100
        assert scores == sorted(scores, reverse=True)
    assert "<html" in (folder / "report.html").read_text().lower()
    again = json.dumps(test, sort_keys=True)
    evaluate(trained, QUIET)
    repeated = read_json(folder / "metrics.json")["test"]
    assert json.dumps(repeated, sort_keys=True) == again


def test_the_planted_preferences_are_found(trained: PipelineConfig) -> None:
    evaluate(trained, QUIET)
    test = read_json(Path(trained.work_dir) / "evaluation" / "metrics.json")["test"]
    assert isinstance(test, dict)
    assert test["shelfwise"]["recall@10"] > 1.5 * test["popularity"]["recall@10"]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    """A shop with a catalogue and no history yet, run to the end."""
    folder = tmp_path_factory.mktemp("opened")
    titles = [
        f"{colour} {thing}" for thing in ("boot", "hat") for colour in ("red", "blue", "green", "black")
    ]
    frame = pl.DataFrame({"item_id": [f"i{n}" for n in range(8)], "title": titles, "price": np.arange(8.0)})
    frame.write_csv(folder / "items.csv")
    config = PipelineConfig(
        work_dir=str(folder / "work"),
        data=DataConfig(items=str(folder / "items.csv")),
        text_encoder=TextEncoderConfig(model=str(bert), max_tokens=16),
    )
    assert run(config, QUIET) is None
    return folder / "work" / "artifacts"


def test_a_shop_without_history_is_served_from_text(opened: Path) -> None:
    with served(opened) as client:
        assert len(client.similar_items(SimilarQuery(item_id="i0", page_size=3)).items) == 3
        session = client.recommend(RecommendQuery(session=(SessionEvent("i0"),), page_size=5))
        assert session.degradation == "text_only"
        assert "i0" not in [i.item_id for i in session.items]
        assert len(session.items) == 5
        stranger = client.recommend(RecommendQuery(user_id="nobody", page_size=3))
        assert stranger.degradation == "popularity"
        assert stranger.items[0].item_id != "i6"
        # Popularity follows events as soon as they come.
        events = [Event(f"u{n}", "i6", "purchase", event_id=f"e{n}") for n in range(3)]
        assert client.record_events(events).new_count == 3
        assert client.recommend(RecommendQuery(user_id="nobody", page_size=3)).items[0].item_id == "i6"
    with served(opened) as client:  # and after a restart
        assert client.recommend(RecommendQuery(user_id="nobody", page_size=3)).items[0].item_id == "i6"
        everything = client.recommend(RecommendQuery(user_id="nobody", page_size=100))
        assert len(everything.items) == 8
