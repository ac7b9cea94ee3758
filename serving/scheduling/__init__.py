"""Scheduling of jobs: micro-batching, admission control and load shedding.

Public: `batcher`.
"""
