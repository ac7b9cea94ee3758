"""`shelfwise retrain`: one run, from recorded events to a watched model, resumed where it was interrupted."""

from __future__ import annotations

import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console

from conf.errors import InputError
from conf.lifecycle import RetrainConfig
from lifecycle.retrain.audit_page import write_pages
from lifecycle.retrain.checking import accept_profile, check_step
from lifecycle.retrain.collecting import collect_step
from lifecycle.retrain.journal import Journal, now_iso
from lifecycle.retrain.lock import LockedError, run_lock
from lifecycle.retrain.night import Night, Places
from lifecycle.retrain.outcomes import LOCKED, EndOfRunError, Interrupted, Outcome
from lifecycle.retrain.planning import plan_step
from lifecycle.retrain.preparing import prepare_step
from lifecycle.retrain.publishing import publish_step, read_gate
from lifecycle.retrain.resuming import open_run
from lifecycle.retrain.retention import retain_step
from lifecycle.retrain.training import train_step
from lifecycle.retrain.watching import observe_step, watch_step

Step = Callable[[Night], dict[str, Any]]
STEPS: Final[dict[str, Step]] = {
    "collect": collect_step,
    "prepare": prepare_step,
    "check": check_step,
    "plan": plan_step,
    "train": train_step,
    "observe": observe_step,
    "publish": publish_step,
    "watch": watch_step,
}
"""The steps in order; a run that ends early leaves out those after it."""
LAST_OF_DRY_RUN: Final = "plan"
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def retrain(config: RetrainConfig, console: Console) -> None:
    """Carry out `shelfwise retrain`; the exit code says how the run ended.

    Raises:
        InputError: wrong settings or files; the audit file has the reason, too.
        SystemExit: any outcome but a publication.
    """
    places = Places.of(config.work_dir)
    try:
        with run_lock(places.lock):
            code = _run(config, console, places)
    except LockedError as error:
        console.print(f"retrain: {error}; nothing was done", soft_wrap=True, markup=False, highlight=False)
        code = LOCKED
    except OSError as error:  # what even the audit file could not take, as on a full disk
        console.print(
            f"retrain: fault: {error.strerror or error} ({error.filename or places.root}); what is served is "
            "whole, and the next call goes on from the last step",
            soft_wrap=True, markup=False, highlight=False,
        )  # fmt: skip
        code = Outcome.fault.exit_code
    if code:
        sys.exit(code)


def _run(config: RetrainConfig, console: Console, places: Places) -> int:
    """Run under the lock; return the exit code."""
    journal = None if config.dry_run else open_run(config, places, console)
    resumed = journal is not None
    if journal is None:
        journal = Journal.begin(places.audit, config)
    night = Night(config, console, journal)
    if config.dry_run:
        return _dry_run(night)
    if resumed:
        journal.content["resumed"].append(now_iso())
        done = ", ".join(journal.steps) or "nothing"
        night.say(f"resuming run {journal.run}, which was interrupted after: {done}")
    journal.save()
    write_pages(journal)
    try:
        with _ended_by_signals():
            outcome, reason = _carry_out(night)
    except Interrupted as interruption:
        journal.content["interrupted"].append(now_iso())
        journal.save()
        write_pages(journal)
        night.say(f"interrupted; the next call resumes run {journal.run}; {journal.path}")
        return 128 + interruption.number
    except InputError as error:
        _close(night, Outcome.bad_input, str(error))
        night.say(f"{journal.published or 'nothing'} was published; {journal.path}")
        raise
    _close(night, outcome, reason)
    night.say(f"{_in_words(outcome)}: {reason}; {journal.path}")
    return outcome.exit_code


def _close(night: Night, outcome: Outcome, reason: str) -> None:
    """Write how the run ends, and delete what nothing needs any more."""
    accept_profile(night)
    if night.journal.open:
        night.journal.end(outcome, reason)
    write_pages(night.journal)
    _step(night, "retain", retain_step)


def _carry_out(night: Night) -> tuple[Outcome, str]:
    """Carry out the steps that the journal lacks; return how the run ends, and why.

    Raises:
        InputError: wrong settings or files.
    """
    try:
        read_gate(night)
        for name, step in STEPS.items():
            if name not in night.journal.steps:
                _step(night, name, step)
    except EndOfRunError as end:
        return end.outcome, end.reason
    except InputError:
        raise
    except Exception as error:  # the audit file has to say it, whatever it is
        night.journal.note("traceback", traceback.format_exc())
        reason = " ".join(str(error).split()) or type(error).__name__
        return Outcome.fault, f"{type(error).__name__}: {reason}"
    published, later = night.record("publish"), night.record("watch").get("superseded_by")
    state = "is current" if later is None else f"was current until {later} became so"
    return Outcome.published, f"{published['version']} {state}, before it {published['before'] or 'none'}"


def _step(night: Night, name: str, step: Step) -> None:
    begun = time.monotonic()
    try:
        record = step(night)
    except EndOfRunError as end:
        # One write: a step that ends the run must never look like one after which it goes on.
        night.journal.finish_step(
            name, end.record, time.monotonic() - begun, ending=(end.outcome, end.reason)
        )
        raise
    night.journal.finish_step(name, record, time.monotonic() - begun)
    write_pages(night.journal)


def _dry_run(night: Night) -> int:
    """Collect, prepare, check and plan, say what was found, remove what was made; return the exit code."""
    outcome, reason = Outcome.published, "a run would train now"
    try:
        read_gate(night)
        for name, step in STEPS.items():
            night.journal.steps[name] = step(night)
            if name == LAST_OF_DRY_RUN:
                break
    except EndOfRunError as end:
        outcome, reason = end.outcome, end.reason
    finally:
        shutil.rmtree(night.folder, ignore_errors=True)
    for check in night.journal.steps.get("check", {}).get("checks", []):
        night.say(f"{check['outcome']}: {check['line']}")
    said = reason if outcome is Outcome.published else f"a run would end with: {_in_words(outcome)}: {reason}"
    night.say(f"dry run; {said}")
    return outcome.exit_code


def _in_words(outcome: Outcome) -> str:
    return outcome.value.replace("_", " ")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Raise `Interrupted` in the block for the signals that ask a program to end."""

    def end(number: int, frame: object) -> None:
        raise Interrupted(number)

    before = {number: signal.signal(number, end) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
