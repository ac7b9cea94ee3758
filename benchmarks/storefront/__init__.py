"""Trials of a storefront on a published bundle, and their table."""
