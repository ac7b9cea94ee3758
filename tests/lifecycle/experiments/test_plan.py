from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from conf.errors import InputError
from conf.experiment_report import ExperimentReportConfig
from lifecycle.experiments.plan import Declared, Plan, plan_of

FOUND = {"home": {"new", "old"}, "cart": {"x"}}
DECLARED = {"home": Declared({"old": 0.3, "new": 0.1}, "session", datetime(2024, 5, 1, tzinfo=UTC))}


def plan(**settings: Any) -> Plan:
    return plan_of(ExperimentReportConfig(**settings), FOUND, DECLARED)


def test_the_file_says_shares_unit_and_start_and_settings_come_first() -> None:
    made = plan(name="home")
    assert (made.control, made.arms, made.shares) == ("old", ["new"], {"old": 0.3, "new": 0.1})
    assert (made.unit, made.start_us, made.ends) == ("session", 1_714_521_600_000_000, False)
    other = plan(name="home", control="new", unit="user", start="2024-05-02T02:00:00+02:00", end="2024-06-01")
    assert (other.control, other.arms, other.unit, other.ends) == ("new", ["old"], "user", True)
    assert other.start_us - made.start_us == 24 * 3_600_000_000
    assert plan(name="home", shares={"new": 1, "old": 1}).shares == {"new": 1.0, "old": 1.0}


def test_control_is_the_arm_of_that_name() -> None:
    made = plan_of(ExperimentReportConfig(), {"e": {"a", "control"}}, {})
    assert (made.control, made.arms, made.shares) == ("control", ["a"], {})


def test_an_arm_that_gets_nothing_is_left_out_unless_it_has_events() -> None:
    declared = {"home": Declared({"old": 0.5, "off": 0.0, "new": 0.5})}
    assert plan_of(ExperimentReportConfig(name="home"), FOUND, declared).arms == ["new"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "name: which experiment.*cart, home; add name=cart"),
        ({"name": "homes"}, r"name=homes: no such experiment; did you mean 'home'\?; there are cart, home"),
        (
            {"name": "home", "control": "odl"},
            r"control=odl: 'home' has no such arm; did you mean 'old'\?; it has old",
        ),
        ({"name": "home", "start": "yesterday"}, "start=yesterday: not a time; write it as 2024-05-31"),
        ({"name": "home", "start": "2024-05-02", "end": "2024-05-01"}, "is not before end="),
        ({"name": "home", "shares": {"a": -1.0}}, "a share is 0 or more"),
        ({"name": "cart"}, None),
    ],
)
def test_wrong_settings_are_one_line_with_a_fix(settings: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert plan(**settings, control="x").arms == []
        return
    with pytest.raises(InputError, match=message):
        plan(**settings)


def test_events_without_the_experiment_say_what_is_missing() -> None:
    with pytest.raises(InputError, match="serve with experiments=FILE, and send the attribution token"):
        plan_of(ExperimentReportConfig(), {}, DECLARED)
    with pytest.raises(InputError, match="name=home: no recorded event came from a list of this experiment"):
        plan_of(ExperimentReportConfig(name="home"), {}, DECLARED)
    with pytest.raises(InputError, match="control: which arm of 'cart' is compared with.*add control=x"):
        plan(name="cart")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"primary": "crt"}, "no metric 'crt'; did you mean 'ctr'"),
        ({"guards": ["konversion"]}, "no metric 'konversion'; did you mean 'conversion'"),
        ({"decision": "bayes"}, "decision=bayes: use sequential or fixed"),
        ({"unit": "visit"}, "unit=visit: use user or session"),
        ({"level": 1.0}, "level=1.0: must be at least 0.5 and below 1"),
        ({"minimum_effect": 0.0}, "minimum_effect=0.0: must be above 0"),
        ({"winsorise": 99.0}, "winsorise=99.0: must be at least 0.5 and below 1"),
        ({"minimum_units": 1}, "minimum_units must be 2 or more"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ExperimentReportConfig(**settings)
