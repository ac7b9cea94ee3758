"""A loaded bundle with what people look at beside it: item cards and shoppers' histories."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from explorer.items import ItemTable
from explorer.shoppers import Shoppers, read_shoppers
from features.ingest.privacy import Pseudonyms
from ranking.bundle.bundle import HISTORIES, Bundle, load_bundle
from ranking.recommender import Recommender
from ranking.types import Request


@dataclass(frozen=True)
class LoadedModel:
    """One version of a store, in memory."""

    bundle: Bundle
    items: ItemTable
    shoppers: Shoppers

    @property
    def version(self) -> str:
        """Name of the version."""
        return self.bundle.version

    @property
    def recommender(self) -> Recommender:
        """Makes the lists."""
        return self.bundle.recommender

    @property
    def now(self) -> int:
        """Unix seconds from which recency is measured: a second after the last event of bundle and histories.

        Lists of an archived shop would be made for a day years later otherwise.
        """
        return max(self.bundle.data_end, self.shoppers.last_time) + 1

    def stored_id(self, user: str, key: str) -> str:
        """Return the id under which a shopper's history is stored: in a pseudonymised store the pseudonym.

        An id that is stored as it is stays, so that pseudonyms can be looked up, too.

        Args:
            user: the id.
            key: of the pseudonyms; without one ids stay as they are.

        """
        if not self.bundle.manifest.get("hash_users") or self.shoppers.position(user) is not None or not key:
            return user
        return Pseudonyms(key.encode()).of(user)


def load_model(store: Path, version: str, device: torch.device) -> LoadedModel:
    """Load a version of a store.

    Args:
        store: the artifact store.
        version: its name.
        device: where models and indexes run.

    Raises:
        InputError: naming the damaged file.

    """
    bundle = load_bundle(store, version, device=device)
    shoppers = read_shoppers(store / HISTORIES, bundle.catalogue, bundle.kinds)
    model = LoadedModel(bundle, ItemTable(bundle.catalogue), shoppers)
    _warm_up(model)
    return model


def _warm_up(model: LoadedModel) -> None:
    """Make two lists: the first ones compile loops, for a minute on a machine that has never done it."""
    users = ("", *model.shoppers.ids[:1])
    requests = [Request(model.shoppers.history(user), model.now, explain=True) for user in users]
    model.recommender.recommend(requests)
