"""The position-based click model: a reward is examination of the position times attraction of the item."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from ranking.off_policy.estimators import Doubles

Integers = npt.NDArray[np.int64]

PRIOR = 20.0
"""Weight of the mean rate in a position's and an item's own rate, in impressions."""
ENOUGH = 200
"""Rewards of explored items from which on these alone show the examination."""
_EXPLORED = 0.5
"""Propensity below which an item counts as explored."""
_LEAST = 0.01
"""Smallest examination, relative to the first position."""


def examination(reward: Doubles, position: Integers, propensity: Doubles) -> Doubles:
    """Return the examination of each position, [positions + 1] from 0, relative to the first one.

    Explored items are at random positions, so that their rates differ by position alone. Where they have too
    few rewards, all impressions are used, which overstates the first positions, as these have the best items.
    Examination does not rise (isotonic regression).

    Args:
        reward: [impressions].
        position: [impressions] from 1.
        propensity: [impressions].

    """
    explored = propensity < _EXPLORED
    if reward[explored].sum() < ENOUGH:
        explored = np.ones(len(reward), dtype=np.bool_)
    size, mean = int(position.max()) + 1, float(reward[explored].mean())
    if mean == 0:
        return np.ones(size)
    shown = np.bincount(position[explored], minlength=size)[1:]
    earned = np.bincount(position[explored], weights=reward[explored], minlength=size)[1:]
    rates = isotonic_regression(
        (earned + PRIOR * mean) / (shown + PRIOR), weights=shown + PRIOR, increasing=False
    ).x
    return np.append(1.0, np.maximum(rates / rates[0], _LEAST))


def attraction(reward: Doubles, user: Integers, item: Integers, examined: Doubles, items: int) -> Doubles:
    """Return the attraction of items to users of even and of odd numbers, [2, items].

    Cross-fitted: that to users of even numbers is fitted on those of odd numbers, and the other way round, as
    a model that has seen a reward would not correct it.

    Args:
        reward: [impressions].
        user: [impressions] number of the user.
        item: [impressions] number of the item, from 0.
        examined: [impressions] examination of its position.
        items: number of items.

    """
    fitted = np.zeros((2, items))
    for fold in (0, 1):
        others = user % 2 != fold
        seen = float(examined[others].sum())
        mean = float(reward[others].sum()) / seen if seen else float(reward.mean())
        earned = np.bincount(item[others], weights=reward[others], minlength=items)
        times = np.bincount(item[others], weights=examined[others], minlength=items)
        fitted[fold] = (earned + PRIOR * mean) / (times + PRIOR)
    return fitted
