"""Whether a call resumes an interrupted run or begins a new one."""

from __future__ import annotations

from rich.console import Console

from conf.lifecycle import RetrainConfig
from lifecycle.retrain.audit_page import write_pages
from lifecycle.retrain.collecting import facts_of_sources
from lifecycle.retrain.journal import Journal, journals, settings_hash
from lifecycle.retrain.night import Night, Places, served_version, store_of
from lifecycle.retrain.outcomes import Outcome
from lifecycle.retrain.publishing import INTENT

_HOUR = 3_600


def open_run(config: RetrainConfig, places: Places, console: Console) -> Journal | None:
    """Return the interrupted run to resume, or None; others that were interrupted are closed.

    Raises:
        InputError: a table of the shop does not exist.
    """
    resumed = None
    for journal in reversed(journals(places.audit)):
        if not journal.open:
            continue
        reason = "a later run was interrupted, too" if resumed else _obstacle(journal, config, console)
        if reason is None:
            resumed = journal
            continue
        if "publish" in journal.steps:
            journal.end(Outcome.published, f"published, but not watched to the end: {reason}")
        else:
            journal.end(Outcome.abandoned, f"interrupted, and not resumed: {reason}")
        write_pages(journal)
    return resumed


def _obstacle(journal: Journal, config: RetrainConfig, console: Console) -> str | None:
    """Return why a run cannot be resumed, or None."""
    if journal.content["settings_hash"] != settings_hash(config):
        return "the settings have changed"
    if journal.age_seconds > config.retrain.resume_hours * _HOUR:
        return f"it began more than retrain.resume_hours={config.retrain.resume_hours:g} ago"
    night = Night(config, console, journal)
    served = served_version(store_of(config))
    if "publish" in journal.steps or INTENT in journal.content:
        intent = journal.content.get(INTENT, {})
        known = (intent.get("version"), intent.get("before"))
        return None if served in known else f"{served} has become current"
    if "prepare" in journal.steps:
        if not (night.folder / "dataset").is_dir():
            return "its folder is gone"
        if journal.steps["prepare"]["served_version"] != served:
            return f"{served} has become current"
    if "collect" in journal.steps and journal.steps["collect"]["sources"] != facts_of_sources(night):
        return "the tables have changed"
    return None
