"""One experiment through a real server: arms, tokens, recorded events, state, report.

Invented shoppers ask a server with an experiments file for lists over gRPC, and click by a position-based
model in which lists of the arm `varied` are clicked more by a known amount. What they do is recorded with
the lists' tokens, at times spread over two weeks. `experiment report` then reads the server's state and has
to find the amount.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console

from conf.experiment_report import ExperimentReportConfig
from lifecycle.experiments.command import FIGURES_FILE, experiment_report
from shelfwise_client import Client, Event, RecommendQuery

LIFT: Final = 0.25
"""By which lists of the arm are clicked more."""
DAYS: Final = 14
PAGE: Final = 10
_EXPERIMENTS: Final = """
variety:
  arms:
    control: {share: 0.4}
    varied: {share: 0.4, lists: {diversity: 0.3}}
"""


def through_server(artifacts: str, shoppers: int, seed: int) -> list[dict[str, Any]]:
    """Return what the report says, beside the truth and what the server did.

    Args:
        artifacts: a store with a bundle; it is not changed.
        shoppers: invented users, of whom a fifth is in no arm.
        seed: of what they do.
    """
    with tempfile.TemporaryDirectory(prefix="shelfwise-") as name:
        folder = Path(name)
        file, state = folder / "experiments.yaml", folder / "state.sqlite"
        file.write_text(_EXPERIMENTS)
        with _server(artifacts, file, state) as client:
            counts = _shop(client, shoppers, seed)
        config = ExperimentReportConfig(
            artifacts=artifacts, state=str(state), experiments=str(file), name="variety", output=str(folder)
        )
        experiment_report(config, Console(width=120))
        report = json.loads((folder / FIGURES_FILE).read_text())
    row = report["effects"]["varied"]["ctr"]
    return [
        {
            "shoppers": shoppers, "in_no_arm": counts["none"], "lists": counts["lists"],
            "units": str(report["split"]["units"]), "as_answered": f"{counts['control']}, {counts['varied']}",
            "true_lift": LIFT, "lift": row["lift"], "interval": [row["lift_low"], row["lift_high"]],
            "verdict": report["verdict"]["verdict"],
        }
    ]  # fmt: skip


@contextmanager
def _server(artifacts: str, experiments: Path, state: Path) -> Iterator[Client]:
    command = [
        sys.executable, "-m", "shelfwise", "serve", f"artifacts={artifacts}", f"experiments={experiments}",
        f"state={state}", "port=0",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stdout is not None
    try:
        found = next(
            (m for line in process.stdout if (m := re.search(r"listening on (\S+:\d+)", line))), None
        )
        if found is None:
            raise RuntimeError("the server did not start; its message is above")
        with Client(found.group(1), timeout=60.0) as client:
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _shop(client: Client, shoppers: int, seed: int) -> dict[str, int]:
    """Let every shopper visit one to four times; return the number of lists, and of shoppers by arm."""
    random = np.random.default_rng(seed)
    begin = datetime.now(UTC) - timedelta(days=DAYS + 1)
    examined = 1 / np.log2(np.arange(PAGE) + 2)
    counts = {"lists": 0, "none": 0, "control": 0, "varied": 0}
    for number in range(shoppers):
        shopper, appeal = f"invented-{number}", random.beta(3.0, 12.0)
        arm = ""
        for at in np.sort(random.random(random.integers(1, 5))):
            page = client.recommend(RecommendQuery(user_id=shopper, page_size=PAGE, surface="home"))
            arm = next((one.arm for one in page.experiments if one.experiment == "variety"), "none")
            clicked = random.random(len(page.items)) < appeal * examined * (1 + LIFT * (arm == "varied"))
            when = begin + timedelta(days=float(at) * DAYS)
            events = [
                Event(
                    shopper, item.item_id, kind, time=when + timedelta(seconds=place + 60 * late),
                    attribution_token=page.attribution_token, list_position=item.list_position,
                )
                for kind, late, chosen in (("impression", 0, np.ones(len(page.items))), ("view", 1, clicked))
                for place, item in enumerate(page.items)
                if chosen[place]
            ]  # fmt: skip
            client.record_events(events)
            counts["lists"] += 1
        counts[arm] += 1
    return counts
