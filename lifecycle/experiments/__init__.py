"""The report of an experiment: what its arms did, how sure that is, and what follows from it.

Public: `command`
"""
