"""A question about one item of one list, with the words of its request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from features.data.dataset import BoolArray
from ranking.catalogue.filter_clauses import clauses_of
from ranking.catalogue.filter_language import compile_filter, evaluate
from ranking.rerank.rules import Rules
from ranking.types import Request


@dataclass(frozen=True)
class Clause:
    """One of the conditions that a filter demands together."""

    text: str
    passes: BoolArray
    """[items] rows for which it is true."""


@dataclass(frozen=True)
class Question:
    """Why an item is in the list of a request, or why it is not."""

    request: Request
    """Its `allowed` is what all clauses pass; see `asked`."""
    row: int
    """The item."""
    clauses: tuple[Clause, ...] = ()
    """Of the request's filter."""
    caps: tuple[str, ...] = ()
    """The attribute of each cap of the rules."""
    boosts: tuple[str, ...] = ()
    """The filter of each boost of the rules."""

    def within(self, clauses: Sequence[Clause]) -> Question:
        """Return the question with other clauses of the filter."""
        return replace(
            self, request=replace(self.request, allowed=conjunction(clauses)), clauses=tuple(clauses)
        )

    @property
    def rules(self) -> Rules:
        """The rules of the request; without any effect where it has none."""
        return self.request.rules or Rules()


def conjunction(clauses: Sequence[Clause]) -> BoolArray | None:
    """Return the mask of the rows that every clause passes, [items]; None without a clause."""
    if not clauses:
        return None
    passed: BoolArray = np.logical_and.reduce([clause.passes for clause in clauses])
    return passed


def filter_clauses(frame: pl.DataFrame, expression: str) -> tuple[Clause, ...]:
    """Return the clauses of a filter over a catalogue's table; none for an empty filter.

    Raises:
        FilterError: as `ranking.catalogue.filter_language.compile_filter`.

    """
    if not expression.strip():
        return ()
    compile_filter(frame.schema, expression)  # errors name the column of the whole expression
    texts = clauses_of(expression)
    return tuple(Clause(text, evaluate(frame, compile_filter(frame.schema, text))) for text in texts)
