"""Checks of a night's data and models against those of the last accepted run.

Public: `data`, `profile`, `tables`.
"""
