"""Filter expressions over item attributes: text -> polars expression -> boolean mask over the catalogue.

The language follows https://google.aip.dev/160 where it can:
`category = "SHOES" AND price < 50 AND in_stock`, `OR`, `NOT`, parentheses, `= != < <= > >=`, `attribute IN
("a", "b")`, `tags:"sale"` (a list contains the value, a text contains it ignoring case), `brand:*` (has a
value) and a true/false attribute alone. Names that are not plain words go between backticks. Tests of a
missing value are neither true nor false (SQL's three-valued logic), so an item without a price matches
neither `price < 50` nor `NOT price < 50`.
"""

from __future__ import annotations

import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Final, NoReturn

import numpy as np
import polars as pl
from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from conf.errors import closest
from features.data import schema
from features.data.dataset import BoolArray

MAX_CHARS: Final = 2000
MAX_DEPTH: Final = 32
"""Deepest nesting of parentheses and NOTs."""
MAX_TERMS: Final = 100
"""Most tests in one expression."""
ENTRY_BYTES: Final = 512
"""Overhead of a cached mask beside itself and its expression."""
_NAMED: Final = 20
"""Known attributes that an error message lists."""

_GRAMMAR: Final = r"""
?start: either
?either: both (_OR both)*
?both: negatable (_AND negatable)*
?negatable: _NOT negatable -> negation
          | "(" either ")"
          | test
?test: name OP literal -> comparison
     | name _IN _values -> membership
     | name _NOT _IN _values -> exclusion
     | name ":" literal -> has
     | name ":" "*" -> present
     | name -> flag
_values: "(" literal ("," literal)* ")" | "[" literal ("," literal)* "]"
!name: NAME | QUOTED_NAME
!literal: STRING | NUMBER | TRUE | FALSE | NAME
_AND.2: /and\b/i
_OR.2: /or\b/i
_NOT.2: /not\b/i
_IN.2: /in\b/i
TRUE.2: /true\b/i
FALSE.2: /false\b/i
NAME: /[^\W\d]\w*(\.\w+)*/
QUOTED_NAME: /`[^`]+`/
STRING: /"(\\.|[^"\\])*"|'(\\.|[^'\\])*'/s
NUMBER: /[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?/
OP: "=" | "==" | "!=" | "<=" | ">=" | "<" | ">"
%ignore /\s+/
"""
_PARSER: Final = Lark(_GRAMMAR, parser="lalr", propagate_positions=True, maybe_placeholders=False)

_EXPECTED: Final = {
    "NAME": "an attribute",
    "LPAR": "'('",
    "RPAR": "')'",
    "LSQB": "'['",
    "RSQB": "']'",
    "COMMA": "','",
    "COLON": "':'",
    "STAR": "'*'",
    "OP": "= != < <= > >=",
    "_AND": "AND",
    "_OR": "OR",
    "_NOT": "NOT",
    "_IN": "IN",
    "STRING": "text in quotes",
    "NUMBER": "a number",
    "TRUE": "true or false",
    "$END": "the end",
}


class FilterError(ValueError):
    """A filter that cannot be used; `column` counts characters from 1."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(f"column {column}: {message}")
        self.column = column


class AttributeKind(Enum):
    """What an attribute can be compared with."""

    string = "text in quotes"
    number = "a number"
    boolean = "true or false"
    time = 'an ISO date or time in quotes, for example "2024-05-31"'
    list = "a value with ':'"


def _kind(dtype: pl.DataType) -> AttributeKind | None:
    """Return how values of a column are compared, or None where they cannot be."""
    if isinstance(dtype, (pl.String, pl.Categorical, pl.Enum)):
        return AttributeKind.string
    if dtype.is_numeric():
        return AttributeKind.number
    if isinstance(dtype, pl.Boolean):
        return AttributeKind.boolean
    if isinstance(dtype, (pl.Date, pl.Datetime)):
        return AttributeKind.time
    if isinstance(dtype, pl.List) and _kind(_inner(dtype)) in (AttributeKind.string, AttributeKind.number):
        return AttributeKind.list
    return None


def _inner(dtype: pl.List) -> pl.DataType:
    """Return the type of a list's elements, as an instance."""
    inner = dtype.inner
    return inner if isinstance(inner, pl.DataType) else inner()


def attribute_kinds(columns: Mapping[str, pl.DataType]) -> dict[str, AttributeKind]:
    """Return which columns filters may refer to: the item id and every attribute of a comparable type."""
    kinds = {name: _kind(dtype) for name, dtype in columns.items() if name != schema.TEXT}
    return {name: kind for name, kind in kinds.items() if kind is not None}


class _Compiler:
    """Compiles a parse tree into a polars expression that is true, false or null per item."""

    def __init__(self, columns: Mapping[str, pl.DataType], kinds: dict[str, AttributeKind]) -> None:
        self._columns = columns
        self._kinds = kinds
        self._terms = 0

    def compile(self, node: Tree[Token], depth: int = 0) -> pl.Expr:
        """Compile a node; `depth` bounds this recursion, the parser itself does not recurse."""
        column = 1 if node.meta.empty else node.meta.start_pos + 1
        if depth > MAX_DEPTH:
            raise FilterError(f"nested deeper than {MAX_DEPTH} levels", column)
        rule = str(node.data)
        if rule == "either":
            return pl.any_horizontal([self.compile(child, depth + 1) for child in trees(node)])
        if rule == "both":
            return pl.all_horizontal([self.compile(child, depth + 1) for child in trees(node)])
        if rule == "negation":
            return ~self.compile(trees(node)[0], depth + 1)
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise FilterError(f"more than {MAX_TERMS} tests; use IN for many values", column)
        name, kind = self._attribute(trees(node)[0])
        if rule == "present":
            return self._column(name).is_not_null()
        if rule == "flag":
            if kind is not AttributeKind.boolean:
                raise FilterError(
                    f"attribute '{name}' is not true/false; compare it with {kind.value}", column
                )
            return self._column(name)
        literals = [token_of(child) for child in trees(node)[1:]]
        if rule == "has":
            return self._has(name, kind, literals[0])
        if kind is AttributeKind.list:
            raise FilterError(f"attribute '{name}' is a list; test it with {name}:VALUE", column)
        if rule in ("membership", "exclusion"):
            expression, values = self._operands(name, kind, literals)
            inside = expression.is_in(values)
            return inside if rule == "membership" else ~inside
        return self._comparison(name, kind, str(node.children[1]), literals[0])

    def _attribute(self, node: Tree[Token]) -> tuple[str, AttributeKind]:
        token = token_of(node)
        name = str(token).strip("`")
        if name not in self._kinds:
            known = sorted(self._kinds)
            listed = ", ".join(known[:_NAMED]) + (
                f", and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
            )
            raise FilterError(
                f"unknown attribute '{name}'{closest(name, known)}; known: {listed}", _position(token)
            )
        return name, self._kinds[name]

    def _column(self, name: str) -> pl.Expr:
        """Return the column with NaN as missing."""
        column = pl.col(name)
        return column.fill_nan(None) if self._columns[name].is_float() else column

    def _comparison(self, name: str, kind: AttributeKind, operator: str, literal: Token) -> pl.Expr:
        if kind is AttributeKind.boolean and operator not in ("=", "==", "!="):
            raise FilterError(f"attribute '{name}' is true/false; only = and != apply", _position(literal))
        expression, values = self._operands(name, kind, [literal])
        value = pl.lit(values[0])
        comparisons = {
            "=": expression == value,
            "==": expression == value,
            "!=": expression != value,
            "<": expression < value,
            "<=": expression <= value,
            ">": expression > value,
            ">=": expression >= value,
        }
        return comparisons[operator]

    def _operands(
        self, name: str, kind: AttributeKind, literals: Sequence[Token]
    ) -> tuple[pl.Expr, pl.Series]:
        """Return column and values cast to a common type."""
        column, dtype = self._column(name), self._columns[name]
        if kind is AttributeKind.string:
            return column.cast(pl.String), pl.Series([text_of(name, t) for t in literals], dtype=pl.String)
        if kind is AttributeKind.boolean:
            return column, pl.Series([boolean_of(name, t) for t in literals], dtype=pl.Boolean)
        if kind is AttributeKind.time:
            times = [epoch_micros(name, t) for t in literals]
            return column.cast(pl.Datetime("us")).dt.epoch("us"), pl.Series(times, dtype=pl.Int64)
        return _numbers(column, dtype, [number_of(name, t) for t in literals])

    def _has(self, name: str, kind: AttributeKind, literal: Token) -> pl.Expr:
        if kind is AttributeKind.string:
            needle = re.escape(text_of(name, literal))
            return pl.col(name).cast(pl.String).str.contains(f"(?i){needle}")
        dtype = self._columns[name]
        if not isinstance(dtype, pl.List):
            raise FilterError(
                f"':' tests lists and texts; attribute '{name}' needs an operator like =", _position(literal)
            )
        inner = _inner(dtype)
        if _kind(inner) is AttributeKind.string:
            return pl.col(name).cast(pl.List(pl.String)).list.contains(text_of(name, literal))
        return pl.col(name).cast(pl.List(pl.Float64)).list.contains(rounded(number_of(name, literal), inner))


def _numbers(column: pl.Expr, dtype: pl.DataType, values: list[int | float]) -> tuple[pl.Expr, pl.Series]:
    """Compare integers as integers where both sides are; everything else as doubles."""
    whole = all(isinstance(v, int) and abs(v) < 2**63 for v in values)
    if whole and dtype.is_integer() and not isinstance(dtype, (pl.UInt64, pl.Int128)):
        return column.cast(pl.Int64), pl.Series(values, dtype=pl.Int64)
    return column.cast(pl.Float64), pl.Series([rounded(v, dtype) for v in values], dtype=pl.Float64)


def rounded(value: int | float, dtype: pl.DataType) -> float:
    """Round as the column did, so that 19.99 equals a price stored in single precision."""
    if not isinstance(dtype, pl.Float32):
        return float(value)
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def trees(node: Tree[Token]) -> list[Tree[Token]]:
    """Return the child nodes of a node."""
    return [child for child in node.children if isinstance(child, Tree)]


def token_of(node: Tree[Token]) -> Token:
    """Return the single token of a `name` or `literal` node."""
    token = node.children[0]
    assert isinstance(token, Token)
    return token


def _position(token: Token) -> int:
    """Return where a token starts, in characters from 1, line breaks included."""
    return (token.start_pos or 0) + 1


def _mismatch(name: str, kind: AttributeKind, token: Token) -> NoReturn:
    hint = f'; put text in quotes: "{token}"' if token.type == "NAME" else ""
    raise FilterError(f"attribute '{name}' needs {kind.value}, not {token}{hint}", _position(token))


def text_of(name: str, token: Token) -> str:
    """Return the value of a literal that an attribute of texts is compared with."""
    if token.type != "STRING":
        _mismatch(name, AttributeKind.string, token)
    return re.sub(r"\\(.)", r"\1", str(token)[1:-1], flags=re.DOTALL)


def boolean_of(name: str, token: Token) -> bool:
    """Return the value of a literal that a true/false attribute is compared with."""
    if token.type not in ("TRUE", "FALSE"):
        _mismatch(name, AttributeKind.boolean, token)
    return token.type == "TRUE"


def number_of(name: str, token: Token) -> int | float:
    """Return the value of a literal that a numeric attribute is compared with."""
    if token.type != "NUMBER":
        _mismatch(name, AttributeKind.number, token)
    text = str(token)
    return int(text) if re.fullmatch(r"[+-]?\d{1,30}", text) else float(text)


def epoch_micros(name: str, token: Token) -> int:
    """Return microseconds since 1970; a time without zone is UTC."""
    if token.type != "STRING":
        _mismatch(name, AttributeKind.time, token)
    try:
        moment = datetime.fromisoformat(str(token)[1:-1])
    except ValueError:
        _mismatch(name, AttributeKind.time, token)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds


def parse(expression: str) -> Tree[Token]:
    """Return the parse tree of a filter; raises a FilterError for a syntax error."""
    try:
        return _PARSER.parse(expression)
    except UnexpectedCharacters as error:
        start = error.pos_in_stream or 0
        if expression[start] in "\"'`":
            raise FilterError(f"the quote {expression[start]} is never closed", start + 1) from None
        raise FilterError(f"unexpected character '{expression[start]}'", start + 1) from None
    except UnexpectedToken as error:
        accepted = set(error.accepts or error.expected)
        if "STRING" in accepted:
            accepted.discard("NAME")  # in the grammar only for the message that text needs quotes
        ends = error.token.type == "$END"
        found = "the expression ends here" if ends else f"unexpected '{error.token}'"
        expected = ", ".join(_EXPECTED[terminal] for terminal in _EXPECTED if terminal in accepted)
        column = len(expression) + 1 if ends else _position(error.token)
        raise FilterError(f"{found}; expected {expected}", column) from None


def compile_filter(columns: Mapping[str, pl.DataType], expression: str) -> pl.Expr:
    """Compile a filter to a polars expression over these columns that is true or false for every item.

    Raises:
        FilterError: syntax, unknown attribute, wrong type, or an expression beyond the limits of this module.
    """
    if len(expression) > MAX_CHARS:
        raise FilterError(f"longer than {MAX_CHARS} characters", MAX_CHARS + 1)
    tree = parse(expression)
    return _Compiler(columns, attribute_kinds(columns)).compile(tree).fill_null(False)


def evaluate(frame: pl.DataFrame, compiled: pl.Expr) -> BoolArray:
    """Return which rows of a table pass a compiled filter, [rows]."""
    passed = frame.select(compiled.alias("pass"))["pass"]
    return np.array(passed.to_numpy(), dtype=np.bool_)


class MaskCache:
    """LRU cache of filter masks by catalogue version and expression; thread-safe."""

    def __init__(self, max_bytes: int = 64 * 2**20) -> None:
        """Limit masks, one byte per item, and their keys to `max_bytes` in total."""
        self._max_bytes = max_bytes
        self._bytes = 0
        self._masks: OrderedDict[tuple[str, str], BoolArray] = OrderedDict()
        self._lock = threading.Lock()

    def cached(self, version: str, expression: str) -> BoolArray | None:
        """Return a cached mask, None if there is none."""
        with self._lock:
            mask = self._masks.get((version, expression))
            if mask is not None:
                self._masks.move_to_end((version, expression))
            return mask

    def mask(self, version: str, frame: pl.DataFrame, expression: str) -> BoolArray:
        """Return which items of a table pass, [items], read-only.

        Raises:
            FilterError: as `compile_filter`.
        """
        found = self.cached(version, expression)
        if found is not None:
            return found
        return self.keep(version, expression, evaluate(frame, compile_filter(frame.schema, expression)))

    def keep(self, version: str, expression: str, mask: BoolArray) -> BoolArray:
        """Cache a mask, which becomes read-only; return it."""
        mask.flags.writeable = False
        with self._lock:
            if (version, expression) not in self._masks:
                self._masks[version, expression] = mask
                self._bytes += _cost(expression, mask)
            while self._bytes > self._max_bytes and len(self._masks) > 1:
                (_, oldest), its_mask = self._masks.popitem(last=False)
                self._bytes -= _cost(oldest, its_mask)
        return mask


def _cost(expression: str, mask: BoolArray) -> int:
    """Return the bytes of an entry; of small catalogues the expression is most of it."""
    return mask.nbytes + sys.getsizeof(expression) + ENTRY_BYTES
