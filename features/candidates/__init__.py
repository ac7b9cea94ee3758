"""Candidate features, one definition for training and serving.

Public: `features`, `similarity`.
"""
