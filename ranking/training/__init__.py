"""Training of the ranking head: examples, module, novelty budget."""
