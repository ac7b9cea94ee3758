"""The last stage of a list: ranked candidates become items with scores, sources and reasons."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ranking.filtering import Filtered
from ranking.reasons import Evidence, explain
from ranking.rerank.slate import Slate
from ranking.sources import SourceRegistry
from ranking.stage_timing import timed
from ranking.stages import Ranked
from ranking.types import Reason, Recommendation, RecommendedItem, Request
from ranking.words.text_match import TextMatch, TextQuery


@timed("explain")
def explain_lists(
    filtered: Filtered,
    ranked: Ranked,
    slates: Sequence[Slate],
    evidence: Evidence,
    texts: TextMatch,
    sources: SourceRegistry,
    trained: bool,
    missed: Collection[str] = (),
) -> list[Recommendation]:
    """Describe the items of each list: scores, the source that is credited, and reasons where requested.

    Args:
        filtered: the requests.
        ranked: their candidates.
        slates: the slate of each list.
        evidence: what reasons are derived from.
        texts: matches items to intents.
        sources: the registry that decodes source masks.
        trained: whether the model has towers.
        missed: candidate sources whose search was not answered.

    """
    answers = []
    for query, (request, intent) in enumerate(zip(filtered.requests, filtered.intents, strict=True)):
        items = _items(request, ranked, query, slates[query], intent, evidence, texts, sources)
        answers.append(Recommendation(tuple(items), _degradation(request, trained, missed)))
    return answers


def _items(
    request: Request,
    ranked: Ranked,
    query: int,
    slate: Slate,
    intent: TextQuery | None,
    evidence: Evidence,
    texts: TextMatch,
    sources: SourceRegistry,
) -> list[RecommendedItem]:
    chosen = [item.candidate for item in slate.items]
    rows = ranked.candidates.rows[query, chosen]
    matches = [False] * len(chosen)
    if request.explain and intent is not None:
        matches = texts.matches(intent, rows).tolist()
    values = zip(
        slate.items,
        rows.tolist(),
        ranked.scores[query, chosen].tolist(),
        ranked.candidates.sources[query, chosen].tolist(),
        ranked.probabilities[query, chosen].tolist(),
        matches,
        strict=True,
    )
    items = []
    for item, row, score, mask, (click, purchase), fits in values:
        names = sources.proposed_by(mask)
        reasons = explain(row, names, request.history, evidence, fits) if request.explain else ()
        if request.explain and item.rule:
            reasons = (Reason(item.rule), *reasons)
        source = item.rule or names[0]
        items.append(RecommendedItem(row, score, click, purchase, source, reasons, item.propensity))
    return items


def _degradation(request: Request, trained: bool, missed: Collection[str]) -> str:
    """Return the degradation level, see `ranking.types.Recommendation`."""
    if len(request.history.items) == 0 and request.intent is None:
        return "popularity"
    if missed:
        return "candidates_unavailable"
    return "none" if trained else "text_only"
