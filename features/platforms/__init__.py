"""Exports of shop platforms: each reader maps one platform's files to items and events.

A reader's columns are added to the file's own while `data.columns` is applied, so that a setting can choose
another column; afterwards only the reader's columns, and those that a setting names, are kept.

Public: `ga4`, `magento`, `merchant_feed`, `shopify`, `woocommerce`.
"""

from __future__ import annotations

from features.platforms.ga4 import read_ga4
from features.platforms.magento import read_magento
from features.platforms.merchant_feed import read_merchant_feed
from features.platforms.shopify import read_shopify
from features.platforms.woocommerce import read_woocommerce

__all__ = ["read_ga4", "read_magento", "read_merchant_feed", "read_shopify", "read_woocommerce"]
