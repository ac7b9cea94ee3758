"""State that changes while a bundle is served: items, vectors, counts and neighbours.

Public: `recorded_events`, `updates`.
"""
