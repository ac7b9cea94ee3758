"""Checks of a night's data and models against those of the last accepted run.

Public: `check`, `data`, `models`, `profile`, `tables`.
"""
