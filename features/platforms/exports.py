"""The two files that a shop exports: its products, and the lines of its orders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import polars as pl

from conf.errors import InputError
from conf.schema import DataConfig
from features.files.readers import RawTable, readable, scan_table
from features.ingest.raw_tables import text_options
from features.platforms.parts import LINE_ID, LINE_NAME

ReadProducts: TypeAlias = Callable[[RawTable, dict[str, int]], pl.DataFrame]
"""Reads the catalogue from a products export; counts dropped rows by reason."""
ReadLines: TypeAlias = Callable[[RawTable, pl.DataFrame, DataConfig, dict[str, int]], pl.LazyFrame]
"""Reads events from an orders export, given the catalogue."""


@dataclass(frozen=True)
class Exports:
    """The content of both files."""

    products: RawTable
    """The raw products export."""
    items: pl.DataFrame
    """The catalogue, with the join keys of order lines."""
    orders: RawTable | None
    """The raw orders export; None if none is named."""
    events: RawTable | None
    """Its lines as events."""
    dropped: dict[str, int]
    """Rows that were dropped on purpose, by reason."""

    def catalogue(self, *helpers: str) -> RawTable:
        """Return the items without the join keys."""
        frame = self.items.drop(LINE_NAME, *helpers).lazy()
        return replace(self.products, frame=frame, untyped=False)


def read_exports(
    config: DataConfig, usual: tuple[str, str], read_products: ReadProducts, read_lines: ReadLines
) -> Exports:
    """Read a shop's products and, if named, the lines of its orders.

    Args:
        config: the settings.
        usual: usual names of the two files, for the message.
        read_products: reads the catalogue.
        read_lines: reads the events.

    Raises:
        InputError: missing files, or files of another format.
    """
    if config.items is None:
        items, events = usual
        raise InputError(f"data={config.adapter.value}: set data.items={items} and data.events={events}")
    products = scan_table(config.items, "data.items", text_options(config, "items"))
    dropped: dict[str, int] = {}
    with readable(products.name):
        catalogue = read_products(products, dropped)
    if config.events is None:
        return Exports(products, catalogue, None, None, dropped)
    orders = scan_table(config.events, "data.events", text_options(config, "events"))
    with readable(orders.name):
        lines = read_lines(orders, catalogue, config, dropped).drop(LINE_ID, LINE_NAME)
    return Exports(products, catalogue, orders, replace(orders, frame=lines), dropped)
