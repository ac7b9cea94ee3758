"""Amazon Beauty, prepared for the rows that need it by the program's own command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import polars as pl
from rich.console import Console

from benchmarks.bench.rows.context import Context
from conf.composition.compose import compose_command
from features.prepare import prepare

FILES: Final = ("items.parquet", "events.parquet")


def beauty_overrides(context: Context, folder: Path) -> list[str]:
    """Return the overrides that read it; a trial reads a share of its users and their items.

    Raises:
        InputError: it is not at hand.

    """
    paths = [context.beauty_file(name) for name in FILES]
    if context.scale < 1:
        paths = cut(paths, folder, context.scale)
    return [
        "data=amazon_reviews", f"data.items={paths[0]}", f"data.events={paths[1]}", "data.text_fields=[title]"
    ]  # fmt: skip


def cut(paths: Sequence[Path], folder: Path, share: float) -> list[Path]:
    """Write items and events of a share of the users, at least 100, and return the files."""
    items, events = (pl.read_parquet(path) for path in paths)
    users = events["user_id"].unique(maintain_order=True)
    few = events.filter(pl.col("user_id").is_in(users[: max(int(len(users) * share), 100)].to_list()))
    made = [folder / name for name in FILES]
    items.filter(pl.col("item_id").is_in(few["item_id"].unique().to_list())).write_parquet(made[0])
    few.write_parquet(made[1])
    return made


def prepare_dataset(overrides: Sequence[str]) -> None:
    """Write `dataset/` into the work directory of the overrides.

    Raises:
        InputError: the data cannot be read.

    """
    prepare(compose_command("prepare", list(overrides)), Console(quiet=True))
