"""All checks of a night's data, and the profile of a run that was accepted."""

from __future__ import annotations

import time as clock
from dataclasses import replace
from pathlib import Path

from conf.drift import CHECKS, ChecksConfig
from lifecycle.checks.arrivals import arrival_checks
from lifecycle.checks.behaviour import behaviour_checks
from lifecycle.checks.catalogue import catalogue_checks
from lifecycle.checks.check import Check
from lifecycle.checks.days import volume_checks
from lifecycle.checks.night import Night
from lifecycle.checks.profile import Profile
from lifecycle.checks.tables import Tables, read_tables


def check_run(
    previous: Profile | None, dataset: Path, limits: ChecksConfig, now: float | None = None
) -> list[Check]:
    """Judge the data of a night.

    The first run has nothing to compare with: its data can be warned of, but not refused.

    Args:
        previous: profile of the last accepted run, see `lifecycle.checks.profile.load_profile`.
        dataset: folder that `prepare` wrote.
        limits: what is still normal.
        now: Unix seconds; None takes the clock. Days are judged once they are over.

    Raises:
        InputError: no dataset.
    """
    return check_tables(previous, read_tables(dataset), limits, now)


def check_tables(
    previous: Profile | None, tables: Tables, limits: ChecksConfig, now: float | None = None
) -> list[Check]:
    """Judge the data of a night that have been read; see `check_run`."""
    if previous is None:
        limits = replace(limits, warn_only=list(CHECKS))
    night = Night(tables, previous, limits, clock.time() if now is None else now)
    return [
        *arrival_checks(night),
        *volume_checks(night),
        *behaviour_checks(night),
        *catalogue_checks(night),
    ]
