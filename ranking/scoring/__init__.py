"""Scores of candidates: ranking head, free-text intent, and the place of items without behaviour.

Public: `intent`, `novelty`, `ranker`.
"""
