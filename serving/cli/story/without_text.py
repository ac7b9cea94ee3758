"""Scene: the value of text; a user's list beside those of systems that use item ids alone, with metrics.

These are co-occurrence (`item_knn`), counted over all events up to the request time, and the user tower
trained without texts (`sasrec_ids`), as stored by the evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encoders.towers.towers import Towers
from features.data.dataset import Dataset, LongArray, load_dataset
from features.data.splits import Queries
from ranking.baselines.items import ItemKnn
from ranking.baselines.registry import Baseline
from ranking.baselines.sasrec import SasrecIds
from serving.cli.story.measured import HEADLINE, measured_values
from serving.cli.story.screens import NEW, Screen, column_rows, marked
from serving.cli.story.shop import Shop, read_settings
from shelfwise_client import Client, RecommendQuery

IDS_TOWERS = ("sasrec_ids_refit", "sasrec_ids")
"""Folders of the towers without text, in order of preference."""
KNN, IDS = "item_knn", "sasrec_ids"


def known_until(dataset: Dataset, time: int) -> LongArray:
    """Return the end of each user's events before a time, [users] positions in the events."""
    events = dataset.events
    before = np.concatenate([[0], np.cumsum(events.time < time)])
    known: LongArray = events.offsets[:-1] + before[events.offsets[1:]] - before[events.offsets[:-1]]
    return known


def one_query(dataset: Dataset, user: str, end: LongArray, time: int) -> Queries:
    """Return the query for one user's list at a time."""
    row = dataset.user_ids.index(user)
    none = np.zeros(0, dtype=np.int32)
    return Queries(
        np.array([row], dtype=np.int32),
        end[[row]],
        np.array([time], dtype=np.int64),
        np.zeros(2, dtype=np.int64),
        none,
        none,
    )


def id_systems(work: Path, dataset: Dataset, end: LongArray, now: int) -> list[Baseline]:
    """Return the systems without text, fitted on the events before a time."""
    systems: list[Baseline] = [ItemKnn(kind_weights=dataset.kind_weights)]
    folder = next((work / name for name in IDS_TOWERS if (work / name).is_dir()), None)
    if folder is not None:
        towers = Towers.load(folder)
        systems.append(SasrecIds(lambda _: towers, dataset.kind_weights))
    for system in systems:
        system.fit(dataset.events, end, now, len(dataset.catalogue))
    return systems


def _measured(metrics: Mapping[str, Any], name: str) -> str:
    value = measured_values(metrics).get(name, {}).get(HEADLINE)
    return "" if value is None else f" ({HEADLINE} {value:.4f})"


def _short_training(work: Path) -> str:
    """Return a note if the towers without text were best in the last allowed epoch; else empty."""
    file = work / IDS / "epochs.json"
    allowed = read_settings(work / "artifacts")["user_encoder"]["epochs"]
    if not file.is_file() or json.loads(file.read_text()) < allowed:
        return ""
    return (
        f"Ids alone were still improving when training ended after {allowed} epochs, so this favours texts; "
        "benchmarks/results.md has both trained to their end."
    )


def _unsold(metrics: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return a sentence with the recall of items without events, by system; empty where there are none."""
    part = metrics["cold_catalogue"][metrics["protocol"]["measured"]].get("no_event")
    if not part or not part["queries"]:
        return ""
    found = ", ".join(
        f"{n} {part['systems'][n]['full'][HEADLINE]:.4f}" for n in names if n in part["systems"]
    )
    return (
        f"Of the {part['items']} items that nobody had bought before the test and that were then bought, "
        f"{HEADLINE} in the whole catalogue: {found}."
    )


def show_without_text(
    client: Client,
    shop: Shop,
    work: Path,
    user: str,
    k: int,
    metrics: Mapping[str, Any],
    added: str,
    screen: Screen,
) -> None:
    """Show the served list beside those of systems without text, with their metrics.

    Args:
        client: of the server.
        shop: items and histories of the served bundle.
        work: the run's folder, with the dataset and the towers without text.
        user: the user.
        k: length of the lists.
        metrics: of the run's evaluation.
        added: id of an item added before; empty for none.
        screen: output.
    """
    dataset = load_dataset(work / "dataset")
    now = int(shop.now.timestamp())
    end = known_until(dataset, now)
    served = client.recommend(RecommendQuery(user_id=user, page_size=k, request_time=shop.now)).items
    history = set(shop.bought[user])
    names = [f"shelfwise{_measured(metrics, 'shelfwise')}"]
    columns = [[marked(item.item_id, item.title, history) for item in served]]
    systems = id_systems(work, dataset, end, now)
    for system in systems:
        exclude = bool(metrics["protocol"]["exclude_seen"])
        rows, _ = system.recommend(dataset.events, one_query(dataset, user, end, now), k, exclude)
        ids = [dataset.catalogue.ids[row] for row in rows[0] if row >= 0]
        names.append(f"{system.name}{_measured(metrics, system.name)}")
        columns.append([marked(item, shop.title(item), history) for item in ids])
    screen.table(("#", *names), column_rows(columns), f"shopper {user} ({NEW} new to them)")
    screen.say(
        f"Switched off in {' and '.join(system.name for system in systems)}: every text. There an item is",
        "its id, known by who bought it with what and when.",
    )
    values = measured_values(metrics)
    if IDS in values and "user_tower" in values:
        with_text, alone = (values[name][HEADLINE] or 0.0 for name in ("user_tower", IDS))
        screen.say(
            f"The user tower by itself, trained the same way: {HEADLINE} {with_text:.4f} with texts,",
            f"{alone:.4f} on ids alone.",
            _short_training(work),
        )
    if unsold := _unsold(metrics, ("shelfwise", *(system.name for system in systems))):
        screen.say(unsold)
    if added and added not in dataset.catalogue.ids:
        screen.say(
            f"The product {added!r} of a moment ago has no purchase and was in no training, so these systems",
            "cannot place it at all.",
        )
