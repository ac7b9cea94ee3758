"""From two tables to a trained and evaluated model, in a minute or two.

    python examples/own_data.py work/own

writes `items.csv` and `events.csv` of a made-up shop into the folder, trains on them for seconds
(`experiment=smoke`), and prints how the result compares with its baselines. Put tables of your own in place
of the two files, and drop `experiment=smoke`, for a model that means something.
"""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

THINGS = {
    "Kitchen": ("mug", "teapot", "bowl", "pan", "spoon", "jar"),
    "Garden": ("spade", "planter", "bird feeder", "watering can", "rake", "lantern"),
    "Office": ("notebook", "pen", "stapler", "lamp", "folder", "calendar"),
}
COLOURS = ("red", "blue", "green", "white", "striped", "spotted")
SHOPPERS = 150
START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 120


def items() -> list[dict[str, str]]:
    """Return the catalogue: every product in every colour, 108 items."""
    rows = [
        (kind, thing, colour) for kind, things in THINGS.items() for thing in things for colour in COLOURS
    ]
    return [
        {
            "item_id": f"p{n}",
            "title": f"{colour.capitalize()} {thing}",
            "category": kind,
            "price": f"{4 + n % 30}.90",
        }
        for n, (kind, thing, colour) in enumerate(rows)
    ]


def events(catalogue: list[dict[str, str]], seed: int = 0) -> list[dict[str, str]]:
    """Return the events: each shopper prefers a category, views items, and buys about half of them."""
    draw = random.Random(seed)  # noqa: S311 - not for secrets
    rows = []
    for shopper in range(SHOPPERS):
        favourite = list(THINGS)[shopper % len(THINGS)]
        preferred = [item["item_id"] for item in catalogue if item["category"] == favourite]
        every = [item["item_id"] for item in catalogue]
        time = START + timedelta(days=draw.random() * DAYS / 3)
        for _ in range(draw.randint(8, 16)):
            item = draw.choice(preferred if draw.random() < 0.9 else every)
            kinds = ("view", "purchase") if draw.random() < 0.5 else ("view",)
            for minute, kind in enumerate(kinds):
                when = (time + timedelta(minutes=minute)).isoformat(timespec="seconds")
                rows.append({"user_id": f"u{shopper}", "item_id": item, "event": kind, "timestamp": when})
            time += timedelta(days=draw.random() * DAYS / 15)
    return rows


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows as a CSV file with a header."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def main() -> None:
    """Write the tables, run the pipeline, print recall@10 of every system."""
    if len(sys.argv) < 2:
        sys.exit("usage: python examples/own_data.py FOLDER [key=value ...]")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    catalogue = items()
    write(folder / "items.csv", catalogue)
    write(folder / "events.csv", events(catalogue))
    command = [
        sys.executable, "-m", "shelfwise", "run", "data=files", f"data.items={folder}/items.csv",
        f"data.events={folder}/events.csv", "data.text_fields=[title,category]", "split=global_time",
        "experiment=smoke", f"work_dir={folder}", *sys.argv[2:],
    ]  # fmt: skip
    subprocess.run(command, check=True)
    test = json.loads((folder / "evaluation" / "metrics.json").read_text())["test"]
    for system, measured in test.items():
        print(f"{system:<20} recall@10 {measured['recall@10']:.4f}")


if __name__ == "__main__":
    main()
