"""The RPCs: validation of requests, queries of state and model, and responses.

Public: `list_rules`, `service`, `surfaces`, `validation`.
"""
