"""The conditions that a filter demands together."""

from __future__ import annotations

from lark import Token, Tree

from ranking.catalogue.filter_language import parse


def clauses_of(expression: str) -> list[str]:
    """Return the conditions of a filter as it writes them; itself where it is a single one.

    An item passes the filter if and only if it passes each of them: `a AND (b OR c)` has `a` and `b OR c`.

    Raises:
        FilterError: a syntax error.

    """

    def parts(node: Tree[Token]) -> list[Tree[Token]]:
        if node.data != "both":
            return [node]
        return [part for child in node.children if isinstance(child, Tree) for part in parts(child)]

    return [expression[part.meta.start_pos : part.meta.end_pos] for part in parts(parse(expression))]


def joined(clauses: list[str]) -> str:
    """Return the filter that demands all of some clauses; empty without any."""
    return clauses[0] if len(clauses) == 1 else " AND ".join(f"({clause})" for clause in clauses)
