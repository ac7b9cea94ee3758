"""Logged lists, from the events that servers have recorded, beside the lists of a target policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from conf.errors import InputError, closest
from features.data import schema
from ranking.off_policy.click_model import attraction, examination
from ranking.off_policy.estimators import Rounds

_USER, _ITEM, _KIND = schema.USER_ID, schema.ITEM_ID, schema.EVENT
_LIST, _POSITION, _PROPENSITY = "request_id", "list_position", "propensity"
_NEEDED: Final = (_USER, _ITEM, _KIND, _LIST, _POSITION, _PROPENSITY)
_REWARD, _TARGET = "reward", "target"


@dataclass(frozen=True)
class Log:
    """The rounds of a log, and what was left out of it."""

    rounds: Rounds
    impressions: int
    """All impressions of the file."""
    left_out: dict[str, int]
    """Impressions that are not used, by reason; no reason without any."""
    rewards: list[str]
    """Event kinds that count as a reward."""


def read_log(path: str, lists: pl.DataFrame, rewards: Sequence[str]) -> Log:
    """Return the positions of explored lists, each with the item of the target policy.

    Lists without exploration say nothing about other items, so they are left out, as are those of users for
    whom the target policy has no list. A reward is an event of the same user, list and item.

    Args:
        path: table of events, as `export-events` writes it.
        lists: of the target policy: `user_id`, `rank` and `item_id`.
        rewards: event kinds; empty: every kind of the file but impressions.

    Raises:
        InputError: an unreadable file, a missing column, an unknown kind, or nothing to estimate from.

    """
    events = _events(path)
    kinds = sorted(events[_KIND].unique().to_list())
    for kind in rewards:
        if kind not in kinds or kind == schema.IMPRESSION:
            raise InputError(f"rewards: {path} has no event '{kind}'{closest(kind, kinds)}; it has {kinds}")
    chosen = list(rewards) or [kind for kind in kinds if kind != schema.IMPRESSION]
    every = events.filter(pl.col(_KIND) == schema.IMPRESSION)
    if every.is_empty():
        raise InputError(f"events: {path} has no impressions; record an `impression` for each item shown")
    known = every.filter(pl.all_horizontal(pl.col(_LIST, _POSITION, _PROPENSITY).is_not_null()))
    once = known.unique([_USER, _LIST, _POSITION], keep="first", maintain_order=True)
    explored = once.filter(pl.col(_PROPENSITY).min().over(_USER, _LIST) < 1.0)
    shown = explored.join(lists.select(_USER).unique(), on=_USER, how="semi", maintain_order="left")
    stages = {
        "without the list's attribution token and position": len(every) - len(known),
        "repeated": len(known) - len(once),
        "of lists without exploration": len(once) - len(explored),
        "of users without a list": len(explored) - len(shown),
    }
    left_out = {reason: count for reason, count in stages.items() if count}
    if shown.is_empty():
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
        raise InputError(
            f"events: none of the {len(every):,} impressions of {path} can be used: {reasons}; lists need "
            "rules.exploration, impressions their attribution_token and list_position"
        )
    earned = events.filter(pl.col(_KIND).is_in(chosen) & pl.col(_LIST).is_not_null())
    earned = earned.select(_USER, _LIST, _ITEM, pl.lit(1.0).alias(_REWARD)).unique()
    shown = shown.join(earned, on=[_USER, _LIST, _ITEM], how="left", maintain_order="left")
    shown = shown.with_columns(pl.col(_REWARD).fill_null(0.0))
    return Log(_rounds(shown, lists), len(every), left_out, chosen)


def _events(path: str) -> pl.DataFrame:
    """Return the columns that estimates need."""
    try:
        found = pl.read_parquet_schema(path)
        for name in _NEEDED:
            if name not in found:
                raise InputError(
                    f"events: {path} has no column '{name}'; make the file with `shelfwise export events`"
                )
        return pl.read_parquet(path, columns=list(_NEEDED))
    except FileNotFoundError:
        raise InputError(
            f"events: no file {path}; make it with `shelfwise export events output={path}`"
        ) from None
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"events: {path} cannot be read ({reason}); make the file with `shelfwise export events`"
        ) from error


def _rounds(shown: pl.DataFrame, lists: pl.DataFrame) -> Rounds:
    """Return a round for every shown position that the user's list of the target policy has, too."""
    position = shown[_POSITION].to_numpy().astype(np.int64)
    seen = examination(shown[_REWARD].to_numpy(), position, shown[_PROPENSITY].to_numpy())
    shown = shown.with_columns(
        pl.Series("examination", seen[position]),
        (pl.col(_USER).rank("dense").cast(pl.Int64) - 1).alias("user"),
    )
    target = lists.select(_USER, pl.col("rank").cast(pl.Int64).alias(_POSITION), pl.col(_ITEM).alias(_TARGET))
    page = shown.select(
        _USER,
        _LIST,
        pl.col(_ITEM).alias(_TARGET),
        pl.col(_REWARD, _PROPENSITY, "examination").name.suffix("_there"),
    ).unique([_USER, _LIST, _TARGET], keep="first")
    rows = (
        shown.select(_USER, _LIST, _POSITION, _REWARD, "examination", "user")
        .join(target, on=[_USER, _POSITION], how="inner", maintain_order="left")
        .join(page, on=[_USER, _LIST, _TARGET], how="left", maintain_order="left")
    )
    if rows.is_empty():
        raise InputError("predictions: no list has a rank that was shown; ranks count from 1")
    codes = pl.concat([shown[_ITEM], rows[_TARGET]]).rank("dense").to_numpy().astype(np.int64) - 1
    attracted = attraction(
        shown[_REWARD].to_numpy(), shown["user"].to_numpy(), codes[: len(shown)],
        shown["examination"].to_numpy(), int(codes.max()) + 1,
    )  # fmt: skip
    user, here = rows["user"].to_numpy(), rows["examination"].to_numpy()
    moved = pl.col(f"{_REWARD}_there") * pl.col("examination") / pl.col("examination_there")
    return Rounds(
        logged=rows[_REWARD].to_numpy(),
        shown=rows[f"{_PROPENSITY}_there"].is_not_null().to_numpy(),
        reward=rows.select(moved.fill_null(0.0)).to_series().to_numpy(),
        propensity=rows[f"{_PROPENSITY}_there"].fill_null(1.0).to_numpy(),
        examination=here,
        modelled=here * attracted[user % 2, codes[len(shown) :]],
        user=user,
    )
