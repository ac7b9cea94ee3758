"""When a job runs, and whether it runs at all: micro-batching and load shedding.

Public: `batcher`.
"""
