from __future__ import annotations

import numpy as np
from scipy import sparse

from ranking.lint.near_copies import near_copies


def sets_of(members: list[set[int]], width: int) -> sparse.csr_matrix:
    dense = np.zeros((len(members), width), dtype=np.int8)
    for row, elements in enumerate(members):
        dense[row, sorted(elements)] = 1
    return sparse.csr_matrix(dense)


def test_near_copies_are_those_of_the_exact_comparison() -> None:
    """Against all pairs: sets of 20 elements, every fourth a copy with at most two elements changed."""
    rng = np.random.default_rng(0)
    members: list[set[int]] = []
    for row in range(200):
        if row % 4 == 3:
            copy = set(members[row - 1])
            for element in list(copy)[: row % 3]:
                copy.discard(element)
                copy.add(int(rng.integers(400)))
            members.append(copy)
        else:
            members.append({int(e) for e in rng.choice(400, size=20, replace=False)})
    expected = [
        next((a for a in range(b) if len(members[a] & members[b]) >= 0.9 * len(members[a] | members[b])), -1)
        for b in range(200)
    ]
    found = near_copies(sets_of(members, 400), 5, 0.9)
    assert found.tolist() == expected
    assert sum(row >= 0 for row in expected) > 20


def test_small_and_empty_sets_are_not_compared() -> None:
    members: list[set[int]] = [{1, 2}, {1, 2}, set(), set(), {1, 2, 3, 4, 5}, {1, 2, 3, 4, 5}]
    assert near_copies(sets_of(members, 10), 5, 0.9).tolist() == [-1, -1, -1, -1, -1, 4]
    assert near_copies(sets_of(members[:1], 10), 1, 0.9).tolist() == [-1]
