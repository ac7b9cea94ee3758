"""How loops are compiled.

Public: `ahead`, `compiled`, `hash_table`, `prefetch`.
"""
