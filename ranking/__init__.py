"""Vectors become lists: index, candidate sources, ranking head, re-ranking, bundle, metrics, evaluation."""
