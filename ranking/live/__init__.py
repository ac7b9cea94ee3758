"""Mutable state of a served bundle: items, vectors, counts and neighbours.

Public: `recorded_events`, `snapshot` and `updates`.
"""
