"""Every planted bad day is refused for its own reason, from files, and the good day after it is not."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from benchmarks.bad_days.__main__ import prepared
from benchmarks.bad_days.planted import BAD_DAYS
from conf.drift import ChecksConfig
from lifecycle.checks.check import Outcome
from lifecycle.checks.data import check_tables
from lifecycle.checks.profile import Profile, profile_of
from tests.lifecycle.checks.shop import NIGHT, TODAY, feed

DAY = 86_400


@pytest.fixture(scope="module", name="before")
def _before(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    return profile_of(prepared(feed(TODAY - timedelta(days=1)), tmp_path_factory.mktemp("before")))


@pytest.mark.parametrize("name", BAD_DAYS)
def test_a_bad_day_is_refused_for_its_own_reason(name: str, before: Profile, tmp_path: Path) -> None:
    bad = BAD_DAYS[name]
    checks = check_tables(before, prepared(bad.change(feed()), tmp_path), ChecksConfig(), NIGHT)
    refused = {check.name for check in checks if check.outcome is Outcome.refused}
    assert refused & set(bad.checks)


def test_the_good_day_itself_and_the_next_one_pass(before: Profile, tmp_path: Path) -> None:
    for days in (0, 1):
        (tmp_path / f"{days}").mkdir()
        tables = prepared(feed(TODAY + timedelta(days=days)), tmp_path / f"{days}")
        checks = check_tables(before, tables, ChecksConfig(), NIGHT + days * DAY)
        assert {c.outcome for c in checks} <= {Outcome.passed, Outcome.not_judged}
