"""Ids that differ from the catalogue's in case or leading zeros."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from conf.composition.overrides import override

RULES = (("case",), ("zeros",), ("case", "zeros"))
"""Values of `data.match_ids`, the narrowest first."""
_DIFFERENCES = {
    ("case",): "in case alone",
    ("zeros",): "in leading zeros alone",
    ("case", "zeros"): "in case and leading zeros",
}
_MOST = 0.5
"""Least share of unknown ids that a rule matches to be named as the cause."""
_KEY, _SPELLED, _EXACT = "__key", "__spelled", "__exact"


def match_key(item_id: pl.Expr, rules: Sequence[str]) -> pl.Expr:
    """Return the key by which ids are compared: in lower case, without leading zeros, or both."""
    if "case" in rules:
        item_id = item_id.str.to_lowercase()
    return item_id.str.replace(r"^0+(.)", "$1") if "zeros" in rules else item_id


def _spellings(item_ids: pl.Series, rules: Sequence[str]) -> pl.DataFrame:
    """Return the catalogue's ids, `__spelled`, by their key, without keys that several items share."""
    keyed = pl.DataFrame({_SPELLED: item_ids}).with_columns(match_key(pl.col(_SPELLED), rules).alias(_KEY))
    return keyed.filter(pl.col(_KEY).is_unique())


def match_ids(frame: pl.LazyFrame, name: str, item_ids: pl.Series, rules: Sequence[str]) -> pl.LazyFrame:
    """Replace ids by the catalogue's id of the same key.

    Ids in the catalogue, and ambiguous ones, stay.

    Args:
        frame: the events.
        name: the column of ids.
        item_ids: ids of the catalogue, each once.
        rules: `data.match_ids`.
    """
    exact = pl.LazyFrame({name: item_ids}).with_columns(pl.lit(True).alias(_EXACT))
    joined = frame.with_columns(match_key(pl.col(name), rules).alias(_KEY))
    joined = joined.join(exact, on=name, how="left", maintain_order="left")
    joined = joined.join(_spellings(item_ids, rules).lazy(), on=_KEY, how="left", maintain_order="left")
    written = pl.when(pl.col(_EXACT)).then(name).otherwise(pl.coalesce(_SPELLED, name))
    return joined.with_columns(written.alias(name)).drop(_KEY, _EXACT, _SPELLED)


def rules_between(unknown: pl.Series, item_ids: pl.Series, least: float) -> tuple[tuple[str, ...], str, str]:
    """Return the narrowest rules that match more than a share of unknown ids to the catalogue's.

    Args:
        unknown: distinct ids of events that are not in the catalogue.
        item_ids: ids of the catalogue.
        least: the share.

    Returns:
        The rules with an unknown id and the catalogue's spelling of it, or nothing and empty strings.
    """
    for rules in RULES:
        keyed = unknown.to_frame("unknown").with_columns(match_key(pl.col("unknown"), rules).alias(_KEY))
        found = keyed.join(_spellings(item_ids, rules), on=_KEY, how="inner", maintain_order="left")
        if found.height and found.height > least * len(unknown):
            return rules, *found.select("unknown", _SPELLED).row(0)
    return (), "", ""


def matching_cause(unknown: pl.Series, item_ids: pl.Series) -> str:
    """Return a hint on how unknown ids differ, with the setting that matches them, or an empty string.

    Args:
        unknown: ids of rejected events.
        item_ids: ids of the catalogue.
    """
    distinct = unknown.drop_nulls().str.strip_chars().unique(maintain_order=True)
    rules, other, known = rules_between(distinct, item_ids, _MOST)
    if not rules:
        return ""
    return (
        f"ids differ from those of the items {_DIFFERENCES[rules]}, e.g. '{other}' and '{known}': "
        f"{override('data.match_ids', rules)} takes them for the same"
    )
