"""Exposure of new items in a shop, measured over a real socket.

    python -m benchmarks.new_items --run work/shop experiment=quick
    python -m benchmarks.new_items --run work/shop --code ../earlier --output earlier.json experiment=quick
    python -m benchmarks.new_items --storefront --run work/completejourney
    python -m benchmarks.new_items --storefront --run work/completejourney --before work/before.json

The first two replay the last weeks of a finished run's dataset: a bundle is trained on the events before, a
server is started, items are upserted when they first sell, events are recorded in order, and lists are
requested at the first event of sampled users' days and compared with the items chosen on that day.
Arguments without dashes are settings of the training.

`--storefront` runs trials of a storefront with ten new groceries, searches, intents and changes of items, on
a copy of a finished run's artifacts (The Complete Journey; other catalogues skip trials without attributes).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import polars as pl
from rich.console import Console
from rich.progress import Progress

from benchmarks.new_items.cut import NEW_ITEMS, REPLAYED, Cut, make_cut
from benchmarks.new_items.replay import Played, Server, baskets_of, read_interactions, replay
from benchmarks.new_items.report import HEADER, beside, facts, print_report, report, rows
from benchmarks.runs import merge_overrides, run_once
from benchmarks.serving.processes import running
from benchmarks.storefront.patient import PatientClient
from benchmarks.storefront.shop import copy_of, opened
from benchmarks.storefront.table import cells, header, markdown, print_rows, read_result, trials, write_result
from conf.errors import InputError
from features.data import schema
from features.data.pipeline_step import write_atomically
from ranking.pipeline.publish import ARTIFACTS

CONSOLE: Final = Console()
AS_SERVED: Final = "as served"


@contextmanager
def served(artifacts: Path, log: Path, code: Path | None, settings: Sequence[str]) -> Iterator[str]:
    """Start a server on a store; yield its address.

    Args:
        artifacts: the store; the server's state file stays in it.
        log: gets the server's standard error.
        code: another checkout whose server is started; None is this one.
        settings: further settings of `shelfwise serve`.
    """
    command = [
        sys.executable, "-m", "shelfwise", "serve", f"artifacts={artifacts.resolve()}", "port=0",
        "admin=true", *settings,
    ]  # fmt: skip
    with running(command, log, code) as server:
        yield server.address


def storefront(options: argparse.Namespace) -> None:
    """Run all trials on a copy of the run's artifacts, or on a running server, and print the table."""
    store, folder = options.run / ARTIFACTS, options.run / "benchmarks" / "storefront"
    if not store.is_dir():
        raise InputError(
            f"{store}: nothing is published there; run `shelfwise run` or `shelfwise publish` first"
        )
    before = None if options.before is None else read_result(options.before)
    folder.mkdir(parents=True, exist_ok=True)
    if options.address:
        with opened(options.address, store) as shop:
            result = trials(shop, CONSOLE)
    else:
        copy, log = copy_of(store, folder / ARTIFACTS), folder / "server.log"
        with served(copy, log, options.code, options.set) as address, opened(address, copy) as shop:
            result = trials(shop, CONSOLE)
    output = options.output or folder / "storefront.json"
    write_result(output, result)
    names = header(before is not None)
    write_atomically(output.with_suffix(".md"), markdown(cells(result, before), names) + "\n")
    print_rows(CONSOLE, result, before)


def arms_of(options: argparse.Namespace) -> dict[str, float | None]:
    """Return arm -> novelty of its lists, the served one first; other checkouts may not support novelty."""
    arms: dict[str, float | None] = {AS_SERVED: None}
    if options.code is None:
        arms |= {f"novelty {value:g}": value for value in sorted({*options.novelty, 0.0}, reverse=True)}
    return arms


def play(options: argparse.Namespace, cut: Cut, folder: Path, work: Path) -> Played:
    """Start a server on a bundle, with a state of its own, and replay everything through it."""
    interactions, new_items = read_interactions(str(folder / REPLAYED)), pl.read_parquet(folder / NEW_ITEMS)
    kinds = [kind for kind, weight in cut.event_weights.items() if weight > 0]
    baskets = baskets_of(interactions, kinds, options.lists)
    for leftover in work.glob("replay.sqlite*"):
        leftover.unlink()
    settings = [f"state={(work / 'replay.sqlite').resolve()}", *options.set]
    with (
        served(work / ARTIFACTS, work / "server.log", options.code, settings) as address,
        PatientClient(address) as client,
        Progress(console=CONSOLE) as progress,
    ):
        shop = Server(client, new_items)
        task = progress.add_task("replaying", total=len(baskets))
        played = replay(
            interactions,
            baskets,
            new_items[schema.ITEM_ID].to_list(),
            shop,
            arms_of(options),
            lambda done, _: progress.update(task, completed=done),
        )
    rejects = {what: f"{count}, first: {shop.messages[what]}" for what, count in shop.rejects.items()}
    return dataclasses.replace(played, rejects=rejects)


def replayed(options: argparse.Namespace) -> None:
    """Cut, train, replay and report."""
    folder = options.run / "benchmarks" / f"replay-{options.weeks:g}-weeks"
    before = None if options.before is None else read_result(options.before, "arms")
    cut = make_cut(options.run, folder, options.weeks)
    CONSOLE.print(
        f"{cut.replayed_events:,} events after {cut.trained_events:,}; {cut.new_items:,} items first sell "
        "among them",
        highlight=False,
    )
    work = folder / ("present" if options.code is None else options.code.resolve().name)
    run_once(merge_overrides(cut.overrides(folder.resolve()), options.overrides), work, CONSOLE, options.code)
    result: dict[str, Any] = {
        "weeks": options.weeks,
        "overrides": options.overrides,
        **report(play(options, cut, folder, work)),
    }
    output = options.output or work / "replay.json"
    write_result(output, result)
    result = result if before is None else beside(result, before)
    lines = [markdown(rows(result), HEADER), "", *(f"- {fact}" for fact in facts(result)), ""]
    write_atomically(output.with_suffix(".md"), "\n".join(lines))
    print_report(CONSOLE, result)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.new_items",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", help="settings of the training before a replay, key=value")
    parser.add_argument("--run", type=Path, required=True, help="work directory of a finished run")
    parser.add_argument("--weeks", type=float, default=4.0, help="length of the replay")
    parser.add_argument("--lists", type=int, default=3000, help="most lists options for; 0 is one per basket")
    parser.add_argument(
        "--novelty", type=float, action="append", default=[], help="one more arm with this; repeat it"
    )
    parser.add_argument("--code", type=Path, help="another checkout, whose training and server are measured")
    parser.add_argument("--set", action="append", default=[], help="a setting of the server; repeat it")
    parser.add_argument("--output", type=Path, help="of the .json and .md files")
    parser.add_argument("--storefront", action="store_true", help="try what a shop would try")
    parser.add_argument(
        "--address", default="", help="with --storefront: a running server of the run's bundle"
    )
    parser.add_argument("--before", type=Path, help="another version's result, to be shown beside")
    return parser.parse_intermixed_args()


def main() -> int:
    """Run the command line."""
    options = _arguments()
    try:
        if options.storefront:
            storefront(options)
        else:
            replayed(options)
    except InputError as error:
        CONSOLE.print(f"[bold red]benchmarks.new_items:[/bold red] {error}", soft_wrap=True)
        return 2
    return 0
