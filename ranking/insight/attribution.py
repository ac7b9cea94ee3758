"""How much each group of features moved a score: exact Shapley values, and deletion as their check.

The value of a coalition of groups is the mean score of the item with the coalition's features its own and the
others those of a background candidate, over candidates of the same list (interventional Shapley values,
Lundberg and Lee, NeurIPS 2017, arXiv:1705.07874; grouped as in Owen, 1977). So the shares add up to the
item's score less the mean score of the background: what makes the item better or worse than the average
candidate of this list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from features.data.dataset import FloatArray, LongArray
from ranking.insight.standing import Scored
from ranking.recommender import Recommender
from ranking.scoring.ranker import Ranker
from ranking.stages import Stages

BACKGROUND: Final = 64
"""Candidates whose mean is the baseline, spread evenly over the list's scores."""
MOST_GROUPS: Final = 14
"""Groups that are explained apart; the rest, the least different ones, are explained as one."""
REST: Final = "all other features"
_ROWS: Final = 16_384
"""Feature rows scored at a time."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Share:
    """What a group of features contributes to a score."""

    label: str
    """What the group describes, see `features.candidates.contract.Block`."""
    points: float
    """Shapley value, in units of the score."""
    deleted: float
    """What the score loses where the group's features alone are those of the background."""
    features: tuple[tuple[str, float, float], ...]
    """Of each feature: name, the item's value, the mean of the background."""


@dataclass(frozen=True)
class Attribution:
    """The score of an item, divided among groups of features."""

    score: float
    baseline: float
    """Mean score of the background."""
    background: int
    """Its candidates."""
    shares: tuple[Share, ...]
    """Largest first, by absolute value, without groups in which the item is like the background. They add
    up to `score - baseline`."""


def attribute(recommender: Recommender, stages: Stages, scored: Scored, row: int) -> Attribution | None:
    """Return what moved the score of the ranking head; None for a bundle without one.

    Args:
        recommender: that made the list.
        stages: of a block with a single request.
        scored: its candidates, with the item among them.
        row: the item.

    """
    ranker = recommender.ranker
    if ranker is None:
        return None
    features = recommender.head_features(
        stages.filtered.batch, scored.retrieved.candidates, stages.users, scored.retrieved.best
    )[0]  # [candidates, features]
    rows, head = scored.ranked.candidates.rows[0], scored.ranked.head[0]
    others = np.flatnonzero((rows >= 0) & (rows != row))
    if len(others) == 0:
        return None
    others = others[np.argsort(-head[others], kind="stable")]
    spread = np.unique(np.linspace(0, len(others) - 1, min(BACKGROUND, len(others))).round().astype(np.int64))
    background = features[others[spread]]
    places = {name: place for place, name in enumerate(ranker.features)}
    groups = {
        label: np.array([places[name] for name in names if name in places], dtype=np.int64)
        for label, names in recommender.layout.groups.items()
    }
    return attribution(ranker, groups, features[int(scored.columns[0])], background)


def attribution(
    ranker: Ranker, groups: Mapping[str, LongArray], item: FloatArray, background: FloatArray
) -> Attribution:
    """Divide a score among groups of features.

    Args:
        ranker: the ranking head.
        groups: columns of each group by its label; together every column once.
        item: features of the item, [features].
        background: features of other candidates, [background, features].

    """
    players = _players(groups, item, background)
    values = _coalitions(ranker, list(players.values()), item, background)
    points, whole = shapley(values), len(values) - 1
    shares = [
        Share(
            label,
            float(points[n]),
            float(values[whole] - values[whole ^ (1 << n)]),
            tuple(
                (ranker.features[c], float(item[c]), float(background[:, c].mean(dtype=np.float64)))
                for c in columns.tolist()
            ),
        )
        for n, (label, columns) in enumerate(players.items())
    ]
    shares.sort(key=lambda share: -abs(share.points))
    return Attribution(float(values[whole]), float(values[0]), len(background), tuple(shares))


def _players(
    groups: Mapping[str, LongArray], item: FloatArray, background: FloatArray
) -> dict[str, LongArray]:
    """Return the groups in which the item differs from the background, at most `MOST_GROUPS` of them."""
    differs = np.abs(background - item).sum(axis=0) > 0
    players = {label: columns for label, columns in groups.items() if differs[columns].any()}
    if len(players) <= MOST_GROUPS:
        return players
    changes = {label: int(differs[columns].sum()) for label, columns in players.items()}
    order = sorted(players, key=lambda label: -changes[label])
    kept = {label: players[label] for label in order[: MOST_GROUPS - 1]}
    return {**kept, REST: np.concatenate([players[label] for label in order[MOST_GROUPS - 1 :]])}


def _coalitions(
    ranker: Ranker, players: Sequence[LongArray], item: FloatArray, background: FloatArray
) -> Doubles:
    """Return the value of every coalition, [2 ** players]; bit n of the index is player n."""
    count = 1 << len(players)
    values = np.empty(count)
    owner = np.zeros((len(players), len(item)), dtype=np.bool_)
    for n, columns in enumerate(players):
        owner[n, columns] = True
    step = max(_ROWS // len(background), 1)
    for start in range(0, count, step):
        members = np.arange(start, min(start + step, count))
        inside = (members[:, None] >> np.arange(len(players))) & 1
        own = (inside @ owner) > 0  # [coalitions, features]
        rows = np.where(own[:, None, :], item, background).astype(np.float32)
        values[members] = ranker.logits(rows)[..., 0].astype(np.float64).mean(axis=1)
    return values


def shapley(values: Doubles) -> Doubles:
    """Return the Shapley value of each player of a game.

    Args:
        values: of every coalition, [2 ** players]; bit n of the index is player n.

    Returns:
        Each player's mean contribution over all orders of joining, [players]; they add up to the value of all
        players less that of none.

    """
    players = len(values).bit_length() - 1
    coalitions = np.arange(len(values))
    sizes = np.array([int(c).bit_count() for c in coalitions])
    # |S|! (n - |S| - 1)! / n!, the share of orders in which exactly S comes before a player outside of it
    weights = np.array([1.0 / (players * math.comb(players - 1, size)) for size in range(players)])
    found = np.empty(players)
    for n in range(players):
        outside = coalitions[(coalitions >> n) & 1 == 0]
        found[n] = weights[sizes[outside]] @ (values[outside | (1 << n)] - values[outside])
    return found
