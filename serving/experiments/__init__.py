"""Experiments: arms with shares, the assignment of users and sessions to them, and the models of arms.

Public: `reading`, `router`, `selection`, `versions`.
"""
