"""`shelfwise inspect`: reports what files contain, and prints the command that reads them."""

from __future__ import annotations

import io
import json
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from conf.clients import InspectConfig
from conf.composition.compose import compose_command
from conf.composition.overrides import override
from conf.errors import InputError
from features.adapters import source_files
from features.data import schema
from features.files.conversions import discarding
from features.inspection.files import FileFacts, look_at, tables_in
from features.inspection.plan import Plan, make_plan, plan_own_tables
from features.inspection.profiles import ColumnProfile
from features.prepare import prepare
from features.text.titles import shortened
from features.values.names import ITEM, ORDER, PRICE, QUANTITY, TIME, USER, VALUE

_CELL = 30
_WIDTH = 150
"""Least width of the table of columns, even when printing to a file."""
_SAMPLES = " | "
_NUMBERS = (PRICE, QUANTITY, VALUE, ORDER)
_SHOWN = 2
"""Number of parsed items and events shown."""
_TRIED = 100_000_000
"""Size of the files, in bytes, up to which the proposed command is tried."""


def command_of(plan: Plan, work_dir: str) -> str:
    """Return the command as typed in a shell."""
    return " ".join(["shelfwise run", *plan.overrides, override("work_dir", work_dir)])


def _looks_like(column: ColumnProfile) -> str:
    if column.nested:
        return "objects"
    if column.filled == 0:
        return "empty"
    if column.values == 1:
        return "always the same"
    if column.url > 0.5:
        return "links"
    if column.written_time > 0.9:
        return "times"
    if column.html > 0.3:
        return "text with HTML"
    if column.number > 0.9:
        return "numbers" if column.distinct < 0.99 or column.decimal > 0.5 else "numbers, all different"
    if column.words > 1.5:
        return "text"
    return "codes, all different" if column.distinct > 0.99 else f"words, {column.values:,} different"


def _show_file(facts: FileFacts, plan: Plan, console: Console) -> None:
    what = facts.error or facts.roles.kind.value
    known = next((preset for preset, _ in facts.presets if preset == plan.preset), None)
    if known:
        table_of = next(table for preset, table in facts.presets if preset == known)
        what = f"{table_of} of data={known}"
    console.print(f"\n[bold]{_escape(facts.path)}[/bold]: {_escape(what)}", soft_wrap=True, highlight=False)
    if facts.error or not facts.columns:
        return
    looked = f"{facts.rows:,} rows looked at" + (", there are more" if facts.more else "")
    if known:
        console.print(f"  {len(facts.columns)} columns, {looked}; the preset reads them", highlight=False)
        return
    roles = {column: role for role, column in facts.roles.columns.items()}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("column", "looks like", "empty", "used as", "in the file", "read as"):
        table.add_column(title, overflow="fold")
    for name, column in facts.columns.items():
        if column.filled == 0 and not column.nested:
            continue
        role = roles.get(name)
        read = {TIME: column.moments, ITEM: column.samples, USER: column.samples}.get(role or "", ())
        read = column.amounts if role in _NUMBERS else read
        cells = (
            name,
            _looks_like(column),
            f"{1 - column.filled:.0%}",
            role or "",
            _SAMPLES.join(shortened(s, _CELL) for s in column.samples),
            _SAMPLES.join(read),
        )
        table.add_row(*(_escape(cell) for cell in cells))
    wide = Console(file=console.file, width=max(console.width, _WIDTH), force_terminal=console.is_terminal)
    wide.print(table)
    empty = [name for name, column in facts.columns.items() if column.filled == 0 and not column.nested]
    console.print(
        f"  {looked}" + (f"; always empty: {_escape(', '.join(empty))}" if empty else ""), highlight=False
    )


def _escape(text: str) -> str:
    return text.replace("[", "\\[")


@dataclass(frozen=True)
class Trial:
    """Result of trying the proposed settings."""

    stopped: str = ""
    """Error of `prepare`, or empty."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """The data set's description."""
    items: pl.DataFrame = field(default_factory=pl.DataFrame)
    """First items."""
    events: pl.DataFrame = field(default_factory=pl.DataFrame)
    """First events."""


def try_plan(plan: Plan) -> Trial:
    """Prepare a data set with the plan's settings, in a temporary folder."""
    words = [word for text in plan.overrides for word in shlex.split(text)]
    with tempfile.TemporaryDirectory() as folder:
        try:
            config = compose_command("prepare", [*words, work_dir_override(folder)])
            done = prepare(config, Console(file=io.StringIO()))
        except InputError as error:
            return Trial(str(error))
        info = json.loads((done / schema.DATASET_FILE).read_text())
        first = [
            pl.scan_parquet(done / name).head(_SHOWN).collect()
            for name in (schema.ITEMS_FILE, schema.EVENTS_FILE)
        ]
        return Trial("", info, *first)


def work_dir_override(folder: str) -> str:
    """Return the override of a work directory in Hydra's grammar."""
    return shlex.split(override("work_dir", folder))[0]


def _size(plan: Plan) -> int:
    words = [word for text in plan.overrides for word in shlex.split(text)]
    try:
        return sum(path.stat().st_size for path in source_files(compose_command("prepare", words).data))
    except InputError:
        return 0


def _show_trial(trial: Trial, console: Console) -> None:
    if trial.stopped:
        console.print("\n[bold]tried, and it stops:[/bold]", highlight=False)
        console.print(trial.stopped, markup=False, soft_wrap=True, highlight=False)
        return
    info = trial.info
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in info["kind_counts"].items() if n)
    fields = ", ".join(info["text_fields"]) or "nothing: items are known by their ids"
    lines = [
        f"{info['items']:,} items, {info['users']:,} users, {info['events']:,} events ({kinds or 'none'})",
        f"an item's text is made of {fields}",
    ]
    for what, counts in (("left out", info["adapter_dropped"]), ("ignored", info["ignored_events"])):
        lines += [f"{what}: {count:,} {reason}" for reason, count in counts.items()]
    for group, verb in (("rejects", "rejected"), ("warnings", "emptied")):
        for table, counts in info[group].items():
            lines += [f"{verb} in {table}: {count:,} {reason}" for reason, count in counts.items()]
    lines += [f"look at this: {what}" for what in info["suspicious"]]
    console.print("\n[bold]tried, and it reads:[/bold]", highlight=False)
    for line in lines:
        console.print(f"  {line}", markup=False, soft_wrap=True, highlight=False)
    for frame, what in ((trial.items, "item"), (trial.events, "event")):
        for row in frame.iter_rows(named=True):
            cells = ", ".join(
                f"{k}={shortened(str(v), _CELL * 2)}" for k, v in row.items() if v not in (None, "")
            )
            console.print(f"  {what}: {cells}", markup=False, soft_wrap=True, highlight=False)


def _else_own_tables(files: Sequence[FileFacts], plan: Plan, trial: Trial) -> tuple[Plan, Trial]:
    """Fall back to the shop's own tables if the preset fails and these can be read."""
    if not trial.stopped or plan.preset == "files":
        return plan, trial
    own = plan_own_tables([f for f in files if not f.error])
    if not own.events and plan.events or not own.items:
        return plan, trial
    other = try_plan(own)
    return (plan, trial) if other.stopped else (own, other)


def inspect(config: InspectConfig, console: Console) -> Plan:
    """Report what files contain, and print the command that reads them.

    Args:
        config: the files and the size of the sample.
        console: for the report.

    Returns:
        The proposed settings.

    Raises:
        InputError: no file is named, or a file does not exist.
    """
    if not config.files:
        raise InputError("inspect: which files? e.g. shelfwise inspect products.csv orders.csv")
    with discarding():
        paths = dict.fromkeys(
            table for path in config.files for table in tables_in(str(Path(path).expanduser()))
        )
        with console.status("looking at the files"):
            files = [look_at(path, config.rows) for path in paths]
            plan = make_plan(files)
        for facts in files:
            _show_file(facts, plan, console)
        trial = Trial()
        if plan.unused:
            console.print(f"\nnot used: {_escape(', '.join(plan.unused))}", soft_wrap=True, highlight=False)
        if (plan.items or plan.events) and config.trial:
            if _size(plan) > _TRIED:
                console.print(
                    "\nnot tried: the files hold more than 100 MB; run `prepare` first", highlight=False
                )
            else:
                with console.status("trying the settings"):
                    trial = try_plan(plan)
                    plan, trial = _else_own_tables(files, plan, trial)
                _show_trial(trial, console)
        if plan.unsure:
            console.print("\n[bold]not sure:[/bold]", highlight=False)
            for note in plan.unsure:
                console.print(f"  {note}", markup=False, soft_wrap=True, highlight=False)
        if plan.items or plan.events:
            heading = "the command, once that is mended:" if trial.stopped else "the command:"
            console.print(f"\n[bold]{heading}[/bold]", highlight=False)
            console.print(command_of(plan, config.work_dir), markup=False, soft_wrap=True, highlight=False)
    return plan
