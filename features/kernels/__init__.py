"""How loops are compiled.

Public: `compiled`, `hash_table`, `prefetch`.
"""
