"""Parsing of values: numbers, times, types of attributes, names of columns and of kinds.

Public: `attribute_types`, `names`, `numbers`, `order_states`, `times`.
"""
