"""An explanation in plain words, the same in the terminal, in the browser and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ranking.insight.changes import Change, Kind
from ranking.insight.counterfactuals import Outcome
from ranking.insight.explanation import Explanation
from ranking.insight.obstacles import Obstacle, Rule
from ranking.insight.slate_steps import Step
from ranking.insight.source_places import SourcePlace
from ranking.insight.standing import Standing
from ranking.insight.trace import Stage, Trace

PASSED: Final = "passed"
LOST: Final = "lost"
UNREACHED: Final = "would be"
"""What happened to the item at a stage: it went on, it was lost there, or it was lost before and the stage
shows what would follow."""
_ORDER: Final = (Stage.limits, Stage.sources, Stage.ranking, Stage.offsets, Stage.rerank)
_TITLES: Final = {
    Stage.limits: "Limits",
    Stage.sources: "Candidate sources",
    Stage.ranking: "Ranking head",
    Stage.offsets: "Novelty and text query",
    Stage.rerank: "Re-ranking rules",
}
_SOURCES: Final = {
    "user_vector": "nearest to the shopper's taste",
    "item_to_item": "often chosen beside recent items",
    "text_neighbours": "texts like those of recent items",
    "repeat": "the shopper's own items",
    "popular": "popular now",
    "intent": "matches of the text query",
    "co_purchase": "what similar shoppers chose",
    "new_items": "new items nearest to the shopper",
}
_VERBS: Final = {
    "purchase": "buys", "click": "clicks on", "view": "looks at", "add_to_cart": "puts into the cart",
}  # fmt: skip
"""What a shopper does, by event kind; of others the kind is named."""
_RULES: Final = {
    "score": "by score",
    "boosts": "after boosts",
    "diversity": "after diversity",
    "caps": "after caps",
    "exploration": "after exploration",
    "pins": "after pins",
}


@dataclass(frozen=True)
class StageWords:
    """A stage in words."""

    name: str
    title: str
    outcome: str
    """`PASSED`, `LOST` or `UNREACHED`."""
    lines: tuple[str, ...]


@dataclass(frozen=True)
class ChangeWords:
    """A change in words, and what comes of it."""

    text: str
    """After "with": `a list of 25 items`."""
    place: int | None
    change: Change


@dataclass(frozen=True)
class Words:
    """An explanation in words."""

    headline: str
    stages: tuple[StageWords, ...]
    final: str
    """What became of the item, and at which stage."""
    changes: tuple[ChangeWords, ...]
    unchanged: str
    """What is said where no change works or is needed; empty otherwise."""


@dataclass(frozen=True)
class Names:
    """How rows are named."""

    ids: Sequence[str]
    title: Callable[[int], str]

    def of(self, row: int) -> str:
        """Return title and id of an item."""
        item_id, title = self.ids[row], self.title(row)
        return item_id if title == item_id else f"“{title}” ({item_id})"


def in_words(explanation: Explanation, names: Names) -> Words:
    """Return an explanation in words."""
    found = explanation.trace
    lines = {
        Stage.limits: _limits(found),
        Stage.sources: _sources(found),
        Stage.ranking: _ranking(found),
        Stage.offsets: _offsets(found),
        Stage.rerank: _rerank(found, names),
    }
    reached = len(_ORDER) if found.lost is None else _ORDER.index(found.lost)
    stages = tuple(
        StageWords(
            stage.value,
            _TITLES[stage],
            PASSED if n < reached else LOST if n == reached else UNREACHED,
            tuple(lines[stage]),
        )
        for n, stage in enumerate(_ORDER)
        if lines[stage]
    )
    changes, unchanged = _changes(explanation, names)
    item = names.of(found.question.row)
    if found.place is not None:
        headline = f"{item} is at place {found.place} of {len(found.items)}."
    else:
        headline = f"{item} is not in this list of {len(found.items)}."
    return Words(headline, stages, _final(found), changes, unchanged)


def _final(found: Trace) -> str:
    if found.place is not None:
        return f"In the list, at place {found.place} of {len(found.items)}."
    assert found.lost is not None
    reasons = {
        Stage.limits: "a rule keeps it out before anything is retrieved.",
        Stage.sources: "no source proposed it within its quota.",
        Stage.ranking: "its score is too low for the length of the list.",
        Stage.offsets: "the ranking head alone would list it; novelty or the text query put others ahead.",
        Stage.rerank: "by score it would be in the list; a rule of re-ranking moved it out.",
    }
    return f"Lost at the stage “{_TITLES[found.lost]}”: {reasons[found.lost]}"


def obstacle_words(obstacle: Obstacle) -> str:
    """Return a rule that keeps an item out, as a sentence."""
    detail = obstacle.detail
    sentences = {
        Rule.deleted: "The item is deleted.",
        Rule.filter: f"It does not pass the filter: {detail}" if detail else "It does not pass the filter.",
        Rule.excluded: "The request excludes it.",
        Rule.shown: "It is on an earlier page.",
        Rule.seen: "It is in the history, and seen items are left out (exclude_seen).",
        Rule.cap: f"The cap on {detail or 'its value'} is exhausted by pinned items and earlier pages.",
    }
    return sentences[obstacle.rule]


def _limits(found: Trace) -> list[str]:
    if found.pinned:
        return ["Pinned: filter, exclusions and deletion allow it, and no search is needed."]
    if found.obstacles:
        kept_out = [obstacle_words(obstacle) for obstacle in found.obstacles]
        return [*kept_out, "What follows is as if it alone were allowed."]
    parts = [f"passes {clause.text}" for clause in found.question.clauses]
    request = found.question.request
    if request.exclude_seen:
        parts.append("not in the history")
    return [f"Allowed: {', '.join(parts)}." if parts else "Allowed: nothing in the request keeps it out."]


def _sources(found: Trace) -> list[str]:
    if found.pinned:
        return ["A pin makes it a candidate, whatever the sources propose."]
    return [source_words(source) for source in _best_first(found.sources)]


def _best_first(sources: Sequence[SourcePlace]) -> list[SourcePlace]:
    def key(source: SourcePlace) -> tuple[bool, float]:
        return source.place is None, 0.0 if source.place is None else source.place / source.quota

    return sorted(sources, key=key)


def source_words(source: SourcePlace) -> str:
    """Return what a source did with an item, as a sentence."""
    what = _SOURCES.get(source.source)
    name = f"{source.source} ({what})" if what else source.source
    if source.place is None:
        return f"{name}: no, {source.reason}."
    if source.proposes:
        return f"{name}: proposed at place {source.place:,} of at most {source.quota:,}."
    return f"{name}: at place {source.place:,}, beyond its quota of {source.quota:,}."


def _ranking(found: Trace) -> list[str]:
    own, lines = found.standing, []
    if not found.candidate:
        given = f"had {found.assumed} proposed it" if found.assumed else "scored as a pinned item is"
        lines.append("Were it allowed:" if found.obstacles else f"It was no candidate; {given}:")
    score = f"Score {own.head:.4f}: place {own.head_place:,} of {own.candidates:,} candidates."
    if found.attribution is None:
        lines.append(f"{score} The bundle has no ranking head; sources decide the order.")
        return lines
    lines.append(score)
    lines.append(f"Probability of a click {own.p_click:.2%}, of a purchase {own.p_purchase:.2%}.")
    if own.last is not None:
        behind = own.last - own.score
        place = found.question.request.k
        if behind > 0:
            lines.append(f"{behind:.4f} behind the candidate at place {place:,}.")
        else:
            lines.append(f"{-behind:.4f} ahead of the first candidate behind place {place:,}.")
    return lines


def _offsets(found: Trace) -> list[str]:
    own, lines = found.standing, []
    if own.novelty:
        lines.append(f"Novelty adds {own.novelty:.4f}: it has no training events.")
    if own.fit is not None:
        lines.append(f"Relevance to the text query {own.fit:.4f}, which decides; taste changes it a little.")
    if lines or own.place != own.head_place:
        lines.append(f"Place {own.head_place:,} becomes {own.place:,}, with a score of {own.score:.4f}.")
    return lines


def _rerank(found: Trace, names: Names) -> list[str]:
    if len(found.steps) < 2:
        return []
    lines, before = [], found.steps[0]
    for step in found.steps[1:]:
        lines.append(_step(before, step, names))
        before = step
    if found.rounds > 1:
        lines.append(
            f"Caps left the list short, so more candidates were retrieved, {found.rounds - 1} times."
        )
    return lines


def _step(before: Step, step: Step, names: Names) -> str:
    def said(place: int | None) -> str:
        return "outside the list" if place is None else f"place {place:,}"

    if step.place == before.place:
        return f"{_RULES[step.rule].capitalize()}: {said(step.place)}, as before."
    text = f"{_RULES[step.rule].capitalize()}: {said(step.place)}, before it {said(before.place)}."
    if step.instead is not None and step.instead >= 0:
        text += f" There is {names.of(step.instead)} now."
    return text


def _changes(explanation: Explanation, names: Names) -> tuple[tuple[ChangeWords, ...], str]:
    found, changes = explanation.trace, explanation.changes
    if found.place is not None:
        made = tuple(_change(outcome, names) for outcome in changes.outcomes)
        return made, "" if made else "No single change that was tried moves it down."
    if not changes.liftable:
        return (), "No change of the request brings it in."
    lifted = " and ".join(lifted_words(obstacle) for obstacle in changes.lifted)
    if changes.lifted_place is not None:
        nothing = Change(Kind.nothing)
        return (ChangeWords(lifted, changes.lifted_place, nothing),), ""
    made = tuple(_again(_change(outcome, names, lifted), found) for outcome in changes.outcomes)
    if made:
        return made, ""
    pinned = f" A pin puts it at place {changes.pinned}." if changes.pinned else ""
    start = f"Even {lifted}, n" if lifted else "N"
    return (), (
        f"{start}one of the {changes.tried} lists that were made with a single change has it: a longer list, "
        "other rules, diversity, novelty, larger quotas, a boost, another event of the shopper."
        f"{pinned}"
    )


def lifted_words(obstacle: Obstacle) -> str:
    """Return the lifting of a rule, after "with"."""
    words = {
        Rule.filter: f"without the filter's “{obstacle.detail}”" if obstacle.detail else "without the filter",
        Rule.excluded: "without its exclusion",
        Rule.seen: "with exclude_seen=false",
        Rule.cap: f"without the cap on {obstacle.detail or 'its value'}",
    }
    return words.get(obstacle.rule, "")


def _change(outcome: Outcome, names: Names, lifted: str = "") -> ChangeWords:
    text = change_words(outcome.change, names)
    return ChangeWords(f"{lifted} and {text}" if lifted else text, outcome.place, outcome.change)


def _again(words: ChangeWords, found: Trace) -> ChangeWords:
    """Return a change with the word that the shopper has chosen the item before."""
    chooses = words.change.kind in (Kind.event, Kind.companion)
    if chooses and words.change.row in found.question.request.history.items:
        return replace(words, text=f"{words.text} again")
    return words


def change_words(change: Change, names: Names) -> str:
    """Return a change, as the beginning of a sentence."""
    value = change.value
    match change.kind:
        case Kind.k:
            return f"with a list of {value:.0f} (k={value:.0f})"
        case Kind.diversity:
            return f"with diversity={value:g}"
        case Kind.novelty:
            return f"with novelty={value:g}"
        case Kind.intent:
            return "without the text query"
        case Kind.cap:
            name = change.name or "its value"
            return f"with a cap of {value:.0f} on {name}" if value else f"without the cap on {name}"
        case Kind.pin:
            return f"without the pin of {names.of(change.row)}"
        case Kind.other_boost:
            return f"without the boost of {change.name}" if change.name else "without the boost of others"
        case Kind.exploration:
            return "without exploration"
        case Kind.boost:
            return f"with a boost of {value:g} for it"
        case Kind.quota:
            boost = f" and a boost of {change.boost:g} for it" if change.boost else ""
            return f"with candidates.{change.name}={value:.0f}{boost}"
        case Kind.event:
            return f"if the shopper {_VERBS.get(change.name, f'has a {change.name} of')} it"
        case Kind.companion:
            return (
                f"if the shopper {_VERBS.get(change.name, f'has a {change.name} of')} {names.of(change.row)}"
            )
        case Kind.without_event:
            return f"had the shopper not chosen {names.of(change.row)}"
    return "without a change"


def standing_numbers(own: Standing) -> dict[str, float | int | None]:
    """Return the numbers of a standing by name."""
    return {
        "candidates": own.candidates, "head_score": own.head, "head_place": own.head_place,
        "p_click": own.p_click, "p_purchase": own.p_purchase, "novelty": own.novelty, "fit": own.fit,
        "score": own.score, "place": own.place, "score_of_last_place": own.last,
    }  # fmt: skip
