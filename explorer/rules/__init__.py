"""Rules of lists: read from a form, applied to shoppers, and priced on validation queries.

Public: `changes`, `rule_set`, `validation`.
"""
