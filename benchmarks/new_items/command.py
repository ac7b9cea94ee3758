"""What becomes of new items in a shop, asked over a real socket.

    python -m benchmarks.new_items --run work/shop experiment=quick
    python -m benchmarks.new_items --run work/shop --code ../earlier --output earlier.json experiment=quick
    python -m benchmarks.new_items --storefront --run work/completejourney
    python -m benchmarks.new_items --storefront --run work/completejourney --before work/before.json

The first two replay the last weeks of a finished run's dataset: a bundle is trained on what was before them,
a server is started, items are upserted when they first sell, events are recorded as they happened, and lists
are asked for at the first event of sampled users' days and compared with what was chosen on that day.
Arguments without dashes are settings of the training.

`--storefront` tries what a shop would try with ten new groceries, searches, intents and changes of items, on
a copy of a finished run's artifacts (The Complete Journey; other catalogues leave out what they cannot say).
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
    """Start a server on a store; give its address.

    Args:
        artifacts: the store; what the server learns is left in its state file.
        log: gets the server's standard error.
        code: another checkout whose server shall be asked; None is this one.
        settings: further settings of `shelfwise serve`.
    """
    command = [
        sys.executable, "-m", "shelfwise", "serve", f"artifacts={artifacts.resolve()}", "port=0",
        "admin=true", *settings,
    ]  # fmt: skip
    with running(command, log, code) as server:
        yield server.address


def storefront(asked: argparse.Namespace) -> None:
    """Try everything on a copy of the run's artifacts, or on a running server, and show the table."""
    store, folder = asked.run / ARTIFACTS, asked.run / "benchmarks" / "storefront"
    if not store.is_dir():
        raise InputError(
            f"{store}: nothing is published there; run `shelfwise run` or `shelfwise publish` first"
        )
    before = None if asked.before is None else read_result(asked.before)
    folder.mkdir(parents=True, exist_ok=True)
    if asked.address:
        with opened(asked.address, store) as shop:
            result = trials(shop, CONSOLE)
    else:
        copy, log = copy_of(store, folder / ARTIFACTS), folder / "server.log"
        with served(copy, log, asked.code, asked.set) as address, opened(address, copy) as shop:
            result = trials(shop, CONSOLE)
    output = asked.output or folder / "storefront.json"
    write_result(output, result)
    names = header(before is not None)
    write_atomically(output.with_suffix(".md"), markdown(cells(result, before), names) + "\n")
    print_rows(CONSOLE, result, before)


def arms_of(asked: argparse.Namespace) -> dict[str, float | None]:
    """Return arm -> novelty of its lists, as served first; other code may not know novelty."""
    arms: dict[str, float | None] = {AS_SERVED: None}
    if asked.code is None:
        arms |= {f"novelty {value:g}": value for value in sorted({*asked.novelty, 0.0}, reverse=True)}
    return arms


def play(asked: argparse.Namespace, cut: Cut, folder: Path, work: Path) -> Played:
    """Start a server on a bundle, with a state of its own, and replay everything through it."""
    interactions, new_items = read_interactions(str(folder / REPLAYED)), pl.read_parquet(folder / NEW_ITEMS)
    kinds = [kind for kind, weight in cut.event_weights.items() if weight > 0]
    baskets = baskets_of(interactions, kinds, asked.lists)
    for leftover in work.glob("replay.sqlite*"):
        leftover.unlink()
    settings = [f"state={(work / 'replay.sqlite').resolve()}", *asked.set]
    with (
        served(work / ARTIFACTS, work / "server.log", asked.code, settings) as address,
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
            arms_of(asked),
            lambda done, _: progress.update(task, completed=done),
        )
    rejects = {what: f"{count}, first: {shop.messages[what]}" for what, count in shop.rejects.items()}
    return dataclasses.replace(played, rejects=rejects)


def replayed(asked: argparse.Namespace) -> None:
    """Cut, train, replay and report."""
    folder = asked.run / "benchmarks" / f"replay-{asked.weeks:g}-weeks"
    before = None if asked.before is None else read_result(asked.before, "arms")
    cut = make_cut(asked.run, folder, asked.weeks)
    CONSOLE.print(
        f"{cut.replayed_events:,} events after {cut.trained_events:,}; {cut.new_items:,} items first sell "
        "among them",
        highlight=False,
    )
    work = folder / ("present" if asked.code is None else asked.code.resolve().name)
    run_once(merge_overrides(cut.overrides(folder.resolve()), asked.overrides), work, CONSOLE, asked.code)
    result: dict[str, Any] = {
        "weeks": asked.weeks,
        "overrides": asked.overrides,
        **report(play(asked, cut, folder, work)),
    }
    output = asked.output or work / "replay.json"
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
    parser.add_argument("--lists", type=int, default=3000, help="most lists asked for; 0 is one per basket")
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
    """Do what the arguments say."""
    asked = _arguments()
    try:
        if asked.storefront:
            storefront(asked)
        else:
            replayed(asked)
    except InputError as error:
        CONSOLE.print(f"[bold red]benchmarks.new_items:[/bold red] {error}", soft_wrap=True)
        return 2
    return 0
