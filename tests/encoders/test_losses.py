from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from encoders.losses import in_batch_softmax, sampled_softmax


def naive_in_batch(
    queries: Tensor,
    candidates: Tensor,
    positive: Tensor,
    temperature: float,
    log_q: Tensor | None,
    masked: Tensor | None,
    weights: Tensor | None,
) -> float:
    """The definition, one pair and one candidate at a time."""
    total = mass = 0.0
    for pair in range(len(queries)):
        target = int(positive[pair])
        terms: dict[int, float] = {}
        for candidate in range(len(candidates)):
            if masked is not None and bool(masked[pair, candidate]) and candidate != target:
                continue
            logit = float(queries[pair] @ candidates[candidate]) / temperature
            terms[candidate] = logit - (float(log_q[candidate]) if log_q is not None else 0.0)
        top = max(terms.values())
        partition = top + math.log(sum(math.exp(t - top) for t in terms.values()))
        weight = 1.0 if weights is None else float(weights[pair])
        total += weight * (partition - terms[target])
        mass += weight
    return total / mass


def test_in_batch_softmax_by_hand() -> None:
    queries = torch.tensor([[1.0, 0.0]])
    candidates = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss = in_batch_softmax(queries, candidates, torch.tensor([0]), temperature=0.5)
    # Logits 2 and 0: -log(e^2 / (e^2 + 1)).
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)


def test_log_q_by_hand() -> None:
    queries = torch.tensor([[1.0, 0.0]])
    candidates = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    log_q = torch.tensor([0.9, 0.1]).log()
    loss = in_batch_softmax(queries, candidates, torch.tensor([0]), temperature=1.0, log_q=log_q)
    # Equal cosines: the frequent positive has odds 1/0.9 against 1/0.1, so a probability of 0.1.
    assert loss.item() == pytest.approx(-math.log(0.1), abs=1e-6)


def test_masked_candidates_do_not_count_but_a_positive_always_does() -> None:
    queries = torch.tensor([[1.0, 0.0]])
    candidates = torch.tensor([[0.5, 0.0], [9.0, 0.0], [0.2, 0.0]])
    masked = torch.tensor([[True, True, False]])
    loss = in_batch_softmax(queries, candidates, torch.tensor([0]), temperature=1.0, masked=masked)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-0.3)), abs=1e-6)
    assert masked.tolist() == [[True, True, False]], "the caller's mask must not change"


def test_only_the_positive_left_costs_nothing() -> None:
    queries = torch.randn(2, 3)
    loss = in_batch_softmax(
        queries, queries, torch.tensor([0, 1]), temperature=0.1, masked=torch.ones(2, 2, dtype=torch.bool)
    )
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    pairs=st.integers(1, 5),
    count=st.integers(1, 6),
    seed=st.integers(0, 999),
    corrected=st.booleans(),
    hidden=st.booleans(),
    weighted=st.booleans(),
)
def test_in_batch_softmax_is_the_naive_loop(
    pairs: int, count: int, seed: int, corrected: bool, hidden: bool, weighted: bool
) -> None:
    torch.manual_seed(seed)
    queries, candidates = torch.randn(pairs, 4), torch.randn(count, 4)
    positive = torch.randint(count, (pairs,))
    log_q = torch.log_softmax(torch.randn(count), 0) if corrected else None
    masked = torch.rand(pairs, count) < 0.5 if hidden else None
    weights = torch.rand(pairs) + 0.1 if weighted else None
    loss = in_batch_softmax(
        queries, candidates, positive, temperature=0.3, log_q=log_q, masked=masked, weights=weights
    )
    naive = naive_in_batch(queries, candidates, positive, 0.3, log_q, masked, weights)
    assert loss.item() == pytest.approx(naive, rel=1e-4, abs=1e-4)


def test_weights_decide_whose_loss_counts() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    positive = torch.tensor([0, 0])

    def loss(weights: list[float]) -> float:
        return in_batch_softmax(
            queries, queries, positive, temperature=1.0, weights=torch.tensor(weights)
        ).item()

    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    assert loss([1.0, 0.0]) == pytest.approx(right, abs=1e-6)
    assert loss([0.0, 2.0]) == pytest.approx(wrong, abs=1e-6)
    assert loss([1.0, 3.0]) == pytest.approx((right + 3 * wrong) / 4, abs=1e-6)
    assert loss([0.0, 0.0]) == 0.0


def test_in_batch_gradients_pull_the_positive_and_leave_masked_candidates_alone() -> None:
    queries = torch.tensor([[1.0, 0.0]], requires_grad=True)
    candidates = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]], requires_grad=True)
    masked = torch.tensor([[False, False, True]])
    in_batch_softmax(queries, candidates, torch.tensor([0]), temperature=1.0, masked=masked).backward()  # type: ignore[no-untyped-call]
    assert candidates.grad is not None
    assert queries.grad is not None
    assert candidates.grad[0, 0] < 0 < candidates.grad[1, 0]
    assert candidates.grad[2].tolist() == [0.0, 0.0]
    assert torch.isfinite(queries.grad).all()


def test_sampled_softmax_by_hand() -> None:
    states = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    positives = torch.tensor([[1.0, 5.0], [7.0, 0.5]])
    negatives = torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    loss = sampled_softmax(
        states, positives, negatives, torch.zeros(2, 2, dtype=torch.bool), torch.tensor([1.0, 3.0]), 2.0
    )
    # Scores divided by 2: position 0 has .5 against 0 and 1.5, position 1 has .5 against 0 and 1.
    first = math.log(math.exp(0.5) + 1 + math.exp(1.5)) - 0.5
    second = math.log(math.exp(0.5) + 1 + math.exp(1.0)) - 0.5
    assert loss.item() == pytest.approx((first + 3 * second) / 4, abs=1e-6)


def test_sampled_softmax_corrects_for_how_often_an_item_is_drawn() -> None:
    states, positives = torch.zeros(1, 2), torch.zeros(1, 2)
    log_q = (torch.tensor([0.6]).log(), torch.tensor([0.1, 0.3]).log())
    loss = sampled_softmax(
        states, positives, torch.zeros(2, 2), torch.zeros(1, 2, dtype=torch.bool), torch.ones(1), 0.5, log_q
    )
    # Equal scores: odds 1/.6 against 1/.1 and 1/.3.
    assert loss.item() == pytest.approx(-math.log((1 / 0.6) / (1 / 0.6 + 1 / 0.1 + 1 / 0.3)), abs=1e-6)
    even = (torch.tensor([0.2]).log(), torch.tensor([0.2, 0.2]).log())
    states, items = torch.randn(1, 2), torch.randn(3, 2)
    collide, weights = torch.zeros(1, 2, dtype=torch.bool), torch.ones(1)
    plain = sampled_softmax(states, items[:1], items[1:], collide, weights, 0.5)
    same = sampled_softmax(states, items[:1], items[1:], collide, weights, 0.5, even)
    assert same.item() == pytest.approx(plain.item(), abs=1e-6), "uniform draws need no correction"


def test_a_drawn_target_is_no_negative_of_its_own_position() -> None:
    states = torch.randn(2, 4)
    items = torch.randn(3, 4)
    targets, drawn = torch.tensor([0, 1]), torch.tensor([0, 1, 2, 0])
    collide = targets[:, None] == drawn[None, :]
    loss = sampled_softmax(states, items[targets], items[drawn], collide, torch.ones(2), 1.0)
    expected = []
    for position, rest in ((0, [1, 2]), (1, [0, 2, 0])):
        scores = states[position] @ items.T
        logits = torch.stack([scores[targets[position]], *(scores[r] for r in rest)])
        expected.append(-torch.log_softmax(logits, 0)[0])
    assert loss.item() == pytest.approx(torch.stack(expected).mean().item(), abs=1e-5)


def test_sampled_softmax_over_every_item_is_full_softmax() -> None:
    states, items = torch.randn(5, 4), torch.randn(7, 4)
    targets = torch.tensor([0, 6, 3, 3, 1])
    collide = targets[:, None] == torch.arange(7)[None, :]
    loss = sampled_softmax(states, items[targets], items, collide, torch.ones(5), 1.0)
    assert loss.item() == pytest.approx(
        torch.nn.functional.cross_entropy(states @ items.T, targets).item(), abs=1e-5
    )


def test_sampled_softmax_gradients_are_finite_and_flow_to_everything() -> None:
    states = torch.randn(3, 4, requires_grad=True)
    positives = torch.randn(3, 4, requires_grad=True)
    negatives = torch.randn(5, 4, requires_grad=True)
    collide = torch.zeros(3, 5, dtype=torch.bool)
    collide[:, 0] = True
    sampled_softmax(states, positives, negatives, collide, torch.ones(3), 1.0).backward()  # type: ignore[no-untyped-call]
    for tensor in (states, positives, negatives):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
    assert negatives.grad is not None
    assert negatives.grad[0].abs().sum() == 0
    assert (negatives.grad[1:].abs().sum(1) > 0).all()


def test_no_position_at_all_costs_nothing() -> None:
    none = torch.zeros(0, 4)
    loss = sampled_softmax(
        none, none, torch.randn(3, 4), torch.zeros(0, 3, dtype=torch.bool), torch.zeros(0), 1.0
    )
    assert loss.item() == 0.0
