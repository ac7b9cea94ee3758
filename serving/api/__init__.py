"""The RPCs: validation of requests, queries of state and model, and responses.

Public: `service`, `surfaces`.
"""
