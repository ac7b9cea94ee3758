"""The served model: its interface, host, replacement, and updates of items and counts."""
