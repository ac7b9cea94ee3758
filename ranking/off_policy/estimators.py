"""Off-policy estimators: inverse propensity weights, self-normalised, and doubly robust.

A round is a position of a logged list, and the item that a target policy would have had there. That item may
have been on the logged page, at this or another position, with a known probability (its propensity). By the
position-based model (Richardson, Dominowska and Ragno, WWW 2007) the chance of a reward is the examination of
the position times the attraction of the item, so that a reward at one position says what it is worth at
another. The estimators are those of Li et al., "Offline Evaluation of Ranking Policies with Click Models"
(KDD 2018), for this model:

- IPS (Horvitz and Thompson 1952): the mean of w * r, where w is 1 / propensity if the item was on the page,
  else 0, and r its reward, moved to the position. Unbiased if every item of the policy could be on the page.
- SNIPS (Swaminathan and Joachims, NIPS 2015): IPS divided by the support, below. Slightly biased, steadier.
- DR (Dudik, Langford and Li, ICML 2011): a model of the reward, corrected by its weighted errors. Unbiased if
  either the propensities or the model are right.

The support is the mean of w, positions weighted by examination: 1 if every item of the policy could be on the
page. Below it, that share of the policy was never tried, and no estimator can say what it earns.

Written here rather than taken from the Open Bandit Pipeline, against which it is tested: that library takes a
dense array [rounds, items] of the target policy, and its intervals resample rounds, although the rounds of a
user are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

_BLOCK_CELLS = 4_000_000
"""Resampling counts held at once (about 32 MB)."""


@dataclass(frozen=True)
class Rounds:
    """Positions of logged lists under a target policy, each field [rounds]."""

    logged: Doubles
    """Reward of what was shown at the position."""
    shown: npt.NDArray[np.bool_]
    """Whether the target policy's item was on the page."""
    reward: Doubles
    """Reward of the target policy's item where it was shown, moved to this position; else 0."""
    propensity: Doubles
    """Of that item, above 0; 1 where it was not shown."""
    examination: Doubles
    """Of the position, relative to the first one."""
    modelled: Doubles
    """Expected reward of the target policy's item here, by a model that has not seen the user."""
    user: npt.NDArray[np.int64]
    """Number of the user, from 0."""

    @property
    def weight(self) -> Doubles:
        """Importance weights."""
        return np.where(self.shown, 1.0 / self.propensity, 0.0)


@dataclass(frozen=True)
class Estimate:
    """An estimated mean reward per position."""

    value: float
    low: float
    high: float
    """Ends of the interval."""
    gain: float
    """The value minus the mean reward of what was shown."""
    gain_low: float
    gain_high: float


@dataclass(frozen=True)
class OffPolicy:
    """The estimates of a target policy, and whether the log supports them."""

    logged: float
    """Mean reward per position, as shown."""
    estimates: dict[str, Estimate]
    """`ips`, `snips` and `dr`."""
    support: float
    support_low: float
    support_high: float
    effective_rounds: float
    """(sum of w)^2 / sum of w^2: positions of the target policy that the log is worth (Kish 1965)."""
    rounds: int
    users: int


def estimate(rounds: Rounds, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> OffPolicy:
    """Return the estimates with percentile bootstrap intervals over users.

    Args:
        rounds: at least one.
        resamples: bootstrap samples.
        seed: of the resampling.
        level: of the intervals.

    """
    weight, seen = rounds.weight, rounds.examination
    corrected = rounds.modelled + weight * (rounds.reward - rounds.modelled)
    columns = np.stack(
        [np.ones_like(weight), rounds.logged, seen, weight * seen, weight * rounds.reward, corrected], axis=1
    )
    users, numbers = np.unique(rounds.user, return_inverse=True)
    sums = np.zeros((len(users), columns.shape[1]))
    np.add.at(sums, numbers, columns)
    point = _values(sums.sum(axis=0)[None, :])
    sampled = _values(_resampled(sums, resamples, seed))
    tail = 100 * (1 - level) / 2

    def ends(values: Doubles) -> tuple[float, float]:
        low, high = np.nanpercentile(values, [tail, 100 - tail])
        return float(low), float(high)

    estimates = {
        name: Estimate(
            float(point[name][0]),
            *ends(sampled[name]),
            float(point[name][0] - point["logged"][0]),
            *ends(sampled[name] - sampled["logged"]),
        )
        for name in ("ips", "snips", "dr")
    }
    squares = float((weight**2).sum())
    return OffPolicy(
        float(point["logged"][0]),
        estimates,
        float(point["support"][0]),
        *ends(sampled["support"]),
        float(weight.sum()) ** 2 / squares if squares else 0.0,
        len(weight),
        len(users),
    )


def _values(sums: Doubles) -> dict[str, Doubles]:
    """Return the estimates from sums over rounds [samples, columns], see `estimate`."""
    count, logged, seen, supported, weighted, corrected = sums.T
    support = supported / seen
    return {
        "logged": logged / count,
        "support": support,
        "ips": weighted / count,
        "snips": np.divide(weighted / count, support, out=np.full_like(support, np.nan), where=support > 0),
        "dr": corrected / count,
    }


def _resampled(sums: Doubles, resamples: int, seed: int) -> Doubles:
    """Return the totals of users drawn with replacement, [resamples, columns]."""
    rng, users = np.random.default_rng(seed), len(sums)
    block = max(_BLOCK_CELLS // users, 1)
    totals = [
        rng.multinomial(users, np.full(users, 1 / users), min(block, resamples - start)) @ sums
        for start in range(0, resamples, block)
    ]
    return np.concatenate(totals)
