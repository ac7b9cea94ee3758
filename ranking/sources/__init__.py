"""Candidate sources: each proposes items for a batch of queries, and one registry holds them all.

A source is a class in a module of its own and a line in `ranking.sources.registry`; see docs/extending.md.

Public: `contract`, `registry`.
"""

from ranking.sources.contract import CandidateSource, Proposal, SourceRequest
from ranking.sources.registry import SOURCES, SourceRegistry, best_score

__all__ = ["SOURCES", "CandidateSource", "Proposal", "SourceRegistry", "SourceRequest", "best_score"]
