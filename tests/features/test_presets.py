"""Presets of platforms and data sets, each on a small file in the real layout (tests/data)."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.compose import compose_command
from tests.features.conftest import Prepared, Shop

FILES = Path(__file__).parents[1] / "data"


@pytest.fixture
def preset(shop: Shop) -> Preset:
    return Preset(shop)


class Preset:
    """Prepares files of tests/data as the command line would."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    def __call__(self, name: str, *overrides: str) -> Prepared:
        config = compose_command("prepare", [f"data={name}", *overrides])
        return self.shop.prepare(config.data)


def test_hm(preset: Preset) -> None:
    folder = FILES / "hm"
    done = preset("hm", f"data.items={folder}/articles.csv", f"data.events={folder}/transactions_train.csv")
    assert done.table("events").select("user_id", "item_id", "event", "timestamp", "value").rows() == [
        ("00a1c5", "0110065001", "purchase", 1556755200, 0.0508305084745762),
        ("00a1c5", "0599580017", "purchase", 1556755200, 0.0305084745762711),
        ("17fe90", "0110065002", "purchase", 1556841600, 0.0508305084745762),
    ]
    assert done.table("items").select("item_id", "item_text").rows()[2] == (
        "0599580017",
        "Garden parasol. Product type: Other accessories. Product group: Accessories. Colour: Pink. "
        "Pattern: Stripe. Department: Home. Section: Home Outdoor",
    )
    assert done.info["rejects"] == {"items": {}, "events": {}}
