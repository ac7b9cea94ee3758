"""Simulated experiments with a known lift: whether reports tell the truth about it."""
