"""Baselines, evaluated through the same code as the system.

Public: `items`, `lists`, `registry`, `sasrec`.
"""
