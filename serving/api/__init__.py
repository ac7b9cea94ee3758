"""The RPCs: requests checked, state and model asked, responses built.

Public: `service`, `surfaces`.
"""
