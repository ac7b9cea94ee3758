"""Filters of the project's language as Milvus expressions.

A translation never leaves out an item that passes the filter; it may let others through, because every
returned row is checked against the filter's mask. So a condition that Milvus cannot test the same way is left
out where others are demanded beside it. NOT is pushed down to the comparisons, which have complements: then a
missing value is excluded by both, as in the language, whatever Milvus makes of the negation of a null.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Final

from lark import Token, Tree

from features.data import schema
from ranking.catalogue.filter_language import (
    AttributeKind,
    boolean_of,
    epoch_micros,
    number_of,
    parse,
    rounded,
    text_of,
    token_of,
    trees,
)
from ranking.milvus.fields import ITEM, AttributeField

_OPPOSITE: Final = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_ESCAPES: Final = str.maketrans(
    {"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\b": r"\b", "\f": r"\f"}
)
_LITERAL: Final = re.compile(r'"(?:[^"\\]|\\.)*"|(?<![\w.])-?\d[\w.]*(?:[+-]\d+)?')
"""A text, or a number that is no part of a name."""
_EXACT_WHOLE: Final = 2**53
"""Whole numbers beyond this are compared as rounded doubles by the language."""


class UntranslatableError(ValueError):
    """A condition that Milvus does not test as the filter language does; the message names it."""


def translate(fields: Sequence[AttributeField], expression: str) -> str:
    """Return a Milvus expression that every item passes which passes a filter; empty where that is all items.

    Args:
        fields: attributes of the collection.
        expression: a filter that `ranking.catalogue.filter_language.compile_filter` accepts.

    """
    return _Translator(fields).superset(parse(expression))


def untranslatable(fields: Sequence[AttributeField], expression: str) -> list[str]:
    """Return the conditions of a filter that Milvus does not test, each with the reason.

    Conditions are named by attribute and operator, without the values, which may be words of a shopper. A
    list obeys them nevertheless, see `ranking.milvus.searcher`.
    """
    translator = _Translator(fields)
    translator.superset(parse(expression))
    return list(dict.fromkeys(translator.refused))


class _Translator:
    """Translates parse trees; collects what it had to leave out."""

    def __init__(self, fields: Sequence[AttributeField]) -> None:
        self._fields = {field.name: field for field in fields}
        self.refused: list[str] = []

    def superset(self, node: Tree[Token], negated: bool = False) -> str:
        """Return an expression that every item passes which passes the node; empty for all items."""
        rule = str(node.data)
        if rule == "negation":
            return self.superset(trees(node)[0], not negated)
        if rule in ("both", "either"):
            parts = [self.superset(child, negated) for child in trees(node)]
            if (rule == "both") != negated:
                return " and ".join(f"({part})" for part in parts if part)
            return " or ".join(f"({part})" for part in parts) if all(parts) else ""
        try:
            return self._test(node, rule, negated)
        except UntranslatableError as error:
            self.refused.append(f"{_named(node, rule, negated)}: {error}")
            return ""

    def _test(self, node: Tree[Token], rule: str, negated: bool) -> str:
        name = str(token_of(trees(node)[0])).strip("`")
        literals = [token_of(child) for child in trees(node)[1:]]
        if name == schema.ITEM_ID:
            return self._texts(name, ITEM, rule, node, literals, negated)
        field = self._fields.get(name)
        if field is None:
            raise UntranslatableError(f"the collection has no field for '{name}'")
        if rule == "present":
            return f"{field.field} is {'null' if negated else 'not null'}"
        if rule == "flag":
            return f"{field.field} == {'false' if negated else 'true'}"
        if rule == "has":
            return self._has(field, literals[0], negated)
        if field.kind is AttributeKind.string:
            return self._texts(name, field.field, rule, node, literals, negated)
        if field.kind is AttributeKind.boolean and rule == "comparison":
            other = (_operator(node) == "!=") != negated
            return f"{field.field} == {str(boolean_of(name, literals[0]) != other).lower()}"
        if field.kind is AttributeKind.boolean:
            values = [str(boolean_of(name, literal)).lower() for literal in literals]
        elif field.kind is AttributeKind.time:
            values = [str(epoch_micros(name, literal)) for literal in literals]
        elif rule == "comparison":
            return _numeric(field, _operator(node), number_of(name, literals[0]), negated)
        else:
            values = [_plain(field, number_of(name, literal)) for literal in literals]
        return _compared(field.field, rule, node, values, negated)

    def _texts(
        self,
        name: str,
        field: str,
        rule: str,
        node: Tree[Token],
        literals: Sequence[Token],
        negated: bool,
    ) -> str:
        if rule == "present":
            return "" if not negated else f"{field} == ''"
        if rule == "has":
            raise UntranslatableError("Milvus compares texts with their case")
        return _compared(field, rule, node, [_quoted(text_of(name, t)) for t in literals], negated)

    def _has(self, field: AttributeField, literal: Token, negated: bool) -> str:
        if field.kind is not AttributeKind.list:
            raise UntranslatableError("Milvus compares texts with their case")
        if negated:
            raise UntranslatableError("Milvus does not tell an empty list from none")
        if field.elements is AttributeKind.string:
            value = _quoted(text_of(field.name, literal))
        else:
            value = _double(rounded(number_of(field.name, literal), field.inner))
        return f"array_contains({field.field}, {value})"


def _named(node: Tree[Token], rule: str, negated: bool) -> str:
    """Return a condition without its values."""
    tests = {"membership": " IN (...)", "exclusion": " NOT IN (...)", "has": ':"..."', "present": ":*"}
    test = f" {node.children[1]} ..." if rule == "comparison" else tests.get(rule, "")
    return f"{'NOT ' * negated}{token_of(trees(node)[0])}{test}"


def _operator(node: Tree[Token]) -> str:
    operator = str(node.children[1])
    return "==" if operator == "=" else operator


def _compared(field: str, rule: str, node: Tree[Token], values: Sequence[str], negated: bool) -> str:
    """Return a comparison or a membership; `!=` and `not in` exclude missing values in the language."""
    if rule == "comparison":
        operator = _operator(node)
        return f"{field} {_OPPOSITE[operator] if negated else operator} {values[0]}"
    inside = (rule == "membership") != negated
    if not inside:
        return " and ".join(f"{field} != {value}" for value in values)
    return f"{field} in [{', '.join(values)}]"


def _numeric(field: AttributeField, operator: str, value: float, negated: bool) -> str:
    """Return a comparison of a number, of a whole column with the whole numbers beside the value."""
    if negated:
        operator = _OPPOSITE[operator]
    if not field.whole:
        return f"{field.field} {operator} {_double(rounded(value, field.dtype))}"
    if isinstance(value, int) and abs(value) < 2**63:
        return f"{field.field} {operator} {value}"
    if not math.isfinite(value) or abs(value) >= _EXACT_WHOLE:
        raise UntranslatableError("a whole number is compared with a huge or broken one")
    if value == int(value):
        return f"{field.field} {operator} {int(value)}"
    if operator in ("==", "!="):
        raise UntranslatableError("a whole number is compared with a broken one")
    down = math.floor(value)
    return f"{field.field} <= {down}" if operator in ("<", "<=") else f"{field.field} >= {down + 1}"


def _plain(field: AttributeField, value: float) -> str:
    """Return a number of a list of alternatives."""
    if not field.whole:
        return _double(rounded(value, field.dtype))
    if not isinstance(value, int) or abs(value) >= 2**63:
        raise UntranslatableError("a whole number is compared with a huge or broken one")
    return str(value)


def _double(value: float) -> str:
    if not math.isfinite(value):
        raise UntranslatableError("the number is beyond those of a double")
    return repr(value)


def _quoted(text: str) -> str:
    """Return a text of a filter as a literal."""
    if any(ord(c) < 32 for c in text):
        raise UntranslatableError("the text has control characters")
    return literal(text)


def literal(text: str) -> str:
    """Return a text as a literal of Milvus, whose escapes are those of C.

    Other control characters stand for themselves: Milvus Lite does not read their codes.
    """
    return f'"{text.translate(_ESCAPES)}"'


def without_values(made: str) -> str:
    """Return an expression of Milvus without its values, which may be words of a shopper."""
    return re.sub(r"\.\.\.(?:, \.\.\.)+", "...", _LITERAL.sub("...", made))


def is_one_of(item_ids: Iterable[str]) -> str:
    """Return the expression of the items with these ids, whatever characters are in them."""
    return f"{ITEM} in [{', '.join(map(literal, item_ids))}]"
