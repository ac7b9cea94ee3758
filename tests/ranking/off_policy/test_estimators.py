"""Off-policy estimators: by hand, against the Open Bandit Pipeline, and on logs with a known answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from obp import ope

from ranking.off_policy.click_model import attraction, examination
from ranking.off_policy.estimators import Rounds, estimate
from ranking.off_policy.log import read_log
from ranking.rerank.rules import Rules
from ranking.rerank.slate import fill_slate


def rounds(seed: int = 0, count: int = 500) -> Rounds:
    rng = np.random.default_rng(seed)
    return Rounds(
        logged=(rng.random(count) < 0.3).astype(np.float64),
        shown=rng.random(count) < 0.4,
        reward=(rng.random(count) < 0.3).astype(np.float64),
        propensity=rng.uniform(0.05, 1.0, count),
        examination=np.ones(count),
        modelled=rng.random(count),
        user=rng.integers(0, 60, count),
    )


def test_values_of_three_positions_by_hand() -> None:
    log = Rounds(
        logged=np.array([1.0, 0.0, 1.0]),
        shown=np.array([True, True, False]),
        reward=np.array([1.0, 0.0, 0.0]),
        propensity=np.array([0.5, 0.25, 1.0]),
        examination=np.array([1.0, 0.5, 0.5]),
        modelled=np.array([0.5, 0.25, 0.1]),
        user=np.array([0, 1, 2]),
    )
    found = estimate(log, resamples=50)
    assert found.logged == pytest.approx(2 / 3)
    assert found.support == pytest.approx((2 + 4 * 0.5) / 2)
    assert found.estimates["ips"].value == pytest.approx(2 / 3)
    assert found.estimates["snips"].value == pytest.approx(2 / 3 / 2)
    # Corrections are 2 * (1 - 1/2), 4 * (0 - 1/4) and none.
    assert found.estimates["dr"].value == pytest.approx((0.5 + 1.0 + 0.25 - 1.0 + 0.1) / 3)
    assert found.estimates["dr"].gain == pytest.approx(0.85 / 3 - 2 / 3)
    assert found.effective_rounds == pytest.approx(36 / 20)
    assert (found.rounds, found.users) == (3, 3)


def test_the_logging_policy_itself_is_estimated_by_its_own_mean() -> None:
    log = replace(rounds(), propensity=np.ones(500), shown=np.ones(500, dtype=np.bool_))
    found = estimate(replace(log, logged=log.reward))
    for value in found.estimates.values():
        assert value.value == pytest.approx(found.logged)
        assert [value.gain_low, value.gain_high] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert (found.support, found.effective_rounds) == (1.0, 500.0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_values_are_those_of_the_open_bandit_pipeline(seed: int) -> None:
    log = rounds(seed)
    # Two actions a round: 0 is the logged item, 1 the target policy's, if it is another one.
    policy = np.stack([log.shown, ~log.shown], axis=1).astype(np.float64)[:, :, None]
    given: dict[str, Any] = {
        "reward": log.reward,
        "action": np.zeros(len(log.reward), dtype=np.int64),
        "pscore": log.propensity,
        "action_dist": policy,
        "position": np.zeros(len(log.reward), dtype=np.int64),
    }
    modelled = np.stack([log.modelled, log.modelled], axis=1)[:, :, None]
    theirs = {
        "ips": ope.InverseProbabilityWeighting().estimate_policy_value(**given),
        "snips": ope.SelfNormalizedInverseProbabilityWeighting().estimate_policy_value(**given),
        "dr": ope.DoublyRobust().estimate_policy_value(**given, estimated_rewards_by_reg_model=modelled),
    }
    ours = estimate(log, resamples=2).estimates
    for name, value in theirs.items():
        assert ours[name].value == pytest.approx(value, abs=1e-12)


def test_intervals_are_wider_where_users_repeat_themselves() -> None:
    once = replace(rounds(count=200), user=np.arange(200))
    again = Rounds(*(np.tile(column, 5) for column in vars(once).values()))
    alone, repeated, pretended = (
        estimate(log).estimates["ips"] for log in (once, again, replace(again, user=np.arange(1000)))
    )
    width = alone.high - alone.low
    assert repeated.high - repeated.low == pytest.approx(width, rel=0.15)
    assert pretended.high - pretended.low == pytest.approx(width / np.sqrt(5), rel=0.15)


def test_examination_is_the_rate_of_explored_items_by_position() -> None:
    rng = np.random.default_rng(0)
    position = rng.integers(1, 5, 40_000)
    explored = rng.random(40_000) < 0.5
    # Items placed by score are better at the first positions, which must not count.
    chance = np.array([0, 0.4, 0.2, 0.2, 0.1])[position] * np.where(explored, 1.0, 2.0 / position)
    reward = (rng.random(40_000) < chance).astype(np.float64)
    found = examination(reward, position, np.where(explored, 0.01, 1.0))
    np.testing.assert_allclose(found, [1, 1, 0.5, 0.5, 0.25], atol=0.03)
    assert np.all(np.diff(found) <= 0)
    assert examination(np.zeros(3), np.array([1, 2, 3]), np.ones(3)).tolist() == [1.0] * 4


def test_the_model_of_rewards_has_not_seen_the_user() -> None:
    user, item = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    seen = np.array([1.0, 0.5, 1.0, 0.5])
    found = attraction(np.array([1.0, 0.0, 0.0, 1.0]), user, item, seen, 3)
    # User 0 from user 1: the mean is 1 / 1.5, with the weight of 20 impressions.
    mean = 1 / 1.5
    np.testing.assert_allclose(found[0], [20 * mean / 21, (1 + 20 * mean) / 20.5, mean])
    changed = attraction(np.array([0.0, 1.0, 0.0, 1.0]), user, item, seen, 3)
    np.testing.assert_allclose(changed[0], found[0])
    assert not np.allclose(changed[1], found[1])


LISTS, ITEMS, SHOWN = 500, 30, 4
"""Of a synthetic log; the shop shows the first items, and explores the others."""
EXAMINED = np.array([1.0, 0.7, 0.5, 0.4])
"""Chance that a position is looked at."""
AIM = np.array([0, 12, 1, 20])
"""Items of the target policy, of which two are only known from exploration."""
TASTE = np.linspace(0.5, 0.2, ITEMS)
"""Chance that an item is clicked where it is looked at."""
TASTE[12], TASTE[20] = 0.9, 0.05


def synthetic_log(folder: Path, seed: int, share: float = 0.4) -> str:
    """Write the events of a shop whose answer is known, as servers export them."""
    rng = np.random.default_rng(seed)
    rows, scores = np.arange(ITEMS, dtype=np.int32), np.linspace(1, 0, ITEMS).astype(np.float32)
    units, known = np.eye(ITEMS, dtype=np.float32), np.zeros(ITEMS, dtype=np.float32)
    events: list[tuple[str, str, str, str, int, float]] = []
    for number, draw in enumerate(rng.integers(0, 2**62, LISTS)):
        rules = Rules(exploration=share, seed=int(draw))
        slate = fill_slate(rows, scores, units, known, SHOWN, 0.0, rules, True)
        for at, entry in enumerate(slate.items):
            shown = (
                f"u{number}",
                f"i{entry.candidate}",
                "impression",
                f"l{number}",
                at + 1,
                entry.propensity,
            )
            events.append(shown)
            if rng.random() < TASTE[entry.candidate] * EXAMINED[at]:
                events.append((*shown[:2], "click", *shown[3:]))
    path = folder / "events.parquet"
    columns = ["user_id", "item_id", "event", "request_id", "list_position", "propensity"]
    pl.DataFrame(events, schema=columns, orient="row").write_parquet(path)
    return str(path)


def policy(items: list[int]) -> pl.DataFrame:
    return pl.DataFrame(
        [(f"u{user}", rank + 1, f"i{item}") for user in range(LISTS) for rank, item in enumerate(items)],
        schema=["user_id", "rank", "item_id"],
        orient="row",
    )


def test_the_intervals_of_synthetic_logs_cover_the_known_answer(tmp_path: Path) -> None:
    truth, logs = float((TASTE[AIM] * EXAMINED).mean()), 60
    covered = dict.fromkeys(("ips", "snips", "dr"), 0)
    widths = dict.fromkeys(covered, 0.0)
    errors: dict[str, list[float]] = {name: [] for name in covered}
    supports = []
    for seed in range(logs):
        found = estimate(read_log(synthetic_log(tmp_path, seed), policy(AIM.tolist()), []).rounds, 300)
        supports.append(found.support)
        for name, value in found.estimates.items():
            covered[name] += value.low <= truth <= value.high
            widths[name] += (value.high - value.low) / logs
            errors[name].append(value.value - truth)
    assert np.mean(supports) == pytest.approx(1.0, abs=0.03)
    assert all(count >= 0.88 * logs for count in covered.values()), covered
    assert {name: abs(np.mean(error)) < 0.02 for name, error in errors.items()} == dict.fromkeys(
        covered, True
    )
    assert widths["dr"] < widths["ips"]


def test_what_exploration_costs_is_seen_in_its_own_log(tmp_path: Path) -> None:
    # The same list without exploration; two of four positions are explored, so items 2 and 3 have no room.
    found = estimate(read_log(synthetic_log(tmp_path, 3, share=0.5), policy([0, 1, 2, 3]), []).rounds)
    assert found.support == pytest.approx(1.7 / 2.6, abs=0.07)
    full = estimate(read_log(synthetic_log(tmp_path, 3, share=0.5), policy([0, 1]), []).rounds)
    assert (full.support, full.effective_rounds) == (1.0, 2.0 * LISTS)
    truth = float((TASTE[[0, 1]] * EXAMINED[:2]).mean())
    for value in full.estimates.values():
        assert value.low <= truth <= value.high
        assert value.gain > 0.01
