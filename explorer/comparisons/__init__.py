"""Comparisons of two systems for the pages.

Public: `background`.
"""
