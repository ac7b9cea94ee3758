"""Adapters: each maps the raw files of a data set or platform to tables under contract names.

Public: `amazon_reviews`, `completejourney`, `files`, `mind`, `movielens`, `online_retail`, `otto`,
`recbole`, `retailrocket`, `yoochoose`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from conf.composition.overrides import override
from conf.errors import InputError
from conf.schema import Adapter, DataConfig
from features.adapters.amazon_reviews import read_amazon_reviews
from features.adapters.completejourney import packaged_files, read_completejourney
from features.adapters.files import read_files
from features.adapters.mind import read_mind
from features.adapters.movielens import read_movielens
from features.adapters.online_retail import read_online_retail
from features.adapters.otto import read_otto
from features.adapters.recbole import read_recbole
from features.adapters.retailrocket import read_retailrocket
from features.adapters.yoochoose import read_yoochoose
from features.files.containers import file_of
from features.files.copies import without_urls
from features.files.readers import resolve_paths, scan_table
from features.ingest.raw_tables import Sources, in_file_order
from features.platforms import read_ga4, read_magento, read_merchant_feed, read_shopify, read_woocommerce

__all__ = ["Sources", "read_sources", "source_files"]

_READERS: Final[dict[Adapter, Callable[[DataConfig], Sources]]] = {
    Adapter.files: read_files,
    Adapter.completejourney: read_completejourney,
    Adapter.amazon_reviews: read_amazon_reviews,
    Adapter.movielens: read_movielens,
    Adapter.recbole: read_recbole,
    Adapter.shopify: read_shopify,
    Adapter.woocommerce: read_woocommerce,
    Adapter.magento: read_magento,
    Adapter.merchant_feed: read_merchant_feed,
    Adapter.ga4: read_ga4,
    Adapter.retailrocket: read_retailrocket,
    Adapter.otto: read_otto,
    Adapter.mind: read_mind,
    Adapter.yoochoose: read_yoochoose,
}


def source_files(config: DataConfig) -> list[Path]:
    """Return the raw files that the settings name, for change detection; those at URLs are left out.

    Raises:
        InputError: a path that does not exist.
    """
    own = ((config.items, "data.items"), (config.events, "data.events"))
    packaged = config.adapter is Adapter.completejourney
    named = (*(() if packaged else own), (config.recorded, "data.recorded"))
    sources = [(without_urls(source), setting) for source, setting in named]
    paths = [path for source, setting in sources if source for path in resolve_paths(source, setting)]
    return list(dict.fromkeys([*(packaged_files() if packaged else []), *map(file_of, paths)]))


def shuffled(config: DataConfig) -> bool:
    """Return whether the data depend on the seed: Online Retail's lines are shuffled within an invoice."""
    return config.adapter is Adapter.online_retail


def read_sources(config: DataConfig, seed: int) -> Sources:
    """Open the tables that `data.adapter` names.

    Raises:
        InputError: missing paths or columns, or settings that the adapter does not have or that contradict
            each other.
    """
    if config.user_column is not None and config.adapter is not Adapter.online_retail:
        raise InputError(
            "data.user_column is a setting of data.adapter=online_retail; "
            f"elsewhere map the column: {override('data.columns', {'user_id': config.user_column})}"
        )
    for setting in ("keep_all_lines", "line_kcore"):
        if getattr(config, setting) and config.adapter is not Adapter.online_retail:
            raise InputError(f"data.{setting} is a setting of data.adapter=online_retail; leave it out")
    if config.adapter is Adapter.online_retail:
        sources = read_online_retail(config, seed)
    else:
        sources = _READERS[config.adapter](config)
    if config.file_order and sources.events is not None:
        sources = replace(sources, events=in_file_order(sources.events))
    if config.recorded:
        sources = replace(sources, recorded=scan_table(config.recorded, "data.recorded"))
    return sources
