"""`prepare`: raw files in, a validated dataset directory out, or nothing at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from conf.schema import DataConfig, Engine, PipelineConfig
from features.adapters import Sources, read_sources, shuffled
from features.data import schema
from features.data.content_hash import content_hash
from features.data.event_arrays import FOLDER, write_event_arrays
from features.data.pipeline_step import plain
from features.files.conversions import discarding
from features.files.copies import copied, urls_of
from features.files.folder_replacement import folder_replacement
from features.files.modes import make_private
from features.ingest import rejects as why
from features.ingest.engines.interface import EventEngine
from features.ingest.engines.polars_engine import PolarsEngine
from features.ingest.events import EventTable, ingest_events, write_no_events
from features.ingest.items import ItemTable, ingest_items
from features.ingest.privacy import make_pseudonyms
from features.ingest.required import require_contract
from features.ingest.samples import ColumnSample, sample_table
from features.spark.session import session

FORMAT_VERSION = 1
"""Version of the dataset directory; readers refuse other versions."""
DATASET_FOLDER = "dataset"
_KINDS = {pl.String: "string", pl.Boolean: "bool", pl.Int64: "number", pl.Float64: "number"}


@contextmanager
def _engine(config: PipelineConfig, sources: Sources, staging: Path) -> Iterator[EventEngine]:
    """Yield what filters, counts and sorts the events, with a folder for intermediate files."""
    staging.mkdir()
    if config.engine is Engine.spark:
        with session(config.spark) as spark:
            from features.spark.engine import SparkEngine

            yield SparkEngine(spark, config, sources, staging.absolute())
    else:
        yield PolarsEngine(staging)
    shutil.rmtree(staging)


@contextmanager
def _tables(config: PipelineConfig, folder: Path) -> Iterator[None]:
    """Have Spark copy the tables that have URLs to a folder, for as long as the block runs."""
    data = config.data
    urls = [url for source in (data.items, data.events, data.recorded) for url in urls_of(source)]
    if config.engine is not Engine.spark or not urls:
        yield
        return
    folder.mkdir()
    with session(config.spark) as spark:
        from features.spark.tables import copy_tables

        with copied(copy_tables(spark, data, folder.absolute())):
            yield
    shutil.rmtree(folder)


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _attributes(frame: pl.DataFrame) -> dict[str, str]:
    """Name -> string, number, bool or list of every column that filters and ranking may use."""
    names = (c for c in frame.columns if c not in (schema.ITEM_ID, schema.TEXT))
    return {c: _KINDS.get(type(frame.schema[c]), "list") for c in names}


def _describe(
    config: PipelineConfig, sources: Sources, items: ItemTable, events: EventTable, rejects: pl.DataFrame
) -> dict[str, Any]:
    """Return the content of dataset.json, except for the hash."""
    repeats = why.count_reasons(items.rejects)
    first_last = events.time_range
    return {
        "format_version": FORMAT_VERSION,
        "items": items.frame.height,
        "events": events.events,
        "users": events.users,
        "kinds": list(events.kinds),
        "event_weights": events.kinds,
        "kind_counts": events.kind_counts,
        "ignored_events": events.ignored,
        "has_time": events.has_time,
        "has_order": events.has_order,
        "time_range": [_iso(t) for t in first_last] if first_last else None,
        "timestamps_filled": events.times_filled,
        "timestamps_raised": events.times_raised,
        "text_fields": list(items.template.fields),
        "text_fallback_fields": list(items.template.fallback),
        "max_text_chars": items.template.max_chars,
        "attributes": _attributes(items.frame),
        "items_without_text": int((~items.with_text).sum()),
        "duplicate_items": {
            "same_content": repeats.get(why.REPEATED_ITEM, 0),
            "different_content": repeats.get(why.CONFLICTING_ITEM, 0),
        },
        "columns_not_read": items.columns_not_read,
        "columns_left_out": items.columns_left_out,
        "rows_read": {"items": items.rows, "events": events.rows},
        "rejects": {
            "items": why.count_reasons(rejects.filter(pl.col(why.TABLE) == "items")),
            "events": why.count_reasons(rejects.filter(pl.col(why.TABLE) == "events")),
        },
        "recorded": events.recorded,
        "suspicious": items.suspicious + events.suspicious,
        "warnings": {"items": items.warnings, "events": events.warnings},
        "filters": events.filters,
        "adapter_dropped": sources.dropped,
        "user_ids_hashed": config.privacy.hash_users,
        "data": plain(config.data),
    }


def _write(
    config: PipelineConfig, folder: Path, console: Console
) -> tuple[dict[str, Any], list[ColumnSample], list[ColumnSample]]:
    """Ingest everything into an empty folder; return the content of dataset.json and both samples."""
    data: DataConfig = config.data
    pseudonyms = make_pseudonyms(config.privacy)
    with console.status("opening the tables") as status, _tables(config, folder / "tables"):
        sources = read_sources(data, config.seed if shuffled(data) else 0)
        for events_table in (sources.events, sources.recorded):
            require_contract(sources.items, events_table)
        status.update("reading items and rendering their text")
        items = ingest_items(sources.items, data, data.text_fields or list(sources.text_fields))
        target = folder / schema.EVENTS_FILE
        status.update("reading, checking and sorting events")
        tables = [table for table in (sources.events, sources.recorded) if table is not None]
        if not tables:
            events = write_no_events(data, target)
        else:
            ids = items.frame[schema.ITEM_ID]
            with _engine(config, sources, folder / "staging") as engine:
                events = ingest_events(tables[0], ids, data, pseudonyms, engine, target, *tables[1:])
        if events.items_kept is not None:
            kept = items.frame[schema.ITEM_ID].is_in(events.items_kept.implode())
            items = replace(items, frame=items.frame.filter(kept), with_text=items.with_text.filter(kept))
        items.frame.write_parquet(folder / schema.ITEMS_FILE)
        rejects = pl.concat([items.rejects, events.rejects])
        rejects.write_parquet(folder / schema.REJECTS_FILE)
        status.update("hashing the content")
        digest = content_hash(pl.scan_parquet(folder / f) for f in (schema.ITEMS_FILE, schema.EVENTS_FILE))
        info = {"content_hash": digest, **_describe(config, sources, items, events, rejects)}
        status.update("converting events to arrays")
        arrays = folder / FOLDER
        arrays.mkdir()
        write_event_arrays(folder, info, items.frame[schema.ITEM_ID], arrays)
    for path in (folder / schema.EVENTS_FILE, folder / schema.REJECTS_FILE, *arrays.iterdir()):
        make_private(path)
    (folder / schema.DATASET_FILE).write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n")
    return info, items.sample, events.sample


def _show(info: dict[str, Any], folder: Path, console: Console) -> None:
    """Print a summary of the dataset."""
    table = Table(title=f"dataset in {folder}", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("items", f"{info['items']:,}")
    if info["items_without_text"]:
        table.add_row("items without text", f"{info['items_without_text']:,}")
    table.add_row(
        "text fields", ", ".join(info["text_fields"]) or "none: items are known by other attributes or id"
    )
    if info["columns_not_read"]:
        unread = ", ".join(f"{name} ({what})" for name, what in info["columns_not_read"].items())
        table.add_row("not read as text", escape(unread))
    for what, count in info["duplicate_items"].items():
        if count:
            table.add_row("rows of known items", f"{count:,}, {what.replace('_', ' ')}")
    table.add_row("users", f"{info['users']:,}")
    table.add_row("events", f"{info['events']:,}")
    for kind in info["kinds"]:
        table.add_row(f"  {kind}", f"{info['kind_counts'][kind]:,} (weight {info['event_weights'][kind]:g})")
    for kind, count in info["ignored_events"].items():
        table.add_row(f"  {kind}", f"{count:,} ignored (weight 0)")
    if info["recorded"]:
        again = info["recorded"]["same_id"] + info["recorded"]["same_content"]
        table.add_row(
            "recorded by servers", f"{info['recorded']['rows']:,}, {again:,} of them in the files, too"
        )
    if info["time_range"]:
        table.add_row("time range", " to ".join(info["time_range"]))
    _add_changes(table, info)
    console.print(table)
    for line in info["suspicious"]:
        console.print(
            f"[bold yellow]look at this:[/bold yellow] {escape(line)}", soft_wrap=True, highlight=False
        )


def _add_changes(table: Table, info: dict[str, Any]) -> None:
    """Add rows on changed, filtered, dropped, rejected and emptied values."""
    for name, what in (("timestamps_filled", "filled"), ("timestamps_raised", "raised")):
        if info[name]:
            table.add_row(f"times {what}", f"{info[name]:,} of {info['events']:,}")
    for name, counts in info["filters"].items():
        removed = ", ".join(f"{count:,} {what}" for what, count in counts.items())
        table.add_row(f"filter {name}", f"removed {removed}")
    for reason, count in info["adapter_dropped"].items():
        table.add_row("left out", f"{count:,} {reason}")
    for group, verb in (("rejects", "rejected"), ("warnings", "emptied")):
        for name, counts in info[group].items():
            for reason, count in counts.items():
                table.add_row(f"{verb} in {name}", f"{count:,} {reason}")


def prepare(config: PipelineConfig, console: Console) -> Path:
    """Turn raw tables into `<work_dir>/dataset/`, replacing an earlier one.

    Writes items.parquet, events.parquet, rejects.parquet, arrays/ and dataset.json (see docs/data.md). The
    folder appears complete or not at all.

    Args:
        config: where the data is and how to read it.
        console: progress and the final table go here.

    Returns:
        The dataset directory.

    Raises:
        InputError: a fault in the configuration or the files; nothing is written then.
    """
    target = Path(config.work_dir) / DATASET_FOLDER
    with folder_replacement(target) as folder, discarding():
        info, items, events = _write(config, folder, console)
    for name, sample in (("items", items), ("events", events)):
        if sample:
            console.print(sample_table(name, sample))
    _show(info, target, console)
    return target
