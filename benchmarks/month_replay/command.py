"""A month of Online Retail replayed through running servers, with a retraining every night.

    python -m benchmarks.month_replay --output work/month [settings of the training]
    python -m benchmarks.month_replay --output work/month --render docs/month-replay.svg

The model learns from everything before the month. Every morning the list of each shopper of the day is
requested, before any purchase of the day is recorded; then new products are upserted and the purchases are
recorded, those of listed items attributed to the list. Every night `shelfwise retrain` runs, on the shop's
log as of that day; four nights get a bad delivery (`benchmarks.bad_days`). Nothing is done by hand.

Three servers answer at every moment: one that takes what is retrained, one that keeps the first model and
counts the same events live, and one that keeps the first model and gets no events. A day is finished when it
is in `days.json`; the same command goes on after the last finished one.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks.bad_days import BAD_DAYS
from benchmarks.bad_days.shop import LOG, Shop
from benchmarks.month_replay.night import FEED, STORE, deliver, ended, last_journal, retrained
from benchmarks.month_replay.report import drawing, print_summary, summary, table
from benchmarks.month_replay.serving import lists_of, record, served, upsert, wait_for
from conf.errors import InputError
from features.data import schema
from features.data.pipeline_step import write_atomically
from shelfwise_client import Client

CONSOLE: Final = Console()
FIRST, LAST = date(2011, 11, 1), date(2011, 11, 30)
PLANTED: Final = {
    date(2011, 11, 4): "duplicated_feed",
    date(2011, 11, 10): "half_the_catalogue",
    date(2011, 11, 17): "empty_texts",
    date(2011, 11, 24): "prices_x100",
}
"""Nights with a bad delivery, and which."""
SETTINGS: Final = ("experiment=demo", "retrain.refit=everything", "retrain.cold_every=100")
"""The models know everything up to the night; a month of warm starts in a row."""
RETRAINED, LIVE, FROZEN = "retrained", "live", "frozen"
ABOUT, DAYS = "about.json", "days.json"
HISTORIES: Final = "histories.parquet"


def read_json(path: Path, default: Any) -> Any:  # noqa: ANN401 - JSON
    """Return the content of a file, or a default where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else default


def write_json(path: Path, content: object) -> None:
    """Write a file atomically."""
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


class Replay:
    """A replay in a folder, which holds everything that is needed to go on with it."""

    def __init__(self, folder: Path, overrides: list[str], last: date) -> None:
        """Open or begin it.

        Raises:
            InputError: it was begun with other settings.
        """
        folder.mkdir(parents=True, exist_ok=True)
        about = read_json(folder / ABOUT, None)
        if about is not None and about["overrides"] != overrides:
            raise InputError(
                f"{folder}: begun with {about['overrides']}; give the same settings, or another --output"
            )
        self.folder, self.overrides = folder.resolve(), overrides
        self.shop = Shop.read(LOG, None if about is None else about["shift_days"])
        write_json(folder / ABOUT, {"overrides": overrides, "shift_days": self.shop.shift_days})
        self.days = self.shop.days(FIRST, last)
        self.log = self.folder / "retrain.log"

    @property
    def records(self) -> list[dict[str, Any]]:
        """The finished days."""
        found: list[dict[str, Any]] = read_json(self.folder / DAYS, [])
        return found

    def first_model(self) -> None:
        """Train and publish the first model on everything before the month; two copies of it stay."""
        eve = max(day for day in self.shop.events[schema.TIMESTAMP].dt.date().unique() if day < self.days[0])
        if not (self.folder / STORE / "CURRENT").is_file():
            CONSOLE.print(f"the first model, on everything up to {self.shop.original(eve)}")
            deliver(self.folder, self.shop.feed(eve))
            night = retrained(self.folder, self.overrides, self.log)
            if night.exit_code != 0:
                raise InputError(f"the first model was not published: {night.reason}")
            write_json(self.folder / "first.json", asdict(night))
        for arm in (LIVE, FROZEN):
            target = self.folder / f"store-{arm}"
            if not (target / "CURRENT").is_file():
                shutil.copytree(self.folder / STORE, target, ignore=shutil.ignore_patterns("state.sqlite*"))
        first = self.folder / HISTORIES
        if not first.is_file():
            shutil.copyfile(self.folder / f"store-{FROZEN}" / HISTORIES, first)
        # A server that starts again would import the newer histories beside the same events as recorded.
        shutil.copyfile(first, self.folder / STORE / HISTORIES)

    def play(self) -> None:
        """Replay the days that are left."""
        self.first_model()
        with ExitStack() as stack:
            stores = {RETRAINED: STORE, LIVE: f"store-{LIVE}", FROZEN: f"store-{FROZEN}"}
            clients = {
                arm: stack.enter_context(served(self.folder / store, self.folder / f"server-{arm}.log"))
                for arm, store in stores.items()
            }
            for day in self.days[len(self.records) :]:
                self.play_day(day, clients)

    def play_day(self, day: date, clients: Mapping[str, Client]) -> None:
        """Replay a day and its night."""
        original = self.shop.original(day)
        baskets = self.shop.baskets(day)
        path = self.folder / "lists" / f"{original}.json"
        path.parent.mkdir(exist_ok=True)
        for arm in (RETRAINED, LIVE):
            upsert(clients[arm], self.shop.new_items(day))
        found = read_json(path, None)
        if found is None:  # before a purchase of the day is recorded, also in a replay that was interrupted
            found = {
                "baskets": [asdict(basket) for basket in baskets],
                "lists": {arm: lists_of(client, baskets) for arm, client in clients.items()},
                "run_before": last_journal(self.folder).get("run"),
            }
            write_json(path, found)
        users = [basket.user for basket in baskets]
        for arm in (RETRAINED, LIVE):
            record(clients[arm], self.shop.of_day(day), dict(zip(users, found["lists"][arm], strict=True)))
        before = clients[RETRAINED].status().model_version
        night = self.night(day, found["run_before"])
        seconds = wait_for(clients[RETRAINED], night["served"])
        entry = {
            "day": f"{original}", "shoppers": len(baskets), "purchases": self.shop.of_day(day).height,
            "new_items": self.shop.new_items(day).height, "planted": PLANTED.get(original), "night": night,
            "served_before": before, "taken_after_seconds": round(seconds, 1),
        }  # fmt: skip
        write_json(self.folder / DAYS, [*self.records, entry])
        CONSOLE.print(
            f"{original}: {len(baskets)} shoppers; exit code {night['exit_code']} after "
            f"{night['cpu_seconds']} s of CPU, {night['start'] or 'untrained'}; {night['reason'][:200]}",
            soft_wrap=True, markup=False, highlight=False,
        )  # fmt: skip

    def night(self, day: date, run_before: str | None) -> dict[str, Any]:
        """Run the retraining of a night; one that had ended when the replay was killed is not repeated."""
        original = self.shop.original(day)
        feed, delivered = self.shop.feed(day), self.folder / FEED / f"{original}"
        if not delivered.is_file():  # rewritten files would begin a run that was interrupted anew
            planted = PLANTED.get(original)
            deliver(self.folder, feed if planted is None else BAD_DAYS[planted].change(feed))
            delivered.touch()
        journal = last_journal(self.folder)
        if journal.get("run") != run_before and journal.get("outcome") is not None:
            return asdict(ended(self.folder, journal))
        return asdict(retrained(self.folder, self.overrides, self.log))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.month_replay", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("overrides", nargs="*", default=[], help="further settings of `retrain`, key=value")
    parser.add_argument("--output", type=Path, required=True, help="folder of the replay")
    parser.add_argument(
        "--last", type=date.fromisoformat, default=LAST, help="last day, 2011-11-30 by default"
    )
    parser.add_argument(
        "--render", type=Path, help="draw the finished days into this file, and replay nothing"
    )
    return parser.parse_intermixed_args()


def main() -> int:
    """Run the command line."""
    options = _arguments()
    try:
        if options.render is None:
            Replay(options.output, [*SETTINGS, *options.overrides], options.last).play()
        found = summary(options.output)
        write_json(options.output / "month.json", found)
        print_summary(CONSOLE, found)
        (options.output / "month.md").write_text(table(found))
        target = options.render or options.output / "month.svg"
        target.write_text(drawing(found))
    except InputError as error:
        CONSOLE.print(f"[bold red]benchmarks.month_replay:[/bold red] {error}", soft_wrap=True)
        return 2
    return 0
