"""Engines that judge, filter and sort the events of a table: one interface, and polars behind it.

Public: `interface`, `polars_engine`, `rules`.
"""
