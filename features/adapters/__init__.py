"""Adapters: each turns raw files, known for their own mess, into tables under contract names."""

from __future__ import annotations

from pathlib import Path

from conf.errors import InputError
from conf.overrides import override
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
from features.files.readers import resolve_paths
from features.ingest.raw_tables import Sources
from features.platforms import read_ga4, read_magento, read_merchant_feed, read_shopify, read_woocommerce

__all__ = ["Sources", "read_sources", "source_files"]


def source_files(config: DataConfig) -> list[Path]:
    """List the raw files that the settings name, to tell whether they have changed.

    Raises:
        InputError: a path that does not exist.
    """
    if config.adapter is Adapter.completejourney:
        return packaged_files()
    named = ((config.items, "data.items"), (config.events, "data.events"))
    paths = [path for source, setting in named if source for path in resolve_paths(source, setting)]
    return list(dict.fromkeys(file_of(path) for path in paths))


def read_sources(config: DataConfig, seed: int) -> Sources:
    """Open the tables that `data.adapter` names.

    Raises:
        InputError: paths or columns that are missing, or settings that the adapter does not know.
    """
    if config.user_column is not None and config.adapter is not Adapter.online_retail:
        raise InputError(
            "data.user_column is a setting of data.adapter=online_retail; "
            f"elsewhere map the column: {override('data.columns', {'user_id': config.user_column})}"
        )
    for setting in ("keep_all_lines", "line_kcore"):
        if getattr(config, setting) and config.adapter is not Adapter.online_retail:
            raise InputError(f"data.{setting} is a setting of data.adapter=online_retail; leave it out")
    match config.adapter:
        case Adapter.files:
            return read_files(config)
        case Adapter.completejourney:
            return read_completejourney(config)
        case Adapter.online_retail:
            return read_online_retail(config, seed)
        case Adapter.amazon_reviews:
            return read_amazon_reviews(config)
        case Adapter.movielens:
            return read_movielens(config)
        case Adapter.recbole:
            return read_recbole(config)
        case Adapter.shopify:
            return read_shopify(config)
        case Adapter.woocommerce:
            return read_woocommerce(config)
        case Adapter.magento:
            return read_magento(config)
        case Adapter.merchant_feed:
            return read_merchant_feed(config)
        case Adapter.ga4:
            return read_ga4(config)
        case Adapter.retailrocket:
            return read_retailrocket(config)
        case Adapter.otto:
            return read_otto(config)
        case Adapter.mind:
            return read_mind(config)
        case Adapter.yoochoose:
            return read_yoochoose(config)
