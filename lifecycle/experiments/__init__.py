"""The report of an experiment: what its arms did, how sure that is, and what follows from it.

The command is `command:experiment_report`, which the command table names.
"""
