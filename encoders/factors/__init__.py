"""Linear models of behaviour: co-purchase factors and affinity.

Public: `affinity`, `als`, `co_purchase`.
"""
