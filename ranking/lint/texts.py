"""Item texts and attributes that say what happened after the cut: sales, dates, co-purchases, answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import lsqr

from conf.schema import Severity
from features.data.dataset import FloatArray, IntArray, LongArray
from features.data.splits import Queries
from ranking.baselines.lists import descending, list_from_order, popularity_share, unit_rows
from ranking.lint.findings import Finding, Worth
from ranking.lint.material import Material, counts_before, cut_of, day, many, strings
from ranking.lint.word_vectors import without, word_vectors, words_of
from ranking.lint.worth import K, Yardstick

SALES = re.compile(
    r"(?i)\b(?:best[- ]?sell(?:er|ing)s?|top[- ]?sell(?:er|ing)s?|bestseller\w*|meistverkauft\w*|"
    r"(?:our|the) (?:number one|no\.? ?1)|most (?:popular|wanted|bought)|"
    r"(?:sales? ?rank|rank(?:ed)?) ?(?:no\.?|[:#]) ?#?\d[\d,.]*|"
    r"(?:over |more than )?\d[\d,.]*\+? ?(?:units? |copies |times )?"
    r"(?:sold|verkauft|vendus?|vendidos?|venduti)|"
    r"(?:sold|verkauft)[: ]+(?:over |more than |ca\. )?\d[\d,.]*|"
    r"\d[\d,.]*\+? (?:customer |verified |global )?"
    r"(?:reviews|ratings|bewertungen|avis|rese[nñ]as|recensioni)|"
    r"(?:rated|rating:?) \d(?:[.,]\d)?|\d(?:[.,]\d)? out of 5|"
    r"(?:bought|ordered|purchased|viewed) (?:by )?(?:over )?\d[\d,.]*\+?(?: people| customers| times)?|"
    r"sold out|trending(?: now)?)(?!\w)"
)
"""Phrases on sales, ranks and reviews."""
TOGETHER = re.compile(
    r"(?i)\b(?:(?:frequently|often|usually|customers?|people|also|who)[\w ,]{0,40}\b"
    r"(?:bought|viewed|ordered|purchased)"
    r"|(?:bought|ordered|purchased) (?:together|with)|pairs? with|goes? with)\b.*"
)
"""Phrases on what is bought with an item, to the end of the text."""
_DATE = re.compile(r"\b(20\d\d|19\d\d)-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])\b")
_LEAST = 30
"""Users with targets in both windows below which their texts are not compared."""
_NEARER = 1.3
"""Cosine to the test targets, as a multiple of that to the validation targets, above which it is reported."""
_Z = 5.0
"""Standard errors by which the two must differ."""


def sales_phrases(material: Material) -> Iterator[Finding]:
    """Find texts with phrases on sales, which are of the time of the export."""
    texts = material.dataset.catalogue.texts
    found = [(row, match.group(0)) for row, text in enumerate(texts) if (match := SALES.search(text))]
    if not found:
        return
    phrases = list(dict.fromkeys(phrase.lower().strip() for _, phrase in found))
    yield Finding(
        check="sales_in_text",
        severity=Severity.warning,
        title=f"{many(len(found), 'item text speaks', 'item texts speak')} of sales, ranks or reviews: "
        f"{strings(phrases)}",
        count=len(found),
        total=len(texts),
        unit="items",
        example=material.item(found[0][0]),
        meaning="Such a phrase is of the day on which the catalogue was exported. If that was after the "
        "cut, the text of an item says how well it sold in the test window.",
        fix="leave the field out of data.text_fields, or remove the phrases",
        measure=partial(_demand_worth, pattern=SALES),
    )


def _demand_worth(yardstick: Yardstick, pattern: re.Pattern[str]) -> Worth | None:
    """Compare demand predicted from words with the same after masking, as one list for all users."""
    material, queries = yardstick.material, yardstick.queries()
    texts = material.dataset.catalogue.texts

    def lists(given: list[str]) -> IntArray:
        share_of = popularity_share(_predicted(given, counts_before(material)))
        return list_from_order(
            descending(share_of), share_of, material.events, queries, K, material.exclude_seen
        )[0]

    return yardstick.compare(
        "items ranked by the demand that their words predict (ridge regression on training events), texts "
        "as they are against texts without these phrases",
        yardstick.measure(lists(texts), queries),
        yardstick.measure(lists(without(texts, pattern)), queries),
    )


def _predicted(texts: list[str], counts: LongArray) -> npt.NDArray[np.float64]:
    """Return the demand of each item predicted from its words, above 0, [items]."""
    occurrence, columns = words_of(texts)
    if not columns or not counts.any():
        return np.ones(len(texts), dtype=np.float64)
    bias = sparse.csr_matrix(np.ones((len(texts), 1), dtype=np.float32))
    design = sparse.hstack([occurrence, bias]).tocsr()
    sold = np.flatnonzero(counts)  # an item without events says nothing about its words
    weights = lsqr(design[sold], np.log1p(counts[sold]), damp=3.0, iter_lim=50)[0]
    predicted: npt.NDArray[np.float64] = np.exp(design @ weights)
    return predicted


def later_dates(material: Material) -> Iterator[Finding]:
    """Find texts with dates after the cut."""
    if not material.dataset.has_time:
        return
    cut = cut_of(material)
    texts = material.dataset.catalogue.texts
    found = []
    for row, text in enumerate(texts):
        for match in _DATE.finditer(text):
            try:
                written = datetime(int(match[1]), int(match[2]), int(match[3]), tzinfo=UTC)
            except ValueError:
                continue
            if written.timestamp() > cut:
                found.append((row, match.group(0)))
                break
    if found:
        yield Finding(
            check="dates_in_text",
            severity=Severity.warning,
            title=f"{many(len(found), 'item text has', 'item texts have')} a date after {day(cut)}, e.g. "
            f"{found[0][1]}",
            count=len(found),
            total=len(texts),
            unit="items",
            example=material.item(found[0][0]),
            meaning="The text was written, or changed, after the time whose recommendations are evaluated.",
            fix="take the texts as they were at the cut, or leave the field out of data.text_fields",
            measure=partial(blanked, rows=np.array([row for row, _ in found])),
            least=Severity.warning,
        )


def blanked(yardstick: Yardstick, rows: LongArray) -> Worth | None:
    """Compare nearest texts with the same where some items have no text."""
    vectors = yardstick.words.copy()
    vectors[rows] = 0.0
    return yardstick.compare(
        "nearest texts by words, texts as they are against none for these items (at most: honest words go, "
        "too)",
        yardstick.run(yardstick.material, yardstick.text(yardstick.words)),
        yardstick.run(yardstick.material, yardstick.text(vectors)),
    )


def bought_together(material: Material) -> Iterator[Finding]:
    """Find texts that say what is bought with an item."""
    texts = material.dataset.catalogue.texts
    found = [row for row, text in enumerate(texts) if TOGETHER.search(text)]
    if found:
        masked = without(texts, TOGETHER)
        yield Finding(
            check="co_purchases_in_text",
            severity=Severity.warning,
            title=f"{many(len(found), 'item text says', 'item texts say')} what is bought or viewed with "
            "the item",
            count=len(found),
            total=len(texts),
            unit="items",
            example=material.item(found[0]),
            meaning="Such lists are made from the events of the whole data set, test included: the text "
            "names the next purchase.",
            fix="leave the field out of data.text_fields, or remove the phrases",
            measure=partial(_masked, masked=masked),
        )


def _masked(yardstick: Yardstick, masked: list[str]) -> Worth | None:
    return yardstick.compare(
        "nearest texts by words, texts as they are against texts without these phrases",
        yardstick.run(yardstick.material, yardstick.text(yardstick.words)),
        yardstick.run(yardstick.material, yardstick.text(word_vectors(masked))),
    )


def nearer_answers(material: Material) -> Iterator[Finding]:
    """Find texts that are nearer to the test targets than to those of validation, for the same users."""
    test, valid = material.split.test, material.split.valid
    _, left, right = np.intersect1d(test.user, valid.user, return_indices=True)
    if len(left) < _LEAST:
        return
    vectors = unit_rows(word_vectors(material.dataset.catalogue.texts))
    asked, before = (_nearness(material, q.select(at), vectors) for q, at in ((test, left), (valid, right)))
    difference = asked - before
    error = max(float(difference.std()) / np.sqrt(len(difference)), 1e-9)
    if asked.mean() <= _NEARER * before.mean() or difference.mean() <= _Z * error:
        return
    at = int(np.argmax(difference))
    query = test.select(left[at : at + 1])
    yield Finding(
        check="answers_in_text",
        severity=Severity.serious,
        title=f"texts of histories are nearer to the test targets (cosine {asked.mean():.3f}) than to "
        "those of "
        f"validation ({before.mean():.3f})",
        count=int((difference > 0).sum()),
        total=len(difference),
        unit="users with targets in both windows",
        example=f"{material.user(int(query.user[0]))}, {material.item(int(query.targets[0]))}",
        meaning="Two neighbouring windows are equally hard. Texts that fit the later one better were "
        "written with its events at hand.",
        fix="take the texts as they were at the cut",
        measure=lambda yardstick: _against_validation(yardstick, vectors),
    )


def _nearness(material: Material, queries: Queries, vectors: FloatArray) -> npt.NDArray[np.float64]:
    """Return the mean cosine of a query's targets to its last known item, [queries]; 0 without a history."""
    events = material.events
    sizes = np.diff(queries.target_offsets)
    owner = np.repeat(np.arange(len(queries)), sizes)
    last = events.item[np.maximum(queries.end - 1, 0)]
    cosine = np.einsum("td,td->t", vectors[last[owner]], vectors[queries.targets])
    cosine[queries.targets == last[owner]] = 0.0  # an item that is bought again has its own text
    known = queries.end > events.offsets[queries.user]
    mean: npt.NDArray[np.float64] = np.bincount(owner, weights=cosine, minlength=len(queries)) / sizes * known
    return mean


def _against_validation(yardstick: Yardstick, vectors: FloatArray) -> Worth | None:
    """Compare nearest texts on the test queries with those on the validation queries of the same users."""
    material = yardstick.material
    valid = material.split.valid.select(np.isin(material.split.valid.user, yardstick.users))
    return yardstick.compare(
        "nearest texts by words, test queries against the validation queries of the same users",
        yardstick.run(material, yardstick.text(vectors)),
        yardstick.measure(yardstick.lists(material, valid, yardstick.text(vectors)), valid),
    )
