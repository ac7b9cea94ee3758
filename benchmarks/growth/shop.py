"""A generated shop of any size: items with texts, and events of users with interests and favourites.

A block of events depends on the seed and its number alone and is written before the next one is drawn, so
memory does not grow with the shop. The number of users grows with the events, as in a shop that wins
customers: the first events of a large shop are not those of a small one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

BLOCK: Final = 1_000_000
"""Events per file."""
_START: Final = 1_704_067_200
_YEAR: Final = 365 * 86_400
_CATEGORIES: Final = 400
_INTERESTS: Final = 3
"""Categories that a user is interested in."""
_FAVOURITES: Final = 4
"""Items of each interest that a user comes back to."""
_INTERESTED: Final = 0.8
"""Share of the events within the user's interests; the others follow popularity alone."""
_REPEATED: Final = 0.3
"""Share of these on favourites."""
_ZIPF: Final = 1.05
"""Exponent of item popularity (rank 1 is the most popular); the first ranks are flattened."""
_FLAT: Final = 20
_KINDS: Final = ("view", "add_to_cart", "purchase")
_SHARES: Final = (0.8, 0.12, 0.08)
_NOUNS: Final = (
    "boots", "jacket", "lamp", "kettle", "backpack", "notebook", "chair", "rug", "mug", "scarf", "bell",
    "puzzle", "tent", "headphones", "keyboard", "frying pan", "towel", "pillow", "drill", "garden hose",
)  # fmt: skip
_USES: Final = (
    "hiking", "children", "office", "travel", "winter", "outdoor", "kitchen", "running", "studio", "camping",
    "school", "garden", "party", "home", "beach", "workshop", "music", "cycling", "yoga", "fishing",
)  # fmt: skip
_LOOKS: Final = ("red", "blue", "green", "black", "white", "grey", "striped", "dotted", "plain", "golden")
_STUFFS: Final = (
    "cotton",
    "wool",
    "steel",
    "oak",
    "glass",
    "leather",
    "ceramic",
    "linen",
    "bamboo",
    "rubber",
)

Rows = npt.NDArray[np.int64]
Unit = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shop:
    """Size and seed of a generated shop."""

    items: int
    events: int
    events_per_user: int = 20
    seed: int = 0

    @property
    def users(self) -> int:
        """Users who may have events."""
        return max(self.events // self.events_per_user, 1)


def _mixed(values: npt.NDArray[np.uint64], salt: int) -> Unit:
    """Return a number in 0..1 for each value, the same each time (splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        mixed = values + np.uint64((salt + 1) * 0x9E3779B97F4A7C15 % (1 << 64))
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    unit: Unit = (mixed ^ (mixed >> np.uint64(31))) / float(1 << 64)
    return unit


@dataclass(frozen=True)
class Popularity:
    """Items in the order of their categories, and their cumulated popularity."""

    order: Rows  # [items] rows of the items, category by category
    cumulated: Unit  # [items + 1]
    starts: Rows  # [categories + 1] into `order`

    @classmethod
    def of(cls, shop: Shop) -> Popularity:
        """Draw categories and popularity ranks."""
        rng = np.random.default_rng([shop.seed, 1])
        rank = rng.permutation(shop.items)
        category = category_of(shop)
        order = np.lexsort((rank, category))
        weight = 1.0 / (rank[order] + _FLAT) ** _ZIPF
        starts = np.searchsorted(category[order], np.arange(_CATEGORIES + 1))
        return cls(order, np.concatenate([[0.0], np.cumsum(weight)]), starts)

    def draw(self, category: Rows, chance: Unit) -> Rows:
        """Return an item of each category by popularity; of any category where it is -1."""
        low = np.where(category < 0, 0.0, self.cumulated[self.starts[category]])
        high = np.where(category < 0, self.cumulated[-1], self.cumulated[self.starts[category + 1]])
        places = np.searchsorted(self.cumulated, low + chance * (high - low), side="right") - 1
        rows: Rows = self.order[np.clip(places, 0, len(self.order) - 1)]
        return rows


def category_of(shop: Shop) -> Rows:
    """Return the category of each item, [items]; every category has items in a shop of 400 or more."""
    return np.arange(shop.items, dtype=np.int64) % min(_CATEGORIES, shop.items)


def items_frame(shop: Shop) -> pl.DataFrame:
    """Return the items: id, title, category, brand and price."""
    rng = np.random.default_rng([shop.seed, 2])
    category = category_of(shop)
    noun, use = (
        np.array(_NOUNS)[category % len(_NOUNS)],
        np.array(_USES)[category // len(_NOUNS) % len(_USES)],
    )
    look, stuff = rng.choice(_LOOKS, shop.items), rng.choice(_STUFFS, shop.items)
    frame = pl.DataFrame(
        {
            "n": np.arange(shop.items),
            "look": look,
            "stuff": stuff,
            "noun": noun,
            "use": use,
            "brand": rng.integers(0, 2000, shop.items),
            "model": rng.integers(100, 1000, shop.items),
            "price": np.round(np.exp(rng.normal(3.0, 0.8, shop.items)), 2),
        }
    )
    return frame.select(
        pl.format("p{}", pl.col("n").cast(pl.String).str.zfill(9)).alias("item_id"),
        pl.format(
            "Brand {} {} {} {} for {}, model {}", "brand", "look", "stuff", "noun", "use", "model"
        ).alias("title"),
        pl.format("{} / {}", "use", "noun").alias("category"),
        pl.format("Brand {}", "brand").alias("brand"),
        "price",
    )


def events_block(shop: Shop, popularity: Popularity, block: int) -> pl.DataFrame:
    """Return the events of one block, in the order of their times."""
    first = block * BLOCK
    count = min(BLOCK, shop.events - first)
    rng = np.random.default_rng([shop.seed, 3, block])
    # The share x of the users makes the share sqrt(x) of the events: 1 % makes a tenth.
    user = np.minimum((shop.users * rng.random(count) ** 2).astype(np.int64), shop.users - 1)
    choice = rng.integers(0, _INTERESTS, count)
    interested = rng.random(count) < _INTERESTED
    key = (user * _INTERESTS + choice).astype(np.uint64)
    categories = min(_CATEGORIES, shop.items)
    interest = np.minimum((_mixed(key, 1) * categories).astype(np.int64), categories - 1)
    chance = rng.random(count)
    repeated = interested & (rng.random(count) < _REPEATED)
    favourite = _mixed(
        key * np.uint64(_FAVOURITES) + rng.integers(0, _FAVOURITES, count).astype(np.uint64), 2
    )
    item = popularity.draw(np.where(interested, interest, -1), np.where(repeated, favourite, chance))
    second = _YEAR / shop.events
    time = _START + np.floor((first + np.sort(rng.random(count)) * count) * second).astype(np.int64)
    return pl.DataFrame({"user": user, "item": item, "timestamp": time}).select(
        pl.format("u{}", pl.col("user").cast(pl.String).str.zfill(9)).alias("user_id"),
        pl.format("p{}", pl.col("item").cast(pl.String).str.zfill(9)).alias("item_id"),
        pl.Series("event", np.array(_KINDS)[rng.choice(len(_KINDS), count, p=_SHARES)]),
        "timestamp",
    )


def generate(shop: Shop, folder: Path) -> Path:
    """Write `items.parquet` and `events/*.parquet`, a file per million events, unless they are there.

    Returns:
        The folder.
    """
    done = folder / "shop.json"
    wanted = json.dumps(asdict(shop))
    if done.is_file() and done.read_text() == wanted:
        return folder
    done.unlink(missing_ok=True)
    (folder / "events").mkdir(parents=True, exist_ok=True)
    items_frame(shop).write_parquet(folder / "items.parquet")
    popularity = Popularity.of(shop)
    for block in range(-(-shop.events // BLOCK)):
        events_block(shop, popularity, block).write_parquet(folder / "events" / f"{block:05d}.parquet")
    done.write_text(wanted)
    return folder
