"""Copies across training and test: repeated rows, events under two ids, users that are copies of others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from scipy import sparse

from conf.schema import Severity
from features.data.dataset import BoolArray, LongArray
from features.data.histories import contains
from features.data.splits import Queries, ragged_ranges
from ranking.lint.findings import Finding, Worth
from ranking.lint.material import Material, many, share
from ranking.lint.near_copies import near_copies
from ranking.lint.worth import Yardstick

_LEAST_ITEMS = 5
"""Distinct items of users that are compared: shorter histories are equal by chance."""
_JACCARD = 0.9
_EXCESS = 1.5
"""Repeats among test targets, as a multiple of those among validation targets, above which copies are
suspected."""
_Z = 5.0
"""Standard errors by which the two rates must differ."""
_ONE_IN_A_HUNDRED = 0.01


def _keys(material: Material) -> LongArray:
    """Return user and item of each event as one number, [events]."""
    events = material.events
    keys: LongArray = events.user.astype(np.int64) * material.items + events.item
    return keys


def repeated_rows(material: Material) -> Iterator[Finding]:
    """Find rows equal in user, item, kind and time, and those of them that lie on both sides of a cut."""
    if not material.dataset.has_time:
        return
    events = material.events
    columns = (events.time, events.kind, _keys(material))
    order = np.lexsort(columns)
    same = np.ones(len(events), dtype=np.bool_)
    same[:1] = False
    for column in columns:
        same[1:] &= column[order[1:]] == column[order[:-1]]
    second = order[same]  # the later position of each pair of equals
    if not len(second):
        return
    first = order[np.flatnonzero(same) - 1]
    asked = events.offsets[1:].copy()
    asked[material.split.test.user] = material.split.test.end
    held = np.arange(len(events)) >= asked[events.user]
    both = held[second] & ~held[first]
    ids = "event_id" in material.columns.columns
    named = 0
    if ids:
        codes = material.columns["event_id"].rank("dense").fill_null(0).to_numpy()
        named = int((codes[second] != codes[first]).sum())
    crossing = int(both.sum())
    at = int(second[both][0] if crossing else second[0])
    queries = max(len(material.split.test), 1)
    severity = Severity.note
    if crossing:
        severity = Severity.serious if crossing >= _ONE_IN_A_HUNDRED * queries else Severity.warning
    where = f", {crossing:,} of them on both sides of the cut" if crossing else ", none across the cut"
    under = f"; {named:,} have different event ids" if ids else ""
    mask = np.ones(len(events), dtype=np.bool_)
    mask[second] = False
    yield Finding(
        check="repeated_rows",
        severity=severity,
        title=f"{many(len(second), 'event repeats', 'events repeat')} another one in user, item, kind and "
        f"time{where}{under}",
        count=len(second),
        total=len(events),
        unit="events",
        example=f"{material.user(int(events.user[at]))}, {material.item(int(events.item[at]))}",
        meaning="A row that is written twice is counted twice; where one is a target and the other is in the "
        "history, the answer is part of the question.",
        fix="data.filters.deduplicate=true counts equal rows once",
        measure=partial(_deduplicated, keep=mask),
        least=severity,
    )


def _deduplicated(yardstick: Yardstick, keep: BoolArray) -> Worth | None:
    return yardstick.changed(
        "item_knn, all rows against equal rows once", lambda material: material.keeping(keep)
    )


def _repeat_mask(material: Material, queries: Queries, keys: LongArray) -> BoolArray:
    """Return which targets are in the query's history, [targets]."""
    begin = material.events.offsets[queries.user]
    history = np.sort(keys[ragged_ranges(begin, queries.end - begin)])
    owner = np.repeat(queries.user.astype(np.int64), np.diff(queries.target_offsets))
    return contains(history, owner * material.items + queries.targets)


def copied_targets(material: Material) -> Iterator[Finding]:
    """Find test targets in the histories far more often than validation targets are."""
    keys = _keys(material)
    test, valid = (_repeat_mask(material, q, keys) for q in (material.split.test, material.split.valid))
    if not len(test) or not len(valid):
        return
    rate, usual = float(test.mean()), float(valid.mean())
    pooled = (test.sum() + valid.sum()) / (len(test) + len(valid))
    error = np.sqrt(max(pooled * (1 - pooled), 1e-12) * (1 / len(test) + 1 / len(valid)))
    if rate <= _EXCESS * usual + 0.01 or rate - usual <= _Z * error:
        return
    owner = np.repeat(material.split.test.user, np.diff(material.split.test.target_offsets))
    at = int(np.flatnonzero(test)[0])
    yield Finding(
        check="copied_targets",
        severity=Severity.serious,
        title=f"{share(rate, 1)} of the test targets are in the user's own history, {share(usual, 1)} of the "
        "validation targets",
        count=int(test.sum()),
        total=len(test),
        unit="test targets",
        example=f"{material.user(int(owner[at]))}, {material.item(int(material.split.test.targets[at]))}",
        meaning="People repeat themselves about equally often in two neighbouring windows. An excess in test "
        "looks as if test events had been copied into training.",
        fix="build the training rows from events before the cut alone, and compare row counts by day",
        measure=partial(_without_copies, kept=usual / rate),
        least=Severity.serious,
    )


def _without_copies(yardstick: Yardstick, kept: float) -> Worth | None:
    """Compare histories as they are with histories that have as many targets as those of validation.

    Args:
        yardstick: measures.
        kept: share of the repeated targets that stay in the histories, drawn with the seed: people repeat
            themselves, and only the excess is suspected.
    """
    material = yardstick.material
    test = material.split.test
    owner = np.repeat(test.user.astype(np.int64), np.diff(test.target_offsets))
    targets = np.sort(owner * material.items + test.targets)
    drawn = np.random.default_rng(yardstick.seed).random(len(targets)) >= kept
    honest = material.keeping(~(material.counted & contains(targets[drawn], _keys(material))))
    return yardstick.compare(
        "item_knn with own items allowed, all events against those without copies of targets, as many as "
        f"bring the share of repeats to that of validation (seed {yardstick.seed})",
        yardstick.run(material, exclude_seen=False),
        yardstick.run(honest, exclude_seen=False),
    )


def copied_users(material: Material) -> Iterator[Finding]:
    """Find users whose items are nearly those of another user."""
    events = material.events
    ones = np.ones(len(events), dtype=np.int8)
    sets = sparse.csr_matrix((ones, (events.user, events.item)), shape=(events.users, material.items))
    original = near_copies(sets, _LEAST_ITEMS, _JACCARD)
    copies = np.flatnonzero(original >= 0)
    if not len(copies):
        return
    origins = np.unique(original[copies])
    tested = int(np.isin(material.split.test.user, np.concatenate([copies, origins])).sum())
    many_tested = tested >= _ONE_IN_A_HUNDRED * max(len(material.split.test), 1)
    copy = int(copies[0])
    yield Finding(
        check="copied_users",
        severity=Severity.serious if many_tested else Severity.warning,
        title=f"{many(len(copies), 'user has', 'users have')} nearly the items of another user; test "
        "queries of "
        f"either: {tested:,}",
        count=len(copies),
        total=events.users,
        unit="users",
        example=f"{material.user(copy)} and {material.user(int(original[copy]))}: "
        f"{sets[copy].nnz} and {sets[int(original[copy])].nnz} distinct items",
        meaning="One person under two ids, a replayed import or a ring of accounts: what one of them does in "
        "test, the other has done in training.",
        fix="merge the ids where events are recorded, or leave the copies out",
        measure=partial(_without_copied_users, copies=copies, origins=origins),
        least=Severity.warning if many_tested else Severity.note,
        most=Severity.serious if many_tested else Severity.warning,
    )


def _without_copied_users(yardstick: Yardstick, copies: LongArray, origins: LongArray) -> Worth | None:
    """Compare, for the users that have a copy, a fit on all users with one without the copies."""
    material = yardstick.material
    test = material.split.test
    queries = test.select(np.isin(test.user, np.setdiff1d(origins, copies)))
    return _fitted_without(
        yardstick,
        queries,
        copies,
        "item_knn on the users that have a copy, fitted with and without the copies",
    )


def shared_sessions(material: Material) -> Iterator[Finding]:
    """Find sessions under two user ids, such as a visitor before and after signing in."""
    if "session_id" not in material.columns.columns:
        return
    session = material.columns["session_id"]
    codes = session.rank("dense").fill_null(0).to_numpy().astype(np.int64)
    pairs = np.unique(codes * material.events.users + material.events.user)
    owners = np.bincount((pairs // material.events.users)[pairs // material.events.users > 0])
    shared = np.flatnonzero(owners > 1)
    if not len(shared):
        return
    inside = np.isin(codes, shared)
    users = np.unique(material.events.user[codes == shared[0]])
    yield Finding(
        check="shared_sessions",
        severity=Severity.warning if len(shared) > _ONE_IN_A_HUNDRED * (owners > 0).sum() else Severity.note,
        title=f"{many(len(shared), 'session belongs', 'sessions belong')} to two or more users",
        count=len(shared),
        total=int((owners > 0).sum()),
        unit="sessions",
        example=" and ".join(material.user(int(user)) for user in users[:2]),
        meaning="A visit that is recorded under two ids, for instance before and after signing in, puts "
        "half of it in another user's training history.",
        fix="give all events of a session the id of the user who signed in",
        measure=partial(_without_sessions, inside=inside),
    )


def without_users(yardstick: Yardstick, left_out: LongArray, what: str) -> Worth | None:
    """Compare recall of the other users with and without the training events of some, [left out] rows."""
    queries = yardstick.queries()
    others = queries.select(~np.isin(queries.user, left_out))
    return _fitted_without(
        yardstick, others, left_out, f"item_knn on the other users, fitted with and without the {what}"
    )


def _fitted_without(yardstick: Yardstick, queries: Queries, left_out: LongArray, model: str) -> Worth | None:
    if not len(queries):
        return None
    material = yardstick.material
    end = material.split.state_end.copy()
    end[left_out] = material.events.offsets[:-1][left_out]
    as_is = yardstick.measure(yardstick.lists(material, queries), queries)
    without = yardstick.measure(yardstick.lists(material, queries, end=end), queries)
    return yardstick.compare(model, as_is, without)


def _without_sessions(yardstick: Yardstick, inside: BoolArray) -> Worth | None:
    return yardstick.changed(
        "item_knn, all events against those of other sessions", lambda material: material.keeping(~inside)
    )
