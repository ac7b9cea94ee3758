"""A catalogue as a whole, for people who look at it: a map of its items, and those that say nearly the same.

Public: `layout`, `overview`.
"""
