"""The served model: its interface, host, replacement, and updates of items and counts.

Public: `engine_health`, `host`, `interfaces`, `item_cards`, `reload`, `served`, `shown_items`.
"""
