"""Training of the ranking head: examples, module, novelty budget.

Public: `examples`, `fit_novelty`, `ids_only`, `text_arrays`, `train`.
"""
