"""`shelfwise demo`: start a server on a finished run and show what it answers for real users."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from conf.errors import InputError
from conf.serving import DemoConfig
from features import schema
from ranking.bundle import HISTORIES
from ranking.catalogue_file import CATALOG
from ranking.store import VERSIONS, current_version
from serving.client import Client
from serving.queries import RecommendQuery

_OPEN = ("reflection=true", "admin=true")
"""What a demonstration on one's own machine may do."""
_LISTENING = re.compile(r"listening on (\S+:\d+)")
START_SECONDS = 120.0


@dataclass(frozen=True)
class _Shop:
    histories: pl.DataFrame
    texts: dict[str, str]
    now: datetime


def _load(artifacts: Path) -> _Shop:
    catalogue = pl.read_parquet(artifacts / VERSIONS / current_version(artifacts) / CATALOG)
    histories = pl.read_parquet(artifacts / HISTORIES)
    if histories.is_empty():
        raise InputError(f"{artifacts / HISTORIES}: no events, so there are no users to show")
    last = histories.select(pl.col(schema.TIMESTAMP).max()).item()
    texts = dict(catalogue.select(schema.ITEM_ID, schema.TEXT).iter_rows())
    return _Shop(histories, texts, datetime.fromtimestamp(last + 1, UTC))


def _pick_users(shop: _Shop, count: int) -> list[str]:
    """Choose users around the median history length, the same ones every time."""
    sizes = shop.histories.group_by(schema.USER_ID).len().sort("len", schema.USER_ID)
    middle = max(sizes.height // 2 - count // 2, 0)
    users: list[str] = sizes[middle : middle + count][schema.USER_ID].to_list()
    return users


@contextmanager
def _server(artifacts: Path, console: Console) -> Iterator[str]:
    """Run `shelfwise serve` on a free port as a process of its own; yields its address, then stops it."""
    command = [sys.executable, "-m", "shelfwise", "serve", f"artifacts={artifacts}", "port=0", *_OPEN]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    address = None
    try:
        for line in process.stdout:
            console.print(f"[dim]server: {escape(line.rstrip())}[/dim]")
            found = _LISTENING.search(line)
            if found:
                address = found.group(1)
                break
        timer.cancel()
        if address is None:
            raise InputError(f"the server did not start (exit code {process.wait()})")
        yield address
    finally:
        timer.cancel()
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
    if code != 0:
        raise InputError(f"the server stopped with exit code {code}")
    console.print("[dim]server: stopped[/dim]")


def _show_user(client: Client, shop: _Shop, user: str, k: int, console: Console) -> None:
    query = RecommendQuery(user_id=user, page_size=k, explain=True, request_time=shop.now)
    result = client.recommend(query)
    if not result.items:
        raise InputError(f"the server returned no items for user {user}")
    past = shop.histories.filter(pl.col(schema.USER_ID) == user).tail(k)[schema.ITEM_ID].to_list()[::-1]
    table = Table(
        title=f"user {user}: recently bought, and what shelfwise recommends",
        title_justify="left",
        expand=True,
    )
    table.add_column("bought, newest first", ratio=3, overflow="ellipsis", no_wrap=True)
    table.add_column("#", justify="right")
    table.add_column("recommended", ratio=4, overflow="ellipsis", no_wrap=True)
    table.add_column("score", justify="right")
    table.add_column("why", ratio=4, overflow="ellipsis", no_wrap=True)
    for rank, item in enumerate(result.items):
        bought = shop.texts.get(past[rank], past[rank]) if rank < len(past) else ""
        why = item.reasons[0].text if item.reasons else item.source
        cells = (bought, str(rank + 1), shop.texts.get(item.item_id, item.item_id), f"{item.score:.2f}", why)
        table.add_row(*(escape(c) for c in cells))
    console.print(table)


def demo(config: DemoConfig, console: Console) -> None:
    """Serve a finished run, print lists for a few users beside what they bought, stop the server.

    Raises:
        InputError: no published bundle, no histories, or a server that does not come up.

    """
    work = Path(config.work_dir)
    artifacts = work / "artifacts"
    shop = _load(artifacts)
    users = config.users or _pick_users(shop, 3)
    with _server(artifacts, console) as address, Client(address, timeout=30.0) as client:
        for user in users:
            _show_user(client, shop, user, config.k, console)
    report = work / "evaluation" / "report.html"
    console.print("\nWhat next:", style="bold")
    moment = f"{shop.now:%Y-%m-%dT%H:%M:%S}"
    for what, command in (
        ("read the evaluation", f"open {report}"),
        ("serve it", f"shelfwise serve artifacts={artifacts}"),
        ("ask it", f"shelfwise recommend user={users[0]} request_time={moment}"),
        ("your own data", "shelfwise run data.items=items.csv data.events=events.csv work_dir=work/shop"),
        ("measure again", f"shelfwise evaluate data=completejourney experiment=demo work_dir={work}"),
    ):
        console.print(f"  {what:<22}{command}", markup=False, highlight=False, soft_wrap=True)
