"""Scores of candidates: ranking head, text relevance of an intent, and novelty offsets.

Public: `intent`, `novelty`, `ranker`.
"""
