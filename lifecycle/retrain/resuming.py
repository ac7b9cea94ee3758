"""Whether a call resumes an interrupted run or begins a new one."""

from __future__ import annotations

from rich.console import Console

from conf.lifecycle import RetrainConfig
from lifecycle.retrain.audit_page import write_pages
from lifecycle.retrain.checking import accept_profile
from lifecycle.retrain.collecting import facts_of_sources
from lifecycle.retrain.journal import Journal, journals, settings_hash
from lifecycle.retrain.night import Night, Places, served_version
from lifecycle.retrain.outcomes import Outcome
from lifecycle.retrain.publishing import INTENT
from lifecycle.retrain.watching import ROLLING_BACK

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
        night = Night(config, console, journal)
        _record_publication(night)
        reason = "a later run was interrupted, too" if resumed else _obstacle(night)
        if reason is None:
            resumed = journal
            continue
        if journal.published is not None:
            accept_profile(night)
            journal.end(Outcome.published, f"published, but not watched to the end: {reason}")
        else:
            journal.end(Outcome.abandoned, f"interrupted, and not resumed: {reason}")
        write_pages(journal)
    return resumed


def _record_publication(night: Night) -> None:
    """Write the step `publish` of a run that was killed after its version had become current."""
    intent = night.journal.content.get(INTENT)
    if intent and "publish" not in night.journal.steps and intent["version"] == served_version(night.store):
        night.journal.finish_step("publish", intent, 0.0)


def _obstacle(night: Night) -> str | None:
    """Return why a run cannot be resumed, or None."""
    config, journal = night.config, night.journal
    served = served_version(night.store)
    intent = journal.content.get(INTENT, {})
    known = (intent.get("version"), intent.get("before"))
    if ROLLING_BACK in journal.content and served in known:
        return None  # whatever has changed since, a broken version does not stay
    if journal.content["settings_hash"] != settings_hash(config):
        return "the settings have changed"
    if journal.age_seconds > config.retrain.resume_hours * _HOUR:
        return f"it began more than retrain.resume_hours={config.retrain.resume_hours:g} ago"
    if "publish" in journal.steps or INTENT in journal.content:
        return None if served in known else f"{served} has become current"
    if "prepare" in journal.steps:
        if not (night.folder / "dataset").is_dir():
            return "its folder is gone"
        if journal.steps["prepare"]["served_version"] != served:
            return f"{served} has become current"
    if "collect" in journal.steps and journal.steps["collect"]["sources"] != facts_of_sources(night):
        return "the tables have changed"
    return None
