"""The leakage linter: checks of a prepared dataset and its split, each finding with its worth in recall.

Public: `findings`, `linter`, `material`, `report`, `worth`.
"""
