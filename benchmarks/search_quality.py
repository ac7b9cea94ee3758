r"""Relevance of search on a published bundle, for anonymous and for known users.

    python -m benchmarks.search_quality --artifacts work/completejourney/artifacts \
        --types product_type --users 3

Queries are types, titles, ids, common and rare words of the catalogue, so that relevance is known: the first
ten of a type or common word should have it; an item of the title, of the id, or with the rare word should
come first. Types and common words are also intents of Recommend. A server is started on the bundle, or a
running one is used (`--address`), which must serve the same catalogue and histories.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from benchmarks.serving.processes import running
from features.data import schema
from features.data.dataset import Catalogue
from features.data.pipeline_step import write_atomically
from features.text.titles import title_column
from features.text.words import words
from ranking.bundle.bundle import HISTORIES
from ranking.bundle.catalogue_file import read_catalogue
from ranking.bundle.store import MANIFEST, VERSIONS, current_version
from shelfwise_client import Client, RecommendQuery, SearchQuery

FIRST: Final = 10
"""Cutoff of the lists."""
RARE: Final = (1, 3)
"""Fewest and most items with a rare word."""
USUAL: Final = (10, 200)
"""Fewest and most items with a common word."""
_LETTERS: Final = 4
"""Shortest word of a query."""


@dataclass(frozen=True)
class Question:
    """A query with its relevant items."""

    words: str
    right: frozenset[str]
    """Ids of the relevant items."""


Ask = Callable[[str, str], list[str]]
"""Returns the ids of the first items for a query and a user id, empty for an anonymous user."""


def type_questions(catalogue: Catalogue, column: str, count: int, seed: int) -> list[Question]:
    """Return queries of attribute values that at least ten items have."""
    groups = catalogue.frame.drop_nulls(column).group_by(column).agg(pl.col(schema.ITEM_ID)).sort(column)
    full = groups.filter(pl.col(schema.ITEM_ID).list.len() >= FIRST)
    return [Question(str(value), frozenset(ids)) for value, ids in _drawn(full, count, seed).iter_rows()]


def title_questions(catalogue: Catalogue, column: str, count: int, seed: int) -> list[Question]:
    """Return queries of entire titles; all items of a title are relevant."""
    groups = catalogue.frame.drop_nulls(column).group_by(column).agg(pl.col(schema.ITEM_ID)).sort(column)
    worded = groups.filter(pl.col(column).str.contains(r"\p{L}"))
    return [Question(str(title), frozenset(ids)) for title, ids in _drawn(worded, count, seed).iter_rows()]


def id_questions(catalogue: Catalogue, count: int, seed: int) -> list[Question]:
    """Return queries of item ids."""
    rows = np.random.default_rng(seed).permutation(len(catalogue))[:count]
    return [Question(catalogue.ids[row], frozenset([catalogue.ids[row]])) for row in rows]


def word_questions(catalogue: Catalogue, owners: tuple[int, int], count: int, seed: int) -> list[Question]:
    """Return queries of words, in singular or plural, within a range of item counts."""
    having: dict[str, set[str]] = {}
    for item_id, text in zip(catalogue.ids, catalogue.texts, strict=True):
        for word in set(words(text)):
            having.setdefault(word, set()).add(item_id)
    least, most = owners
    found = sorted(
        word
        for word, ids in having.items()
        if least <= len(ids) <= most and word.isalpha() and len(word) >= _LETTERS
    )
    drawn = np.random.default_rng(seed).permutation(len(found))[:count]
    return [Question(found[place], frozenset(having[found[place]])) for place in sorted(drawn)]


def _drawn(table: pl.DataFrame, count: int, seed: int) -> pl.DataFrame:
    places = np.sort(np.random.default_rng(seed).permutation(table.height)[:count])
    return table[places]


def share_right(questions: Sequence[Question], ask: Ask, user: str) -> float:
    """Return precision@10 over all queries."""
    shares = [
        sum(item in q.right for item in ask(q.words, user)[:FIRST]) / min(FIRST, len(q.right))
        for q in questions
    ]
    return float(np.mean(shares)) if shares else float("nan")


def first_right(questions: Sequence[Question], ask: Ask, user: str) -> float:
    """Return the share of queries whose first item is relevant."""
    hits = [any(item in q.right for item in ask(q.words, user)[:1]) for q in questions]
    return float(np.mean(hits)) if hits else float("nan")


def known_users(artifacts: Path, count: int, seed: int) -> list[str]:
    """Return sampled users with at least five events."""
    histories = pl.scan_parquet(artifacts / HISTORIES)
    counts = histories.group_by(schema.USER_ID).len().filter(pl.col("len") >= 5).sort(schema.USER_ID)
    users = counts.collect()[schema.USER_ID].to_list()
    drawn = np.random.default_rng(seed).permutation(len(users))[:count]
    return [str(users[place]) for place in drawn]


def measure(
    client: Client, catalogue: Catalogue, users: Sequence[str], types: Sequence[str], title: str, count: int,
    seed: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return one row per kind of query: results of an anonymous user, and means over known users."""

    def search(words: str, user: str) -> list[str]:
        query = SearchQuery(words, user_id=user, page_size=FIRST, fields=("item_id",))
        return [item.item_id for item in client.search_items(query).items]

    def recommend(words: str, user: str) -> list[str]:
        query = RecommendQuery(user_id=user, intent=words, page_size=FIRST, fields=("item_id",))
        return [item.item_id for item in client.recommend(query).items]

    cases: list[tuple[str, Sequence[Question], Ask, Callable[[Sequence[Question], Ask, str], float]]] = []
    for column in types:
        questions = type_questions(catalogue, column, count, seed)
        cases.append((f"{column}, share of the first ten", questions, search, share_right))
        cases.append((f"{column} as an intent, share of the first ten", questions, recommend, share_right))
    usual, rare = (word_questions(catalogue, owners, count, seed) for owners in (USUAL, RARE))
    cases += [
        (f"exact {title}, first", title_questions(catalogue, title, count, seed), search, first_right),
        ("exact id, first", id_questions(catalogue, count, seed), search, first_right),
        ("usual word, share of the first ten", usual, search, share_right),
        ("usual word as an intent, share of the first ten", usual, recommend, share_right),
        ("rare word, first", rare, search, first_right),
        ("rare word, share of those", rare, search, share_right),
    ]
    rows = []
    for name, posed, ask, score in cases:
        began = time.perf_counter()
        anybody = score(posed, ask, "")
        each = [score(posed, ask, user) for user in users]
        seconds = (time.perf_counter() - began) / max(len(posed) * (1 + len(users)), 1)
        rows.append(
            {
                "what": name, "questions": len(posed), "anybody": anybody,
                "known": float(np.mean(each)), "least": min(each), "milliseconds": 1000 * seconds,
            }
        )  # fmt: skip
    return rows


def table(rows: Sequence[dict[str, Any]], heading: str) -> Table:
    """Return the results as a table."""
    shown = Table(title=heading)
    for name in ("what", "questions", "anybody", "known users", "worst of them", "known / anybody", "ms"):
        shown.add_column(name)
    for row in rows:
        ratio = row["known"] / row["anybody"] if row["anybody"] else float("nan")
        shown.add_row(
            row["what"], str(row["questions"]), f"{row['anybody']:.3f}", f"{row['known']:.3f}",
            f"{row['least']:.3f}", f"{ratio:.3f}", f"{row['milliseconds']:.1f}",
        )  # fmt: skip
    return shown


@contextmanager
def _asked(options: argparse.Namespace) -> Iterator[str]:
    """Yield the address of a server; one that was started for this is stopped afterwards."""
    if options.address:
        yield options.address
        return
    command = [sys.executable, "-m", "shelfwise", "serve", f"artifacts={options.artifacts}", "port=0"]
    with running(command, options.output.with_suffix(".log")) as server:
        yield server.address


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifacts", type=Path, required=True, help="the store that is served")
    parser.add_argument("--types", nargs="*", default=[], help="attributes whose values are types of items")
    parser.add_argument("--title", help="attribute with the titles; by default the one that is shown")
    parser.add_argument("--users", type=int, default=3, help="known users to ask as")
    parser.add_argument("--questions", type=int, default=120, help="questions of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--address", help="a running server; without it one is started")
    parser.add_argument("--output", type=Path, default=Path("work/benchmarks/search.json"))
    options = parser.parse_args(arguments)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    version = current_version(options.artifacts)
    catalogue = read_catalogue(options.artifacts, version)
    manifest = json.loads((options.artifacts / VERSIONS / version / MANIFEST).read_text())
    title = options.title or title_column(catalogue.attributes) or manifest["template"]["text_fields"][0]
    users = known_users(options.artifacts, options.users, options.seed)
    with _asked(options) as address, Client(address, timeout=30.0) as client:
        rows = measure(client, catalogue, users, options.types, title, options.questions, options.seed)
    Console().print(table(rows, f"{version}: {len(catalogue):,} items, {len(users)} known users"))
    result = {"version": version, "items": len(catalogue), "users": len(users), "rows": rows}
    write_atomically(options.output, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
