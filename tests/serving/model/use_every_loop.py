"""Makes lists of every kind from a bundle, as a model's process does, and prints the loops that this used.

`python -m tests.serving.model.use_every_loop STORE`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from features.kernels.ahead import used
from ranking.bundle.bundle import load_bundle
from ranking.catalogue.live_catalogue import ItemChange
from ranking.live.recorded_events import RecordedEvent
from ranking.live.updates import LiveItems
from ranking.types import History, Request


def main(store: Path) -> None:
    """Use them."""
    live = LiveItems(load_bundle(store, room=8), 8)
    live.warm_up()
    model = live.current
    items, now = len(model.catalogue), model.data_end + 1
    random = np.random.default_rng(0)

    def history(length: int) -> History:
        rows = random.integers(0, items, length).astype(np.int32)
        return History(rows, np.zeros(length, np.int8), np.arange(now - length, now, dtype=np.int64))

    intent = random.normal(size=model.text_dim).astype(np.float32)
    intent /= np.linalg.norm(intent)
    some = random.random(items) < 0.5
    requests = [Request(history(length), now, k=5) for length in (0, 1, 3, 40)]
    requests += [
        Request(history(3), now, k=5, exclude_seen=True, diversity=0.3, explain=True),
        Request(history(3), now, k=5, allowed=some, exclude=np.array([1], np.int32)),
        Request(history(3), now, k=5, allowed=np.arange(items) < 2),
        Request(history(3), now, k=5, novelty=0.5),
        Request(history(3), now, k=5, intent=intent, query_text="a thing"),
        Request(history(3), now, k=items),
    ]
    for batch in (requests, *([request] for request in requests)):
        model.recommender.recommend(batch)
    model.recommender.search([requests[-2]])
    model.recommender.similar(intent[None], 3, np.zeros(0, np.int32))
    item = model.catalogue.base.ids[0]
    live.apply(live.plan([ItemChange("new", {"title": "a new thing"})]))
    live.count_events([RecordedEvent(item, model.kinds[0], now * 1_000_000, ())])
    live.current.recommender.recommend(requests[:4])
    json.dump(used(), sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
