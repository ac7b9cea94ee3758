from __future__ import annotations

import json
from typing import Any

import pytest
from omegaconf import OmegaConf

from conf.commands import TABLE
from conf.composition.compose import to_typed, writable
from conf.errors import InputError, closest
from conf.schema import PipelineConfig

BAD = [
    ("prepare", "data.filters.max_user_events=-1"),
    ("prepare", "data.filters.kcore=-1"),
    ("prepare", "data.max_reject_fraction=1.5"),
    ("prepare", "data.max_text_chars=0"),
    ("prepare", "data.event_weights.click=-1"),
    ("run", "seed=-1"),
    ("run", "threads=-1"),
    ("run", "text_encoder.max_tokens=3"),
    ("run", "text_encoder.batch_size=0"),
    ("run", "text_encoder.accumulate=0"),
    ("run", "text_encoder.temperature=0"),
    ("run", "text_encoder.max_steps=-1"),
    ("run", "text_encoder.validate_every=0"),
    ("run", "text_encoder.dropout=1"),
    ("run", "text_encoder.field_dropout=1"),
    ("run", "text_encoder.token_dropout=-0.1"),
    ("run", "text_encoder.warmup_fraction=1"),
    ("run", "text_encoder.window=0"),
    ("run", "text_encoder.lora_rank=0"),
    ("run", "text_encoder.hard_negatives=-1"),
    ("run", "text_encoder.learning_rate=0"),
    ("run", "user_encoder.heads=0"),
    ("run", "user_encoder.dim=0"),
    ("run", "user_encoder.layers=0"),
    ("run", "user_encoder.max_length=0"),
    ("run", "user_encoder.epochs=0"),
    ("run", "user_encoder.dropout=1"),
    ("run", "user_encoder.negatives=-1"),
    ("run", "user_encoder.min_windows_per_epoch=-1"),
    ("run", "user_encoder.temperature=0"),
    ("run", "user_encoder.average=-1"),
    ("run", "ranker.average=-1"),
    ("run", "user_encoder.batch_size=0"),
    ("run", "index.nprobe=-1"),
    ("run", "candidates.neighbours=0"),
    ("run", "candidates.window=0"),
    ("run", "factors.dim=-1"),
    ("run", "factors.confidence=0"),
    ("run", "factors.regularisation=0"),
    ("run", "factors.iterations=0"),
    ("run", "ranker.epochs=0"),
    ("run", "ranker.hidden=[8,0]"),
    ("run", "ranker.dropout=1"),
    ("run", "ranker.max_queries=0"),
    ("run", "rerank.diversity=1.5"),
    ("run", "rerank.novelty=-0.1"),
    ("run", "evaluation.ks=[]"),
    ("run", "evaluation.ks=[10,0]"),
    ("run", "evaluation.ks=[101]"),
    ("run", "evaluation.bootstrap=0"),
    ("serve", "port=70000"),
    ("serve", "max_page_size=0"),
    ("serve", "max_batch=0"),
    ("serve", "max_message_bytes=1"),
    ("serve", "drain_seconds=-1"),
    ("recommend", "k=0"),
    ("recommend", "timeout=0"),
    ("demo", "k=0"),
]


def typed(command: str, overrides: list[str]) -> Any:
    """Set keys of a command's schema without looking through the files."""
    return to_typed(OmegaConf.merge(writable(TABLE[command].schema), OmegaConf.from_dotlist(overrides)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("command", "override"), BAD, ids=[o for _, o in BAD])
def test_a_value_out_of_range_is_named(command: str, override: str) -> None:
    with pytest.raises(InputError) as caught:
        typed(command, [override])
    assert override.split("=")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["user_encoder.dim=10", "user_encoder.heads=4"],
            "user_encoder.dim must be a multiple of user_encoder.heads",
        ),
        (["candidates.popular=-1"], "candidate quotas must be 0 or more"),
        (["candidates.new_items=-1"], "candidate quotas must be 0 or more"),
        (
            [
                f"candidates.{s}=0"
                for s in (
                    "user_vector",
                    "item_to_item",
                    "text_neighbours",
                    "repeat",
                    "popular",
                    "co_purchase",
                    "new_items",
                )
            ],
            "at least one candidate source needs a quota",
        ),
        (["split.test_fraction=0"], "split fractions must lie between 0 and 1"),
        (
            ["split.valid_fraction=0.5", "split.ranker_fraction=0.4"],
            "split fractions leave too little to train on",
        ),
    ],
)
def test_values_that_do_not_fit_together(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        typed("run", overrides)


@pytest.mark.parametrize(
    "override",
    [
        "text_encoder.max_steps=0",
        "text_encoder.patience=0",
        "user_encoder.negatives=0",
        "ranker.max_rows=0",
        "ranker.hidden=[]",
        "rerank.diversity=1",
        "candidates.user_vector=0",
        "candidates.co_purchase=0",
        "candidates.new_items=0",
        "user_encoder.average=0",
        "ranker.average=0",
        "factors.dim=0",
        "evaluation.max_users=0",
        "data.event_weights.view=0",
        "data.max_reject_fraction=0",
    ],
)
def test_values_at_the_border_are_fine(override: str) -> None:
    setting, _, text = override.partition("=")
    *path, name = setting.split(".")
    found = typed("run", [override])
    for part in path:
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    value = found[name] if isinstance(found, dict) else getattr(found, name)
    assert value == json.loads(text)


def test_the_closest_name_is_suggested_and_nothing_far_fetched() -> None:
    assert closest("user_idd", ["user_id", "item_id"]) == "; did you mean 'user_id'?"
    assert closest("timestamp", ["time", "title"]) == "; did you mean 'time'?"
    assert closest("item_id", ["title", "price"]) == ""
    assert closest("USER", ["user", "item"]) == "; did you mean 'user'?"
    assert closest("Customer_ID", ["customer_id", "sku"]) == "; did you mean 'customer_id'?"
    assert closest("zzz", ["user", "item"]) == ""
    assert closest("x", []) == ""


def test_a_gpu_by_number_is_not_several() -> None:
    with pytest.raises(InputError, match="^devices=0: device=cuda:1 names a single GPU; set device=cuda or"):
        PipelineConfig(device="cuda:1", devices=0)
    assert PipelineConfig(device="cuda:1").devices == 1
    assert PipelineConfig(device="cuda", devices=0).devices == 0
