"""The ledger: every event that servers recorded, kept in a file a month for the next trainings.

Public: `collection`.
"""
